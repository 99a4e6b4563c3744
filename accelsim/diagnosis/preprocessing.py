"""Whether inputs are as in training: what they look like, and whether another preprocessing makes the float network better.

A network tells more images right on inputs that are normalized as it was trained; noise and hardware play no part in this. With the
labels, n images of which a are told right as they are and b when taken otherwise, the difference counts as real where

    b - a > max(0.05 n, 4 sqrt(d)),     d the images that only one of the two tells right (McNemar)                (1)
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accelsim.report.diagnosis import Finding, InputFacts, Try
from accelsim.response.weights import Weights
from devices.base.quantity import percent
from workloads.card import ModelCard
from workloads.network import Network
from workloads.operators.base import Array
from workloads.samples import Samples, samples_of

LEAST_GAIN, LEAST_Z = 0.05, 4.0
MACS = 4e10
"""Multiply-adds that trying other preprocessings may take altogether, about a minute."""
LEAST_IMAGES, MOST_IMAGES = 32, 256
LEAST_SHARE = 0.01
"""Share of values beyond what pixels can give that is more than rounding."""
LARGEST_INPUT = 1e6
IMAGES_A_CLASS = 10
"""Fewer fit some renaming of classes by chance."""
SPAN_REL = 0.6
"""Share of the card's range that many images must fill."""
GENERIC = (
    ("p", ModelCard()),
    ("(p - 0.5) / 0.5", ModelCard(mean=(0.5,), std=(0.5,))),
    ("(p - 0.1307) / 0.3081, as MNIST", ModelCard(mean=(0.1307,), std=(0.3081,))),
    ("as ImageNet", ModelCard(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))),
    ("255 p", ModelCard(mean=(0.0,), std=(1.0 / 255.0,))),
)
"""Usual normalizations of p, pixels of 0 to 1; tried where there is no card."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """What was found of the inputs: in numbers, other ways to take them (the best first), and findings."""

    facts: InputFacts
    tries: tuple[Try, ...]
    findings: tuple[Finding, ...]


def facts_of(x: Array) -> InputFacts:
    """Return what inputs `(N, C, ...)` look like."""
    values = x.astype(np.float64)
    axes = (0, *range(2, x.ndim)) if x.ndim > 2 else None
    by_channel = (np.atleast_1d(values.mean(axis=axes)), np.atleast_1d(values.std(axis=axes)))
    means, stds = (tuple(float(v) for v in part) for part in by_channel)
    return InputFacts(
        low=float(values.min()), high=float(values.max()), mean=float(values.mean()), std=float(values.std()),
        channel_means=means, channel_stds=stds,
    )  # fmt: skip


def judged(network: Network, samples: Samples, labels: NDArray[np.int64] | None, *, card: ModelCard | None) -> Preprocessing:
    """Judge the inputs of a float network by its card, by their looks, and, where there are labels, by trying others."""
    facts = facts_of(samples.x)
    found = list(_by_looks(samples.x, facts, card))
    if labels is None:
        found = found or [_fine("without labels only what inputs look like can be judged")]
        return Preprocessing(facts=facts, tries=(), findings=tuple(found))
    right = _told(network, samples.x) == labels
    accuracy, chance = float(right.mean()), _chance(labels)
    below = card is not None and card.accuracy is not None and _is_below(accuracy, card.accuracy, len(labels))
    tries: tuple[Try, ...] = ()
    if below or card is None or card.accuracy is None:
        tries, found_better = _tried(network, samples.x, labels, card=card)
        found = [*found_better, *found]
    if below:
        assert card is not None
        said = f"clean accuracy is {percent(accuracy, 1)}, the network's card says {percent(card.accuracy, 1)}"
        found.insert(0, Finding(topic="preprocessing", severity="alarm", what=said, lever=_lever(found)))
    elif accuracy <= chance + LEAST_Z * np.sqrt(chance * (1.0 - chance) / len(labels)):
        said = f"clean accuracy is {percent(accuracy, 1)}, no better than guessing ({percent(chance, 1)})"
        found.insert(0, Finding(topic="preprocessing", severity="alarm", what=said, lever=_lever(found)))
    if not found:
        beside = "" if card is None or card.accuracy is None else f", {percent(card.accuracy, 1)} by the card"
        found.append(_fine(f"clean accuracy is {percent(accuracy, 1)}{beside}"))
    return Preprocessing(facts=facts, tries=tries, findings=tuple(found))


def _fine(what: str) -> Finding:
    return Finding(topic="preprocessing", severity="fine", what=what)


def _lever(found: list[Finding]) -> str:
    """Return what to do: what another finding says, or where to look."""
    known = next((finding.lever for finding in found if finding.lever), "")
    return known or "Compare preprocessing, class order and channel order with training: nothing below means anything until this is right"


def _chance(labels: NDArray[np.int64]) -> float:
    return float(np.bincount(labels).max() / len(labels))


def _is_below(accuracy: float, said: float, n: int) -> bool:
    """Return whether an accuracy on n images is below the card's by more than 5 points and 4 standard errors."""
    return said - accuracy > max(LEAST_GAIN, LEAST_Z * np.sqrt(said * (1.0 - said) / n))


