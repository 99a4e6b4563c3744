"""From error to accuracy: how often the largest output is the right one, from moments of the outputs, and samples where there are some.

Gaussian outputs of the predicted mean and covariance are off by some points where noise is large: a chip's noise is stronger or
weaker as a whole, so outputs have longer tails. Samples (`sketched`) are right but few. With delta the difference of the two
answers over all images, s its standard error, the Gaussian answer is corrected by

    delta max(0, 1 - s^2 / delta^2),                        (James and Stein's shrinkage)          (1)

so that many images are answered by the samples, and few ones by the smoother Gaussian.
"""

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


def corrected_accuracy(mean: Array, covariance: Array, samples: tuple[Array, ...], labels: Array, *, seed: int) -> float:
    """Return the expected accuracy by (1); `samples` are outputs `(n_samples, images, n_out)`, in chunks of images that share draws."""
    gaussian = predicted_accuracy(mean, covariance, labels, seed=seed)
    n_images, start, mean_right, variance = len(labels), 0, 0.0, 0.0
    total = sum(chunk.shape[0] * chunk.shape[1] for chunk in samples) / n_images  # samples an image, over all repetitions
    for chunk in samples:
        right = chunk.argmax(axis=2) == np.asarray(labels)[None, start : start + chunk.shape[1]]
        by_sample, weight = right.sum(axis=1) / n_images, len(chunk) / total
        mean_right += weight * float(by_sample.mean())
        variance += weight**2 * float(by_sample.var(ddof=1)) / len(chunk)
        start = (start + chunk.shape[1]) % n_images
    delta = mean_right - gaussian
    return gaussian + (delta * max(0.0, 1.0 - variance / delta**2) if delta != 0.0 else 0.0)


def accuracy(outputs: Array, labels: NDArray[np.int64] | None) -> float | None:
    """Return the share of images whose largest output is the label's."""
    return None if labels is None else float(np.mean(outputs.argmax(axis=1) == np.asarray(labels)))
