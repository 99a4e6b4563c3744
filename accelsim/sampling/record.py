"""What is kept of the trials of a run."""

from dataclasses import dataclass

import numpy as np

from workloads.operators.base import Array


@dataclass(slots=True, kw_only=True, eq=False)
class Record:
    """What is kept of every trial, in trial order."""

    losses: Array
    controls: Array
    powers: Array
    n_correct: Array
    """Correct answers in each trial; NaN without labels."""
    correct_by_image: Array
    """Number of trials in which each image was answered correctly."""
    bases: Array
    weights: Array
    """Of faults by importance: loss without them (NaN in plain trials), and what they count."""

    @property
    def n_trials(self) -> int:
        return len(self.losses)


def no_trials(n_images: int) -> Record:
    """Return the record of a run that has not begun."""
    none = np.zeros(0)
    return Record(losses=none, controls=none, powers=none, n_correct=none, correct_by_image=np.zeros(n_images), bases=none, weights=none)