def _told(network: Network, x: Array) -> NDArray[np.int64]:
    """Return the class that the float network tells for each image."""
    outputs = Weights(weights={}, biases={}).outputs(network, samples_of(np.ascontiguousarray(x, np.float32)))
    return np.asarray(outputs.argmax(axis=1), np.int64)


# by looks


def _by_looks(x: Array, facts: InputFacts, card: ModelCard | None) -> Iterator[Finding]:
    if facts.std == 0.0:
        yield Finding(topic="inputs", severity="alarm", what=f"all inputs are {facts.low:g}", lever="Save the images, not zeros")
        return
    if _are_pixels(x, facts):
        yield Finding(
            topic="inputs", severity="alarm", what=f"inputs are whole numbers from {facts.low:g} to {facts.high:g}: pixels, not normalized",
            lever=f"Normalize as in training: {_formula(card)}",
        )  # fmt: skip
        return
    dead = [k for k, std in enumerate(facts.channel_stds) if std == 0.0]
    if dead and len(facts.channel_stds) > 1:
        yield Finding(topic="inputs", severity="note", what=f"channel {dead[0]} is the same everywhere", lever="Look at how x was made")
    limits = None if card is None else card.limits
    if limits is None:
        return
    assert card is not None
    slack = 0.02 * (limits[1] - limits[0])
    beyond = float(np.mean((x < limits[0] - slack) | (x > limits[1] + slack)))
    wanted = f"{limits[0] + 0.0:.4g} to {limits[1]:.4g}"
    said = f"inputs run from {facts.low:.4g} to {facts.high:.4g}; normalized by the card they run from {wanted}"
    if beyond > LEAST_SHARE or facts.high - facts.low < SPAN_REL * (limits[1] - limits[0]):
        yield Finding(topic="inputs", severity="alarm", what=said, lever=f"Normalize as in training: {_formula(card)}")


def _are_pixels(x: Array, facts: InputFacts) -> bool:
    return facts.low >= 0.0 and 1.5 < facts.high <= 255.0 and bool(np.all(x == np.rint(x)))


def _formula(card: ModelCard | None, pixels: str = "pixels / 255") -> str:
    if card is None or not card.mean:
        return f"({pixels} - mean) / std"
    mean, std = (f"{values[0]:g}" if len(values) == 1 else str(list(values)) for values in (card.mean, card.std))
    shifted = pixels if mean == "0" else f"({pixels} - {mean})"
    return f"{shifted} / {std}"


# by trying


