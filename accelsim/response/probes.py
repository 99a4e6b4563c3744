"""What is carried back from the outputs: each of them, or where they are many, random combinations of them.

Random combinations s stand for all outputs: E s' C s = tr C for s of independent signs (Hutchinson). First the directions of a few known
output errors, of which most of C is made, are taken exactly: with Q their orthonormal basis, image by image, and P = 1 - Q Q',

    tr C = tr Q' C Q + E s' P C P s             (Hutch++, Meyer et al. 2021, arXiv:2010.09649)          (1)
"""

import numpy as np

from devices.base.stream import rademacher, site_id
from workloads.operators.base import Array

MAX_EXACT_OUTPUTS = 64
FEW_IMAGES = 32
N_ERRORS = 12
"""Output errors that are known beforehand: a dozen programmings' linear response, or samples."""


def n_probes_for(n_out: int, n_images: int) -> int:
    """Return 0 where every output is carried, else the random combinations an image: with `N_ERRORS` known ones, whole vectors of lanes."""
    if n_out <= MAX_EXACT_OUTPUTS:
        return 0
    return (32 if n_images < FEW_IMAGES else 16) - N_ERRORS


def every_output(n_out: int, n_images: int) -> Array:
    """Return unit vectors `(n_out, n_out, B)`."""
    return np.broadcast_to(np.eye(n_out, dtype=np.float32)[:, :, None], (n_out, n_out, n_images)).copy()


def combinations(known: Array, n_images: int, n_out: int, *, n_probes: int, seed: int, trial: int) -> Array:
    """Return the combinations of (1), `(n_out, n_known + n_probes, B)`, the random ones scaled so that all simply add.

    `known` are output errors `(n_known, B, n_out)`, possibly none; no more of them are used than there are outputs.
    """
    n_known = min(len(known), n_out)
    seeds = np.zeros((n_out, n_known + n_probes, n_images), np.float32)
    probes = np.empty((n_out, n_probes, n_images), np.float32)
    rademacher(probes, seed=seed, site=site_id("", "probe"), trial=trial)
    if n_known:
        basis = np.linalg.qr(known[:n_known].transpose(1, 2, 0))[0].astype(np.float32)  # (B, n_out, n_known)
        probes -= np.einsum("bok,bkp->opb", basis, np.einsum("bok,opb->bkp", basis, probes))
        seeds[:, :n_known] = basis.transpose(1, 2, 0)
    seeds[:, n_known:] = probes / np.float32(np.sqrt(n_probes))
    return seeds


def probe_variance(lanes: Array, n_probes: int, n_out: int) -> Array:
    """Return the variance that random probes add to `lanes.sum(axis=0) / n_out`, by image, from those of `lanes` `(n_carried, B)`."""
    if n_probes < 2:
        return np.zeros(lanes.shape[1])
    return np.asarray(lanes[-n_probes:].var(axis=0, ddof=1) * n_probes / n_out**2)
