"""Train the embedded networks on Fashion-MNIST and write the files of this folder.

    python -m workloads.zoo.train --out DIR

writes `fashion_cnn.onnx`, `fashion_resnet.onnx`, `fashion_mnist_test1000.npz` and `cards.toml`.
Each network is trained from its own seeded generator on one thread, so neither the order of the
networks nor the number of cores changes the result; another processor or torch version may.
The test images are looked at once, after the last epoch: no epoch or seed is chosen by them.

The data are the four IDX files of Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv:1708.07747, MIT licence),
in Debian's package `dataset-fashion-mnist`. Needs the extra `train` (torch and onnx).
"""

from __future__ import annotations

import argparse
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from workloads.idx_files import read_idx

DEFAULT_DATA = Path("/usr/share/datasets/fashion-mnist")
PIXEL_MEAN, PIXEL_STD = 0.0, 0.3530
# The black background stays at zero: it draws no read power, and it does not carry the noise of a kernel, shared by
# all background positions, coherently into every sum that follows.
INPUT_SHAPE = (1, 28, 28)
CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
N_EMBEDDED = 1000
BATCH_SIZE = 128
MAX_SHIFT_PIXELS = 2
OPSET = 17
# Relative to the largest logit: float32 sums of up to 800 terms, taken in another order, differ by tens of units in the last place.
LOGIT_TOLERANCE = 1e-5


class FashionCnn(nn.Module):
    """Classify by two convolutions and two fully connected layers, in the manner of LeNet-5."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 5, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 5, bias=False)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc1 = nn.Linear(32 * 5 * 5, 48)
        self.fc2 = nn.Linear(48, len(CLASSES))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, 10) of normalized images (N, 1, 28, 28)."""
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.pool(torch.relu(self.bn2(self.conv2(x))))
        return self.fc2(torch.relu(self.fc1(torch.flatten(x, 1))))

    def fold(self) -> None:
        """Replace every convolution by its product with the batch norm behind it."""
        self.conv1, self.bn1 = fuse_conv_bn_eval(self.conv1, self.bn1), nn.Identity()
        self.conv2, self.bn2 = fuse_conv_bn_eval(self.conv2, self.bn2), nn.Identity()


