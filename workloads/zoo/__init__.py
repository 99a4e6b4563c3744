"""Embedded trained networks with their data and model cards.

`cards.toml` says which networks there are and how their images are normalized; `NAME.md` is the card to read.
"""

import tomllib
from functools import cache
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from typing import Any

import numpy as np

from devices.base.errors import NetworkError
from workloads.card import ModelCard
from workloads.network import Network
from workloads.samples import Samples, samples_of

SAMPLES_FILE = "fashion_mnist_test1000.npz"


def embedded_names() -> tuple[str, ...]:
    """Return the names of the embedded networks, sorted."""
    return tuple(sorted(_cards()))


def embedded_path(name: str) -> Traversable:
    """Return where the ONNX file of an embedded network is; NetworkError for an unknown name."""
    return files(__name__).joinpath(_card(name)["file"])


def load_embedded_network(name: str) -> Network:
    """Return an embedded network."""
    from workloads.onnx_reader import load_onnx  # onnx is slow to import

    with as_file(embedded_path(name)) as path:
        return load_onnx(path)


def load_embedded_samples(name: str) -> Samples:
    """Return the embedded test images as the network takes them, x = (p / 255 - mean) / std, with their labels."""
    card = _card(name)
    with files(__name__).joinpath(SAMPLES_FILE).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        pixels, labels = arrays["images"], arrays["y"]
    x = ((pixels / 255.0 - card["mean"]) / card["std"]).astype(np.float32)
    return samples_of(x.reshape(-1, *card["input_shape"]), labels.astype(np.int64))


def load_embedded(name: str) -> tuple[Network, Samples]:
    """Return an embedded network and 1,000 labelled test images for it; the names are `fashion_cnn` and `fashion_resnet`."""
    return load_embedded_network(name), load_embedded_samples(name)


def embedded_card(network: Network) -> ModelCard | None:
    """Return the card of a network that is one of the embedded ones, under whatever name; None for any other."""
    for name, card in _cards().items():
        if load_embedded_network(name).digest == network.digest:
            return ModelCard(accuracy=card["accuracy_test10000"], mean=(card["mean"],), std=(card["std"],))
    return None


@cache
def _cards() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files(__name__).joinpath("cards.toml").read_text(encoding="utf-8"))


def _card(name: str) -> dict[str, Any]:
    if name not in _cards():
        raise NetworkError(f"no embedded network {name!r}; there are {', '.join(embedded_names())}")
    return _cards()[name]
