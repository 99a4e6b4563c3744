"""Images to train and test on: a folder of IDX files, or .npz files with x and y. No PyTorch.

Unsigned bytes are pixels, `(p / 255 - mean) / std` by the recipe; floats are taken as they are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.base.errors import SamplesError, told_of
from workloads.idx_files import read_idx
from workloads.network import digest_of
from workloads.samples import labels_of, read_arrays, samples_of

IDX_NAMES = {"train": "train", "test": "t10k"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Images:
    """Images `(N, C, H, W)`, uint8 or float32, and labels `(N,)`, int64."""

    x: NDArray
    y: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.x.ndim != 4 or len(self.x) != len(self.y) or not len(self.y):
            raise SamplesError(f"need images (N, C, H, W) and a label for each, got {self.x.shape} and {self.y.shape}")
        if self.y.min() < 0:
            raise SamplesError(f"labels: {self.y.min()}: need whole numbers from 0")

    def __len__(self) -> int:
        return len(self.y)

    @property
    def digest(self) -> str:
        """sha256 over images and labels, hex."""
        return digest_of(np.ascontiguousarray(self.x), np.ascontiguousarray(self.y))

    def part(self, which: slice) -> "Images":
        """Return a slice of the images."""
        return Images(x=self.x[which], y=self.y[which])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Data:
    """Images to train on and images to test on, of one shape; `n_classes` labels."""

    train: Images
    test: Images

    def __post_init__(self) -> None:
        if self.train.x.shape[1:] != self.test.x.shape[1:]:
            raise SamplesError(f"images to train on are {self.train.x.shape[1:]}, those to test on {self.test.x.shape[1:]}; need one shape")

    @property
    def n_classes(self) -> int:
        """Largest label, plus one."""
        return int(max(self.train.y.max(), self.test.y.max())) + 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.train.x.shape[1:])


def load_data(train: str | Path, test: str | Path | None = None) -> Data:
    """Return the data in a folder of IDX files (`train-images-idx3-ubyte`, `t10k-...`, packed or not), or in two .npz files.

    One .npz alone is split: its last sixth is tested on.
    """
    if Path(train).is_dir():
        if test is not None:
            raise SamplesError(f"--test: the folder {train} has test images of its own; leave it out")
        return Data(train=_idx(Path(train), "train"), test=_idx(Path(train), "test"))
    images = _npz(Path(train))
    if test is not None:
        return Data(train=images, test=_npz(Path(test)))
    n = len(images) - max(1, len(images) // 6)
    if n < 1:
        raise SamplesError(f"{train} has one image; need at least two, or test images of their own")
    return Data(train=images.part(slice(0, n)), test=images.part(slice(n, None)))


def _idx(folder: Path, split: str) -> Images:
    x, y = (_idx_file(folder, f"{IDX_NAMES[split]}-{what}-ubyte") for what in ("images-idx3", "labels-idx1"))
    if x.ndim != 3 or y.ndim != 1:
        raise SamplesError(f"{folder}: need images of rank 3 and labels of rank 1, got {x.ndim} and {y.ndim}")
    return Images(x=x[:, None], y=y.astype(np.int64))


def _idx_file(folder: Path, name: str) -> NDArray[np.uint8]:
    packed = folder / f"{name}.gz"
    return read_idx(packed if packed.is_file() else folder / name)


def _npz(path: Path) -> Images:
    arrays = read_arrays(path)
    if "y" not in arrays:
        raise SamplesError(f"{path.name} has no labels; write it by numpy.savez(path, x=x, y=y)")
    with told_of(path):
        if arrays["x"].dtype == np.uint8 and arrays["x"].ndim:  # pixels stay a quarter of the size, and are scaled by the recipe
            return Images(x=arrays["x"], y=labels_of(arrays["y"], len(arrays["x"])))
        samples = samples_of(arrays["x"], arrays["y"])
        assert samples.y is not None
        return Images(x=samples.x, y=samples.y)


def normalized(x: NDArray, *, mean: float, std: float) -> NDArray[np.float32]:
    """Return pixels as the network takes them, float32."""
    if x.dtype != np.uint8:
        return np.asarray(x, np.float32)
    return ((x.astype(np.float32) / np.float32(255.0)) - np.float32(mean)) / np.float32(std)
