"""Networks and real images that the tables and slow tests run on: the embedded ones, and those in the folder ACCELSIM_DATA.

Each external file's origin and sha256 is in the documentation (Models and data), so that others can repeat the tables.
"""

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
    return load_onnx(folder / "models" / f"{name}.onnx", input_shape=SHAPES.get(name)), EXTERNAL[name](folder / "data", start, n_images)


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


def _cifar10_enlarged(folder: Path, start: int, n: int) -> Samples:
    """Return photographs of 224x224, as ImageNet networks take them; enlarged from 32x32, so without labels of theirs."""
    from PIL import Image

    pixels, _ = _cifar10(folder, start, n)
    large = [Image.fromarray(p.transpose(1, 2, 0).astype(np.uint8)).resize((224, 224), Image.Resampling.BICUBIC) for p in pixels]
    mean, std = (np.asarray(v, np.float32)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
    x = np.stack([np.asarray(image, np.float32).transpose(2, 0, 1) for image in large]) / 255.0
    return samples_of(((x - mean) / std).astype(np.float32))


def _electron_microscope(folder: Path, start: int, n: int) -> Samples:
    """Return the 128x128 corners of slices that the network was not trained on, then of the others."""
    from PIL import Image

    order = [24, 25, 26, 27, 28, 29, *range(24)][start : start + n]
    slices = [np.asarray(Image.open(folder / "isbi2012_em" / "image" / f"{i}.png"), np.float32) for i in order]
    return samples_of(np.stack([s[None, :128, :128] / np.float32(255.0) for s in slices]))


def _drawn_eyes(folder: Path, start: int, n: int) -> Samples:
    """Return drawn eyes, 148x148: skin, iris, pupil, glint, blur and noise; the network finds the pupil (IoU 0.85 to 0.94)."""
    return samples_of(np.stack([_drawn_eye(np.random.default_rng(k)) for k in range(start, start + n)])[:, None])


def _drawn_eye(random: np.random.Generator) -> NDArray[np.float32]:
    from PIL import Image, ImageDraw, ImageFilter

    picture = Image.new("L", (148, 148), int(random.integers(120, 180)))
    draw = ImageDraw.Draw(picture)
    x, y = random.uniform(60, 88, 2)

    def disc(x: float, y: float, width: float, height: float, grey: int) -> None:
        draw.ellipse((x - width, y - height, x + width, y + height), fill=grey)

    disc(x, y, 50, 36, int(random.integers(70, 110)))
    radius = random.uniform(12, 24)
    disc(x, y, radius, 0.9 * radius, int(random.integers(5, 35)))
    disc(x + random.uniform(-6, 6), y + random.uniform(-6, 6), 3, 3, 250)
    blurred = np.asarray(picture.filter(ImageFilter.GaussianBlur(1.5)), np.float32)
    return (np.clip(blurred + random.normal(0, 6, blurred.shape), 0, 255) / 255.0).astype(np.float32)


EXTERNAL: dict[str, Callable[[Path, int, int], Samples]] = {
    "digit_cnn": _mnist,
    "resnet8_cifar10": _cifar10_centred,
    "resnet20_cifar10": _cifar10_imagenet,
    "mobilenet_v2": _cifar10_enlarged,
    "em_unet": _electron_microscope,
    "mouse_unet": _drawn_eyes,
}
SHAPES = {"em_unet": (1, 128, 128)}
"""Of inputs, where a network takes any."""