def _tried(
    network: Network, x: Array, labels: NDArray[np.int64], *, card: ModelCard | None
) -> tuple[tuple[Try, ...], tuple[Finding, ...]]:
    """Return other ways to take the inputs, the best first, and a finding where one of them is really better by (1)."""
    n = _n_images(network, len(labels))
    x, labels = x[:n], labels[:n]
    told = _told(network, x)
    as_is = told == labels
    found = [*_relabelled(told, labels), *((what, _told(network, other) == labels) for what, other in _others(x, card) if _is_small(other))]
    found.sort(key=lambda one: -int(one[1].sum()))
    tries = tuple(Try(what=what, accuracy=float(right.mean())) for what, right in found)
    if not found or not _is_better(found[0][1], as_is):
        return tries, ()
    before, after = percent(float(as_is.mean()), 1), percent(tries[0].accuracy, 1)
    said = f"on {n} images the float network tells {before} right as they are, {after} with {tries[0].what}"
    return tries, (Finding(topic="preprocessing", severity="alarm", what=said, lever=f"Save them with {tries[0].what}"),)


def _is_small(x: Array) -> bool:
    """Return whether sums of products of such inputs are far from overflow."""
    return float(np.abs(x).max()) < LARGEST_INPUT


def _relabelled(told: NDArray[np.int64], labels: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the renaming of classes that makes most images right, and which these are, where there are images enough to know it."""
    from scipy.optimize import linear_sum_assignment

    n_classes = int(max(told.max(), labels.max())) + 1
    if len(labels) < IMAGES_A_CLASS * n_classes:
        return
    counts = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(counts, (told, labels), 1)
    names = linear_sum_assignment(-counts)[1]
    changed = [f"{name} -> {k}" for k, name in enumerate(names) if k != name]
    if changed:
        yield f"labels of another order: {', '.join(changed[:4])}{' and so on' if len(changed) > 4 else ''}", names[told] == labels


def _is_better(right: NDArray[np.bool_], as_is: NDArray[np.bool_]) -> bool:
    gain, differ = int(right.sum()) - int(as_is.sum()), int(np.sum(right != as_is))
    return gain > max(LEAST_GAIN * len(right), LEAST_Z * np.sqrt(differ))


def _n_images(network: Network, n: int) -> int:
    macs = sum(node.operator.n_macs for _, node in network.matrix_layers())  # type: ignore[attr-defined]
    return min(n, int(np.clip(MACS / 16 / max(macs, 1), LEAST_IMAGES, MOST_IMAGES)))


def _others(x: Array, card: ModelCard | None) -> Iterator[tuple[str, Array]]:
    """Yield other ways to take inputs: other channels and axes as they are, and pixels normalized by the card or as is usual."""
    if x.ndim == 4 and x.shape[1] == 3:
        yield "channels in reverse order (BGR for RGB)", x[:, ::-1]
    if x.ndim == 4 and x.shape[2] == x.shape[3]:
        yield "rows and columns exchanged", x.swapaxes(2, 3)
    n_channels = x.shape[1] if x.ndim > 2 else 1
    for origin, pixels in _as_pixels(x):
        for formula, norm in _normalizations(card):
            if norm.fits(n_channels):
                yield f"x = {formula}, p = {origin}", norm.normalized(pixels.astype(np.float32))
        formula, norm = _normalizations(card)[0]
        yield f"x = {formula}, p = 1 - {origin}", norm.normalized((1.0 - pixels).astype(np.float32))


def _as_pixels(x: Array) -> Iterator[tuple[str, Array]]:
    """Yield what pixels of 0 to 1 the inputs may stem from."""
    low, high = float(x.min()), float(x.max())
    if low >= 0.0 and 1.5 < high < 255.0:
        yield "x_now / 255", x / 255.0
    if low >= 0.0 and high <= 1.0:
        yield "x_now", x
    elif low < high:
        from_zero = abs(low) < 1e-4 * (high - low)
        yield f"x_now / {high:.4g}" if from_zero else f"(x_now - {low:.4g}) / {high - low:.4g}", (x - low) / (high - low)


def _normalizations(card: ModelCard | None) -> tuple[tuple[str, ModelCard], ...]:
    if card is not None and card.mean:
        return ((f"{_formula(card, 'p')}, by the card", card),)
    return GENERIC
