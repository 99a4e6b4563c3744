"""Layers whose weights are words in a memory: read with wrong bits, learned through latent weights.

    w = F k / K,   k = the whole number whose word is read, K the greatest, F the layer's full scale                     (1)

k is made from the latent weight v, clipped to [-c, c]: its sign (binary); its sign where |v| >= 0.7 mean |v|, else 0 (ternary, Li and Liu,
arXiv 1605.04711); round(K v / c) for fixed point, where c is the largest |v| of each output channel, so that the steps of a network whose
batch norms are folded into its weights can be told from their largest ones. The gradient is taken at the weights that were read and
applied to the latent ones (straight-through; Courbariaux et al., arXiv 1511.00363). The same pass gives what the loss gains from error
rates: E[L] is multilinear in the flips, and by the trapezoid rule between a bit's two states

    dE[L]/dp_j ~ sum_i (d_ij / 2) g_i c_ij (1{wrong} / q_ij + 1{right} / (1 - q_ij)),   q_ij = c_ij p_j                      (2)

d_ij is what weight i gains when bit j turns wrong, g_i the gradient at the weight that was read, and q_ij the probability that it does: c
is 1 for symmetric flips. For binary weights d = -2 s b, which is the estimator of `docs/training.rst`.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from devices.base.jit import jit
from devices.base.stream import site_id
from devices.base.stream import words as stream_words
from devices.memory_faults import Draws, MemoryFaults, WeakColumns
from devices.word_format import WordFormat, Words, values_of, words_of

Floats: TypeAlias = NDArray[np.float64]
Scale: TypeAlias = Literal["fan_in", "mean", "none"]
TERNARY_THRESHOLD = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """How a network's weights are stored: word, faults, full scale, and where latent weights end."""

    word: WordFormat
    faults: MemoryFaults
    scale: Scale = "fan_in"
    clip: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """Which random words a reading takes: the same for the same seed, purpose and trial, in every run."""

    seed: int
    purpose: str
    trial: int


@dataclass(slots=True, kw_only=True, eq=False)
class Reading:
    """What was read last: stored words, masks of wrong bits, and the probabilities that a 0 and a 1 turn, `(n_bits,)` each."""

    words: Words
    masks: Words
    up: Floats
    down: Floats
    step: Floats = field(default_factory=lambda: np.ones(1))


@jit()
def _read_values(words, masks, values, out):  # type: ignore[no-untyped-def]
    for i in range(words.size):
        out[i] = values[words[i] ^ masks[i]]


@jit(fastmath=True)
def _slope_sums(words, masks, gradient, values, step, factors, out):  # type: ignore[no-untyped-def]
    """Add (2), times p, for each bit; `step` is the weight of a step of each output channel, `factors` by bit, stored bit, and wrong."""
    per_channel = words.size // step.size
    for c in range(step.size):
        for j in range(out.size):
            bit, total = np.uint16(1 << j), 0.0
            for i in range(c * per_channel, (c + 1) * per_channel):
                wrong = masks[i] & bit
                right = words[i] ^ masks[i] ^ wrong
                gain = values[right ^ bit] - values[right]
                total += gradient[i] * gain * factors[j, (words[i] >> j) & 1, wrong >> j]
            out[j] += 0.5 * step[c] * total


def _factors(up: Floats, down: Floats) -> Floats:
    """Return p times what stands behind g in (2), by bit, stored bit, and whether it was wrong."""
    q = np.stack([up, down], axis=1)
    return np.stack([q / np.maximum(1.0 - q, 1e-12), np.ones_like(q)], axis=-1)


