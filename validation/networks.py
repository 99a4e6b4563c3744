"""Networks and real images that the tables and slow tests run on: the embedded ones, and those in the folder ACCELSIM_DATA.

Each external file's origin and sha256 is in the documentation (Models and data), so that others can repeat the tables.
"""

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from workloads.network import Network
from workloads.onnx_reader import load_onnx
from workloads.samples import Samples, samples_of
from workloads.zoo import embedded_names, load_embedded_network, load_embedded_samples

ENVIRONMENT = "ACCELSIM_DATA"
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DataMissingError(Exception):
    """The folder of external models and data is not there; the message says what to set."""


def data_folder() -> Path:
    """Return the folder named by ACCELSIM_DATA."""
    named = os.environ.get(ENVIRONMENT)
    if not named:
        raise DataMissingError(
            f"{ENVIRONMENT} is not set; it names the folder with models/ and data/ of the documentation's page Models and data"
        )
    folder = Path(named)
    if not (folder / "models").is_dir():
        raise DataMissingError(f"{ENVIRONMENT}={named} has no folder models/")
    return folder


def network_and_samples(name: str, n_images: int, *, start: int = 0) -> tuple[Network, Samples]:
    """Return a network by name with `n_images` of its real test images and labels."""
    if name in embedded_names():
        return load_embedded_network(name), load_embedded_samples(name)[start : start + n_images]
    if name not in EXTERNAL:
        raise KeyError(f"no network {name!r}; there are {', '.join([*embedded_names(), *EXTERNAL])}")
    folder = data_folder()
    return load_onnx(folder / "models" / f"{name}.onnx"), EXTERNAL[name](folder / "data", start, n_images)


def _mnist(folder: Path, start: int, n: int) -> Samples:
    packed = {kind: (folder / "mnist" / f"t10k-{kind}-ubyte.gz").read_bytes() for kind in ("images-idx3", "labels-idx1")}
    images = np.frombuffer(gzip.decompress(packed["images-idx3"]), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = np.frombuffer(gzip.decompress(packed["labels-idx1"]), np.uint8, offset=8)
    x = (images[start : start + n] / 255.0 - 0.1307) / 0.3081
    return samples_of(x.astype(np.float32), labels[start : start + n].astype(np.int64))


def _cifar10(folder: Path, start: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image  # comes with matplotlib

    with np.load(folder / "cifar10_jpeg" / "test.npz", allow_pickle=False) as stored:
        jpeg, offset, labels = stored["jpeg"], stored["offset"], stored["label"]
    files = [jpeg[offset[i] : offset[i + 1]].tobytes() for i in range(start, start + n)]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(f)).convert("RGB")) for f in files])
    return pixels.astype(np.float32).transpose(0, 3, 1, 2), labels[start : start + n].astype(np.int64)


def _cifar10_centred(folder: Path, start: int, n: int) -> Samples:
    pixels, labels = _cifar10(folder, start, n)
    return samples_of(((pixels - 128.0) / 128.0).astype(np.float32), labels)


def _cifar10_imagenet(folder: Path, start: int, n: int) -> Samples:
    pixels, labels = _cifar10(folder, start, n)
    mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    return samples_of(((pixels / 255.0 - mean) / std).astype(np.float32), labels)


EXTERNAL: dict[str, Callable[[Path, int, int], Samples]] = {
    "digit_cnn": _mnist,
    "resnet8_cifar10": _cifar10_centred,
    "resnet20_cifar10": _cifar10_imagenet,
}
