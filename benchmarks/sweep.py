"""A sweep over conductance scales: 10,000 designs by the closed form, beside the Monte-Carlo runs it would take to know each.

One linear response gives the coefficients; error and power of any design are then sums over layers (`accelsim.optimizer.problem`).
The coefficients hold exactly at the design they were made at; a few designs of the sweep are sampled to see how far they carry.
"""

from dataclasses import dataclass

import numpy as np

from accelsim import Design, Plan, Samples, monte_carlo
from accelsim.optimizer.coefficients import Coefficients, coefficients
from accelsim.response.target import graph_to_output, reference_outputs
from benchmarks.clock import cpu_seconds, interleaved
from benchmarks.samplers import CONFIDENCE, HALF_WIDTH, SEED, TORCH, TUNED, placed, timed_samplers
from validation.tables import Row
from workloads.operators.base import Array

NETWORKS = ("fashion_cnn", "fashion_resnet", "resnet8_cifar10", "resnet20_cifar10")
N_DESIGNS, N_CHECKED, TURNS, PILOT_TURNS = 10_000, 5, 5, 40
LEAST_USE = 0.3
"""Designs give the largest weight of each layer between this share and all of the conductance range, uniform in the logarithm."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sweep:
    """Many designs: conductance of each layer's largest weight, `(N, layers)`, and the scale factors of each group."""

    used_siemens: Array
    scale_siemens: Array


def row(name: str, *, n_images: int, error_rel: float, clip: bool) -> Row:
    """Return the sweep of one network."""
    plan, samples = placed(name, n_images, error_rel=error_rel, clip=clip)
    graph = graph_to_output(plan.graph, None)
    wanted = reference_outputs(plan, graph, samples, "float")
    terms = coefficients(plan, graph, samples, reference=wanted, per="layer", seed=SEED)
    sweep = designs(plan, terms)
    times = interleaved(
        {
            "coefficients": lambda: coefficients(plan, graph, samples, reference=wanted, per="layer", seed=SEED),
            "designs": lambda: (terms.problem.mse(sweep.scale_siemens), terms.problem.power_w(sweep.scale_siemens)),
        },
        n=TURNS,
    )
    ratios = checked(plan, samples, terms, sweep)
    total_s = times["coefficients"] + times["designs"]
    others = _others(plan, samples)
    return {
        "network": name,
        "cells": "clipped" if clip else "unclipped",
        "coefficients_s": f"{times['coefficients']:.3g}",
        "us_a_design": f"{1e6 * times['designs'] / N_DESIGNS:.3g}",
        "sweep_s": f"{total_s:.3g}",
        **{f"{who}_s": f"{N_DESIGNS * seconds:.3g}" for who, seconds in others.items()},
        **{f"times_{who}": f"{N_DESIGNS * seconds / total_s:.3g}" for who, seconds in others.items()},
        "mse_over_sampled": f"{min(ratios):.3f} to {max(ratios):.3f}",
    }


def designs(plan: Plan, terms: Coefficients) -> Sweep:
    """Return random designs."""
    g_max, g_min = (np.array([getattr(layer.site.cell, name) for layer in plan.layers]) for name in ("g_max_siemens", "g_min_siemens"))
    share = LEAST_USE ** np.random.default_rng(SEED).random((N_DESIGNS, len(plan.layers)))
    used = g_min + share * (g_max - g_min)
    return Sweep(used_siemens=used, scale_siemens=((used - g_min)[:, terms.active] / terms.w_max[terms.active]))


def checked(plan: Plan, samples: Samples, terms: Coefficients, sweep: Sweep) -> list[float]:
    """Return closed form over sampled MSE for the first few designs."""
    ratios = []
    for used, scale in zip(sweep.used_siemens[:N_CHECKED], sweep.scale_siemens):
        given = {layer.name: float(g) for layer, g in zip(plan.layers, used)}
        design = Design(g_used_siemens=given, scale="layer", network_digest="", accelerator_digest="", origin="benchmarks.sweep")
        trials = monte_carlo(plan.with_design(design), samples, seed=SEED + 1, rel_error=HALF_WIDTH, confidence=CONFIDENCE, threads=1)
        ratios.append(float(terms.problem.mse(scale)) / trials.mse)
    return ratios


def _others(plan: Plan, samples: Samples) -> dict[str, float]:
    """Return the CPU time that one design takes by sampling to 2 %."""

    def sample() -> object:
        return monte_carlo(plan, samples, seed=SEED + 1, rel_error=HALF_WIDTH, confidence=CONFIDENCE, threads=1)

    samplers = timed_samplers(plan, samples, n_turns=PILOT_TURNS)
    peers = {"pytorch": TORCH, "tuned": TUNED}
    return {"monte_carlo": cpu_seconds(sample)} | {title: samplers[who].total_s for title, who in peers.items() if who in samplers}