class StoredLayer(nn.Module):
    """A convolution or linear layer whose weights are read from memory: call one of the `read` methods before `forward`."""

    def __init__(self, name: str, shape: tuple[int, ...], storage: Storage, *, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.name, self.storage, self.stride, self.padding = name, storage, stride, padding
        self.latent = nn.Parameter(torch.empty(shape).uniform_(-1.0, 1.0) * min(storage.clip, float(np.sqrt(6.0 / np.prod(shape[1:])))))
        self.value: Tensor | None = None
        self.last: Reading | None = None
        self.n_positions = 1

    def forward(self, x: Tensor) -> Tensor:
        """Apply the weights that were read last."""
        if self.value is None:
            raise RuntimeError(f"{self.name}: read its weights first")
        if self.latent.dim() == 2:
            return nn.functional.linear(x, self.value)
        y = nn.functional.conv2d(x, self.value, stride=self.stride, padding=self.padding)
        self.n_positions = y.shape[2] * y.shape[3]
        return y

    @property
    def n_weights(self) -> int:
        """Number of weights."""
        return self.latent.numel()

    def numbers(self) -> NDArray[np.int32]:
        """Return the whole numbers k of the latent weights."""
        latent, word = self.latent.detach(), self.storage.word
        if word.coding == "binary":
            return (torch.where(latent >= 0.0, 1, -1)).to(torch.int32).numpy()
        if word.coding == "ternary":
            small = latent.abs() < TERNARY_THRESHOLD * latent.abs().mean()
            return torch.where(small, torch.zeros_like(latent), latent.sign()).to(torch.int32).numpy()
        scaled = latent / self._largest() * word.greatest
        return scaled.round().clamp(-word.greatest, word.greatest).to(torch.int32).numpy()

    def _largest(self) -> Tensor:
        """Return the largest latent weight of each output channel, shaped to divide them."""
        largest = self.latent.detach().abs().flatten(1).amax(1).clamp(min=1e-12)
        return largest.view(-1, *(1,) * (self.latent.dim() - 1))

    def full_scale(self) -> float:
        """Return F of (1)."""
        if self.storage.scale == "none":
            return 1.0
        if self.storage.scale == "mean":
            return float(self.latent.detach().abs().mean())
        return float(np.sqrt(2.0 / np.prod(self.latent.shape[1:])))

    def steps(self) -> Floats:
        """Return the weight of one step of k: one for the layer, or one for each output channel."""
        step = self.full_scale() / self.storage.word.greatest
        if self.storage.word.coding in ("binary", "ternary"):
            return np.array([step])
        return step * self._largest().flatten().double().numpy() / self.storage.clip

    def stored_words(self) -> Words:
        """Return the words of the latent weights, flat."""
        word = self.storage.word
        if word.coding == "binary":
            return (self.latent.detach() >= 0.0).to(torch.uint8).numpy().reshape(-1).astype(np.uint16)
        return words_of(word)[self.numbers().reshape(-1) - word.least]

    def read_right(self) -> Tensor:
        """Read the weights without a wrong bit."""
        words = self.stored_words()
        return self._hold(words, np.zeros_like(words), np.zeros(self.storage.word.n_bits))

    def read(self, p: Floats, drawing: Drawing) -> Tensor:
        """Read the weights with wrong bits at error rates `(n_bits,)`; those at one rate are among those at a higher one."""
        words = self.stored_words()
        if not np.any(p):
            return self._hold(words, np.zeros_like(words), p)
        draws = self._draws(drawing, "cells", (words.size, self.storage.word.n_bits))
        faults, columns = self.storage.faults, None
        if isinstance(faults, WeakColumns):
            columns = self._draws(drawing, "columns", (faults.n_columns,))
        masks = faults.masks(self.storage.word, words, p, draws=draws, column_draws=columns)
        return self._hold(words, masks, p)

    def _draws(self, drawing: Drawing, what: str, shape: tuple[int, ...]) -> Draws:
        site = site_id(self.name, f"{drawing.purpose} {what}")
        return stream_words(np.empty(shape, np.uint32), seed=drawing.seed, site=site, trial=drawing.trial)

    def _hold(self, words: Words, masks: Words, p: Floats) -> Tensor:
        up, down = self.storage.faults.rates(self.storage.word, p)
        self.last = Reading(words=words, masks=masks, up=up, down=down, step=self.steps())
        read = np.empty(words.size, np.float32)
        _read_values(words, masks, values_of(self.storage.word), read)
        value = torch.from_numpy(read.reshape(self.latent.shape))
        step = torch.from_numpy(self.last.step.astype(np.float32)).view(-1, *(1,) * (self.latent.dim() - 1))
        self.value = (value * step).requires_grad_()
        return self.value

    def pass_gradient(self) -> None:
        """Give the gradient at the weights that were read to the latent ones, on top of what they have."""
        assert self.value is not None
        assert self.value.grad is not None
        gradient = self.value.grad
        self.latent.grad = gradient if self.latent.grad is None else self.latent.grad + gradient

    def rate_slope(self) -> Floats:
        """Return (2) times p for each bit, `(n_bits,)`, from the last reading and its gradient."""
        assert self.value is not None
        assert self.value.grad is not None
        assert self.last is not None
        out, last = np.zeros(self.storage.word.n_bits), self.last
        gradient = self.value.grad.contiguous().numpy().reshape(-1)
        _slope_sums(last.words, last.masks, gradient, values_of(self.storage.word), last.step, _factors(last.up, last.down), out)
        return out

    def path_slope(self) -> Floats:
        """Return what the path-wise gradient makes of (2) times p: the loss's slope at what was read, taken for the whole flip.

        It misses the loss's curvature, and is here to be compared with.
        """
        assert self.value is not None
        assert self.value.grad is not None
        assert self.last is not None
        word, last = self.storage.word, self.last
        values, gradient = values_of(word).astype(np.float64), self.value.grad.double().numpy()
        by_weight = gradient * last.step.reshape(-1, *(1,) * (self.latent.dim() - 1))
        out = np.zeros(word.n_bits)
        for j in range(word.n_bits):
            flip = (values[last.words ^ np.uint16(1 << j)] - values[last.words]).reshape(self.latent.shape)
            q = np.where((last.words >> j) & 1, last.down[j], last.up[j]).reshape(self.latent.shape)
            out[j] = float((q * by_weight * flip).sum())
        return out

    @torch.no_grad()
    def clip_latent(self) -> None:
        """Hold the latent weights within the clip."""
        self.latent.clamp_(-self.storage.clip, self.storage.clip)
