"""The network of a recipe: stored layers, each followed by batch norm and, but for the last, ReLU."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from accelsim.training.layout import Layer
from accelsim.training.stored import Drawing, Floats, Storage, StoredLayer
from devices.base.errors import SpecError


class MemoryNetwork(nn.Module):
    """A network of stored layers. Batch norms and what they hold are not in the memory."""

    def __init__(self, layers: Sequence[Layer], *, input_shape: tuple[int, ...], n_classes: int, storage: Storage) -> None:
        super().__init__()
        self.input_shape, self.n_classes = input_shape, n_classes
        self.parts = nn.ModuleList(_parts(layers, input_shape, n_classes, storage))
        self.stored = [part for part in self.parts if isinstance(part, StoredLayer)]
        self._look_at_shapes()

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `(N, n_classes)` of images `(N, *input_shape)`, with the weights that were read last."""
        for part in self.parts:
            x = part(x)
        return x

    def _look_at_shapes(self) -> None:
        """Learn each layer's number of output positions."""
        self.eval()
        with torch.no_grad():
            self.read_right()
            self(torch.zeros(1, *self.input_shape))
        self.train()

    def read_right(self) -> None:
        """Read all weights without a wrong bit."""
        for layer in self.stored:
            layer.read_right()

    def read(self, p: Floats, drawing: Drawing) -> None:
        """Read all weights at error rates `(n_layers, n_bits)`."""
        for layer, rates in zip(self.stored, p):
            layer.read(rates, drawing)

    def pass_gradients(self) -> None:
        """Give the gradients at what was read to the latent weights."""
        for layer in self.stored:
            layer.pass_gradient()

    def rate_slopes(self) -> Floats:
        """Return p dE[L]/dp of each layer and bit, `(n_layers, n_bits)`, by the trapezoid rule."""
        return np.stack([layer.rate_slope() for layer in self.stored])

    @torch.no_grad()
    def clip(self) -> None:
        """Hold all latent weights within the clip, and the factors of batch norms above 0 where faults tell 0 from 1.

        A negative factor, folded into the weights, would turn every stored bit of its channel.
        """
        for layer in self.stored:
            layer.clip_latent()
        faults = self.stored[0].storage.faults
        if faults.to_one_share != 0.5 or faults.kind == "stuck_bits":
            for part in self.parts:
                if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
                    part.weight.clamp_(min=1e-3)


def _parts(layers: Sequence[Layer], input_shape: tuple[int, ...], n_classes: int, storage: Storage) -> Iterator[nn.Module]:
    shape = input_shape
    for layer in layers:
        if layer.kind == "pool":
            shape = _after(layer, shape, shape[0])
            yield nn.MaxPool2d(layer.kernel)
            continue
        if layer.kind == "dense" and len(shape) == 3:
            yield nn.Flatten()
            shape = (shape[0] * shape[1] * shape[2],)
        yield from _stored(layer, shape, storage)
        shape = _after(layer, shape, layer.n_out)
        yield nn.ReLU()
    if len(shape) == 3:
        yield nn.Flatten()
        shape = (shape[0] * shape[1] * shape[2],)
    yield from _stored(Layer(name="classifier", kind="dense", n_out=n_classes), shape, storage)


def _stored(layer: Layer, shape: tuple[int, ...], storage: Storage) -> Iterator[nn.Module]:
    if layer.kind == "dense":
        yield StoredLayer(layer.name, (layer.n_out, shape[0]), storage)
        yield nn.BatchNorm1d(layer.n_out)
        return
    weights = (layer.n_out, shape[0], layer.kernel, layer.kernel)
    yield StoredLayer(layer.name, weights, storage, stride=layer.stride, padding=layer.padding)
    yield nn.BatchNorm2d(layer.n_out)


def _after(layer: Layer, shape: tuple[int, ...], n_out: int) -> tuple[int, ...]:
    """Return the shape behind a layer; SpecError where nothing is left of the image."""
    if layer.kind == "dense":
        return (n_out,)
    if len(shape) != 3:
        raise SpecError(f"layers: {layer.name} needs images (C, H, W), but what comes to it is of shape {shape}")
    sizes = [(size + 2 * layer.padding - layer.kernel) // layer.stride + 1 for size in shape[1:]]
    if min(sizes) < 1:
        raise SpecError(f"layers: {layer.name} takes windows of {layer.kernel} x {layer.kernel} of an image of {shape[1]} x {shape[2]}")
    return (n_out, *sizes)
