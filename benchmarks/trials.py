"""Whole-network Monte-Carlo trials beside PyTorch's, every device programmed anew each trial; and two threads beside one."""

import math
import os
import time
from collections.abc import Callable
from statistics import median

from accelsim import Plan, Samples, monte_carlo
from benchmarks import bound
from benchmarks.samplers import OURS, TORCH, TUNED, Sampler, placed, timed_samplers
from validation.tables import Row

NETWORKS = ("lenet", "resnet8_cifar10", "resnet20_cifar10", "fashion_cnn", "fashion_resnet")
BARS = {"lenet": 4.0, "resnet8_cifar10": 1.5}
"""Times PyTorch's trial, that ours is to be faster (clipped)."""
ERROR_REL, TURNS, SEED = 0.01, 101, 11
TWO_THREADS_BAR, THREAD_ROUNDS, ROUND_S = 1.8, 7, 1.0


def rows(name: str, *, n_images: int, machine: bound.Machine) -> list[Row]:
    """Return the trials of one network, clipped and not."""
    return [_row(name, n_images=n_images, clip=clip, machine=machine) for clip in (True, False)]


def _row(name: str, *, n_images: int, clip: bool, machine: bound.Machine) -> Row:
    plan, samples = placed(name, n_images, error_rel=ERROR_REL, clip=clip)
    found = timed_samplers(plan, samples, n_turns=TURNS)
    ours, least = found[OURS], machine.bound_s(plan, samples)
    return {
        "network": name,
        "cells": "clipped" if clip else "unclipped",
        "trial_ms": f"{1e3 * ours.trial_s:.3g}",
        "bound_ms": f"{1e3 * least:.3g}",
        "of_bound": f"{least / ours.trial_s:.2f}",
        **_beside(ours, found.get(TORCH), found.get(TUNED)),
        "bar": BARS.get(name, "") if clip else "",
    }


def _beside(ours: Sampler, plain: Sampler | None, tuned: Sampler | None) -> Row:
    """Return the times of PyTorch's trials, and whether the means agree: their ratio, and their difference in standard errors."""
    if plain is None or tuned is None:
        return dict.fromkeys(("pytorch_ms", "tuned_ms", "mean_ratio", "z", "times_tuned", "times_pytorch"), "")
    return {
        "pytorch_ms": f"{1e3 * plain.trial_s:.3g}",
        "tuned_ms": f"{1e3 * tuned.trial_s:.3g}",
        "mean_ratio": f"{ours.mean / plain.mean:.3f}",
        "z": f"{(ours.mean - plain.mean) / math.hypot(ours.se, plain.se):.1f}",
        "times_tuned": f"{tuned.trial_s / ours.trial_s:.2f}",
        "times_pytorch": f"{plain.trial_s / ours.trial_s:.2f}",
    }


def threads_row(name: str, *, n_images: int) -> Row:
    """Return the wall time of as many trials with two threads and with one; the machine's load average is beside it."""
    plan, samples = placed(name, n_images, error_rel=ERROR_REL, clip=True)
    n_trials = _n_trials(plan, samples)
    walls: dict[int, list[float]] = {1: [], 2: []}
    load = os.getloadavg()[0]
    for _ in range(THREAD_ROUNDS):
        for threads in walls:
            walls[threads].append(_wall(_run(plan, samples, n_trials=n_trials, threads=threads)))
    one, two = (median(walls[threads]) for threads in (1, 2))
    return {
        "network": name,
        "n_trials": n_trials,
        "one_thread_s": f"{one:.3g}",
        "two_threads_s": f"{two:.3g}",
        "times_faster": f"{one / two:.2f}",
        "bar": TWO_THREADS_BAR,
        "load_before": f"{load:.2f}",
    }


def _n_trials(plan: Plan, samples: Samples) -> int:
    """Return how many trials take about a second."""
    n = 40
    _wall(_run(plan, samples, n_trials=n, threads=1))
    return max(n, int(n * ROUND_S / _wall(_run(plan, samples, n_trials=n, threads=1))) // n * n)


def _run(plan: Plan, samples: Samples, *, n_trials: int, threads: int) -> Callable[[], object]:
    return lambda: monte_carlo(
        plan, samples, seed=SEED, rel_error=1e-9, max_trials=n_trials, threads=threads, control_variate=False
    )


def _wall(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
