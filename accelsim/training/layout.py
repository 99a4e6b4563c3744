"""What a recipe's `layers` say: `conv 32 k5 s2, conv 64 k3 s2, pool 2, dense 128`, each but pool followed by batch norm and ReLU.

    conv C [kK] [sS]   C channels, kernel K (3), stride S (1), padded by K // 2
    pool P             the largest of each P x P window
    dense C            C outputs

The classifier, a dense layer with one output a class and batch norm, follows by itself. No PyTorch.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from devices.base.errors import SpecError
from devices.base.toml_codec import shown

Kind: TypeAlias = Literal["conv", "pool", "dense"]
MAX_LAYERS, MAX_SIZE = 64, 8192
_LAYER = re.compile(r"(?:(conv) (\d{1,4})(?: k(\d{1,2}))?(?: s(\d))?|(pool) (\d)|(dense) (\d{1,4}))")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: its name, kind, number of outputs (0 for pool), kernel and stride."""

    name: str
    kind: Kind
    n_out: int = 0
    kernel: int = 1
    stride: int = 1

    @property
    def padding(self) -> int:
        """Zeros on each side of the image."""
        return self.kernel // 2 if self.kind == "conv" else 0


def parse_layers(text: str) -> tuple[Layer, ...]:
    """Return the layers of a recipe's text; SpecError naming the part that is none."""
    parts = [" ".join(part.split()) for part in text.split(",")]
    if len(parts) > MAX_LAYERS:
        raise SpecError(f"layers: {len(parts)} layers; need at most {MAX_LAYERS}")
    layers = [_parsed(part, i) for i, part in enumerate(parts, start=1)]
    dense = [i for i, layer in enumerate(layers) if layer.kind == "dense"]
    if dense and any(layer.kind != "dense" for layer in layers[dense[0] :]):
        raise SpecError(f"layers: {shown(text)}: after a dense layer there are no images; put conv and pool before it")
    return tuple(layers)


def _parsed(part: str, number: int) -> Layer:
    met = _LAYER.fullmatch(part)
    if met is None:
        raise SpecError(f"layers: {shown(part)}: need conv C [kK] [sS], pool P or dense C, e.g. conv 32 k5 s2, pool 2, dense 128")
    _, channels, kernel, stride, pool, window, dense, outputs = met.groups()
    if pool:
        return _checked(Layer(name=f"pool{number}", kind="pool", kernel=int(window), stride=int(window)), part)
    if dense:
        return _checked(Layer(name=f"dense{number}", kind="dense", n_out=int(outputs)), part)
    return _checked(Layer(name=f"conv{number}", kind="conv", n_out=int(channels), kernel=int(kernel or 3), stride=int(stride or 1)), part)


def _checked(layer: Layer, part: str) -> Layer:
    if layer.kernel < 1 or layer.stride < 1 or (layer.kind != "pool" and not 1 <= layer.n_out <= MAX_SIZE):
        raise SpecError(f"layers: {shown(part)}: need sizes of at least 1, and at most {MAX_SIZE} channels or outputs")
    return layer


def widened(text: str, factor: float) -> str:
    """Return the layers with their channels and outputs times `factor`, rounded, at least 1: a narrower or wider network."""
    return re.sub(r"(conv|dense) (\d+)", lambda met: f"{met[1]} {max(1, round(factor * int(met[2])))}", text)