class ResidualBlock(nn.Module):
    """Add two 3x3 convolutions to their input, projected by `down` where the shape changes."""

    def __init__(self, n_in: int, n_out: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        projects = stride != 1 or n_in != n_out
        self.down = nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False) if projects else nn.Identity()
        self.down_bn = nn.BatchNorm2d(n_out) if projects else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, H, W) to (N, n_out, H / stride, W / stride)."""
        skip = self.down_bn(self.down(x))
        x = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(x)) + skip)

    def fold(self) -> None:
        """Replace every convolution by its product with the batch norm behind it."""
        self.conv1, self.bn1 = fuse_conv_bn_eval(self.conv1, self.bn1), nn.Identity()
        self.conv2, self.bn2 = fuse_conv_bn_eval(self.conv2, self.bn2), nn.Identity()
        if isinstance(self.down, nn.Conv2d):
            self.down, self.down_bn = fuse_conv_bn_eval(self.down, self.down_bn), nn.Identity()


class FashionResnet(nn.Module):
    """Classify by a stem, three residual blocks of 8, 16 and 32 channels, and a global average."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(8)
        self.block1 = ResidualBlock(8, 8, stride=1)
        self.block2 = ResidualBlock(8, 16, stride=2)
        self.block3 = ResidualBlock(16, 32, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(32, len(CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (N, 10) of normalized images (N, 1, 28, 28)."""
        x = torch.relu(self.stem_bn(self.stem(x)))
        x = self.block3(self.block2(self.block1(x)))
        return self.fc(torch.flatten(self.pool(x), 1))

    def fold(self) -> None:
        """Replace every convolution by its product with the batch norm behind it."""
        self.stem, self.stem_bn = fuse_conv_bn_eval(self.stem, self.stem_bn), nn.Identity()
        for block in (self.block1, self.block2, self.block3):
            block.fold()


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is trained and for how long: Adam, one-cycle learning rate peaking at `peak_rate`."""

    network: Callable[[], nn.Module]
    n_epochs: int
    peak_rate: float


RECIPES = {
    "fashion_cnn": Recipe(network=FashionCnn, n_epochs=30, peak_rate=4e-3),
    "fashion_resnet": Recipe(network=FashionResnet, n_epochs=30, peak_rate=1e-2),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """Images (N, 28, 28) and labels (N,), both uint8."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def read_images(data: Path, split: str) -> Images:
    """Read the images and labels of `split`, "train" or "t10k"."""
    return Images(pixels=read_idx(data / f"{split}-images-idx3-ubyte.gz"), labels=read_idx(data / f"{split}-labels-idx1-ubyte.gz"))


def normalize(pixels: Tensor) -> Tensor:
    """Return (p / 255 - mean) / std of the uint8 pixels (N, 28, 28), as float32 (N, 1, 28, 28)."""
    return ((pixels.float() / 255 - PIXEL_MEAN) / PIXEL_STD).unsqueeze(1)


def augment(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `MAX_SHIFT_PIXELS` either way on both axes, and mirror half of them."""
    n, height, width = pixels.shape
    padded = nn.functional.pad(pixels, (MAX_SHIFT_PIXELS,) * 4)
    corner = torch.randint(0, 2 * MAX_SHIFT_PIXELS + 1, (2, n, 1), generator=generator)
    mirrored = torch.rand((n, 1), generator=generator) < 0.5
    columns = torch.arange(width)
    rows = corner[0] + torch.arange(height)
    columns = corner[1] + torch.where(mirrored, columns.flip(0), columns)
    return padded[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def batches(images: Images, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield one epoch of augmented, normalized batches in random order; the incomplete last one is dropped."""
    pixels, labels = torch.tensor(images.pixels), torch.tensor(images.labels, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=generator)
    for chosen in order[: len(order) // BATCH_SIZE * BATCH_SIZE].split(BATCH_SIZE):
        yield normalize(augment(pixels[chosen], generator)), labels[chosen]


def train(recipe: Recipe, images: Images, *, seed: int) -> nn.Module:
    """Train the recipe's network by cross-entropy and return it in evaluation mode."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = recipe.network().train()
    optimizer = torch.optim.Adam(network.parameters())
    n_steps = recipe.n_epochs * (len(images.labels) // BATCH_SIZE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=recipe.peak_rate, total_steps=n_steps)
    for epoch in range(1, recipe.n_epochs + 1):
        start = time.perf_counter()
        losses = [step(network, optimizer, schedule=schedule, batch=batch) for batch in batches(images, generator)]
        print(f"epoch {epoch}/{recipe.n_epochs}: mean loss {np.mean(losses):.4f}, {time.perf_counter() - start:.0f} s", flush=True)
    return network.eval()


def step(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    batch: tuple[Tensor, Tensor],
) -> float:
    """Take one optimizer step and return the batch's loss."""
    x, labels = batch
    loss = nn.functional.cross_entropy(network(x), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    schedule.step()
    return loss.item()


@torch.no_grad()
def logits(network: nn.Module, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the network's logits (N, 10) of uint8 images (N, 28, 28)."""
    return torch.cat([network(normalize(part)) for part in torch.tensor(pixels).split(N_EMBEDDED)]).numpy()


def folded(network: nn.Module, pixels: NDArray[np.uint8]) -> nn.Module:
    """Fold the batch norms of `network`, and check that its logits of `pixels` stay."""
    before = logits(network, pixels)
    network.fold()
    require_close("the folded network", logits(network, pixels), expected=before)
    return network


def require_close(what: str, found: NDArray[np.float32], *, expected: NDArray[np.float32]) -> None:
    """Raise `RuntimeError` unless the logits agree to `LOGIT_TOLERANCE` of the largest one."""
    difference = float(np.abs(found - expected).max() / np.abs(expected).max())
    print(f"{what} differs by {difference:.1e} of the largest logit", flush=True)
    if not difference <= LOGIT_TOLERANCE:
        raise RuntimeError(f"{what} differs by {difference:g} of the largest logit, need at most {LOGIT_TOLERANCE:g}")


def export(network: nn.Module, path: Path) -> None:
    """Write `network` as one ONNX file with a free batch axis "N" and torch's parameter names."""
    torch.onnx.export(
        network,
        (torch.zeros(2, *INPUT_SHAPE),),
        str(path),
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["logits"],
        dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
    )


def check_export(network: nn.Module, path: Path, *, pixels: NDArray[np.uint8]) -> None:
    """Check the file's form, and its logits in batches of 1, 7 and 64 against the network's."""
    onnx.checker.check_model(str(path), full_check=True)
    evaluator = ReferenceEvaluator(str(path))
    for n_images in (1, 7, 64):
        image = normalize(torch.tensor(pixels[:n_images])).numpy()
        found = evaluator.run(None, {"image": image})[0]  # type: ignore[index]
        require_close(f"{path.name} at batch {n_images}", found, expected=logits(network, pixels[:n_images]))


def count_macs(network: nn.Module) -> int:
    """Count the multiply-accumulates of the convolutions and linear layers for one image."""
    counts: list[int] = []

    def count(module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weight = module.weight
        n_positions = output.shape[2:].numel()
        counts.append(weight.numel() * n_positions)

    layers = [module for module in network.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    network(torch.zeros(1, *INPUT_SHAPE))
    for hook in hooks:
        hook.remove()
    return sum(counts)


def card(network: nn.Module, path: Path, *, test: Images) -> str:
    """Return the network's table of `cards.toml`."""
    correct = logits(network, test.pixels).argmax(1) == test.labels
    classes = ", ".join(f'"{name}"' for name in CLASSES)
    return "\n".join(
        (
            f"[{path.stem}]",
            f'file = "{path.name}"',
            f"accuracy_test10000 = {correct.mean():.4f}",
            f"accuracy_embedded1000 = {correct[:N_EMBEDDED].mean():.3f}",
            f"mean = {PIXEL_MEAN:.4f}",
            f"std = {PIXEL_STD:.4f}",
            f"input_shape = {list(INPUT_SHAPE)}",
            f"classes = [{classes}]",
            f'sha256 = "{hashlib.sha256(path.read_bytes()).hexdigest()}"',
            f"n_parameters = {sum(parameter.numel() for parameter in network.parameters())}",
            f"n_macs = {count_macs(network)}",
            "",
        )
    )


def make(name: str, recipe: Recipe, *, data: Path, out: Path, seed: int) -> str:
    """Train, fold, export and check the network `name`, and return its card."""
    print(f"{name}: {recipe.n_epochs} epochs, seed {seed}", flush=True)
    network = train(recipe, read_images(data, "train"), seed=seed)
    test, path = read_images(data, "t10k"), out / f"{name}.onnx"
    network = folded(network, test.pixels[:N_EMBEDDED])
    export(network, path)
    check_export(network, path, pixels=test.pixels)
    return card(network, path, test=test)


def embed_images(data: Path, out: Path) -> None:
    """Write the first 1,000 test images and their labels, as they are in the source."""
    test = read_images(data, "t10k")
    np.savez_compressed(out / "fashion_mnist_test1000.npz", images=test.pixels[:N_EMBEDDED], y=test.labels[:N_EMBEDDED])


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m workloads.zoo.train", description="Train the embedded networks on Fashion-MNIST.")
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the four gzipped IDX files (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="folder the files are written to")
    parser.add_argument("--epochs", type=int, help="epochs of every network (default: its recipe's)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, order and augmentation (default %(default)s)")
    parser.add_argument("--network", choices=sorted(RECIPES), action="append", help="make only this one; may be repeated (default: all)")
    return parser.parse_args()


def main() -> None:
    """Make the networks, the embedded images and the cards."""
    chosen = arguments()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    chosen.out.mkdir(parents=True, exist_ok=True)
    embed_images(chosen.data, chosen.out)
    cards = []
    for name in chosen.network or RECIPES:
        recipe = RECIPES[name] if chosen.epochs is None else replace(RECIPES[name], n_epochs=chosen.epochs)
        cards.append(make(name, recipe, data=chosen.data, out=chosen.out, seed=chosen.seed))
        print(cards[-1], flush=True)
    (chosen.out / "cards.toml").write_text("\n".join(cards), encoding="utf-8")


if __name__ == "__main__":
    main()
