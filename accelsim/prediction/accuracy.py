"""From error to accuracy: how often the largest output is the right one, from the mean and covariance of the outputs alone."""

import numpy as np
from numpy.typing import NDArray

from devices.base.stream import normals, site_id
from workloads.operators.base import Array

N_DRAWS = 512


def predicted_accuracy(mean: Array, covariance: Array, labels: Array, *, seed: int) -> float:
    """Return the expected accuracy for Gaussian outputs of mean `(N, n_out)` and covariance `(N, n_out, n_out)`.

    The small output space is sampled (512 draws an image); no network is evaluated. Outputs are taken as jointly Gaussian.
    """
    n_images, n_out = mean.shape
    draws = normals(np.empty((n_images, N_DRAWS, n_out), np.float32), seed=seed, site=site_id("", "accuracy"), trial=0)
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :]
    outputs = mean[:, None, :] + np.einsum("nkj,nij->nki", draws, root)
    return float(np.mean(outputs.argmax(axis=2) == np.asarray(labels)[:, None]))


def accuracy(outputs: Array, labels: NDArray[np.int64] | None) -> float | None:
    """Return the share of images whose largest output is the label's."""
    return None if labels is None else float(np.mean(outputs.argmax(axis=1) == np.asarray(labels)))
