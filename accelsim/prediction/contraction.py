"""Products of backward lanes with forward samples, image by image."""

from devices.base.jit import jit
from workloads.operators.base import Array


@jit(fastmath=True)
def add_products(samples: Array, delta: Array, out: Array) -> None:
    """out[k, r, b] += sum_f samples[k, f, b] delta[f, r, b], for `(K, F, B)` and `(F, R, B)`."""
    n_samples, n_features, n_images = samples.shape
    n_lanes = delta.shape[1]
    for f in range(n_features):
        for k in range(n_samples):
            for r in range(n_lanes):
                for b in range(n_images):
                    out[k, r, b] += samples[k, f, b] * delta[f, r, b]
