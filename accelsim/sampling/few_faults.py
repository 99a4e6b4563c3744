"""Wrong bits drawn one by one, so that few of them cost little: for a prediction's lanes, each with faults of its own.

The gap from one wrong bit to the next is geometric; where the rate depends on what is stored, bits are drawn at the larger of both rates
and kept in proportion. Bits must err independently. Monte-Carlo draws a word a bit instead (`stored_words`), nested across error rates.
"""

import numpy as np
from numpy.typing import NDArray

from devices.word_format import Floats, Words

Places = NDArray[np.int64]


def wrong_places(random: np.random.Generator, p: float, n: int) -> Places:
    """Return which of `n` things err, each with probability `p`, in order."""
    if p <= 0.0:
        return np.zeros(0, np.int64)
    found, last = list[Places](), -1
    while last < n:
        mean = (n - last) * p
        gaps = random.geometric(p, int(mean + 6.0 * np.sqrt(mean) + 8.0))
        found.append(last + np.cumsum(gaps))
        last = int(found[-1][-1])
    places = np.concatenate(found)
    return places[: np.searchsorted(places, n)]


def few_masks(random: np.random.Generator, words: Words, up: Floats, down: Floats, n_copies: int = 1) -> tuple[Places, Words]:
    """Return the wrong numbers among `n_copies` of stored words `(n,)`, as copy n + place, in order, and which of their bits are wrong.

    `up` and `down` are the probabilities that a 0 reads 1 and that a 1 reads 0, `(n_bits,)`.
    """
    places, masks = list[Places](), list[Words]()
    for j, (to_one, to_zero) in enumerate(zip(up, down)):
        most = max(to_one, to_zero)
        at = wrong_places(random, most, n_copies * len(words))
        if to_one != to_zero:
            p = np.where((words[at % len(words)] >> j) & 1, to_zero, to_one)
            at = at[random.random(len(at)) * most < p]
        places.append(at)
        masks.append(np.full(len(at), 1 << j, np.uint16))
    return merged(np.concatenate(places), np.concatenate(masks))


def merged(places: Places, masks: Words) -> tuple[Places, Words]:
    """Return distinct places in order, each with all its bits."""
    order = np.argsort(places, kind="stable")
    places, masks = places[order], masks[order]
    first = np.flatnonzero(np.diff(places, prepend=-1))
    return places[first], np.bitwise_or.reduceat(masks, first) if len(first) else masks
