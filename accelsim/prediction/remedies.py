"""What to mend first, and what it buys: each remedy is predicted, with the same seed, not read off the attribution.

Shares of layers and causes do not add (`attribution.py`), so halving the largest one need not halve its share.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Literal

from accelsim.lower import IDEAL_WIRES
from accelsim.placement import PlacedLayer, Plan
from accelsim.prediction.predict import predict
from accelsim.report.diagnosis import Remedy
from accelsim.report.records import INTERACTION, ErrorReport
from accelsim.response.target import Reference
from devices.programming import GaussianError
from workloads.samples import Samples

N_LAYERS = 3
Change = Callable[[PlacedLayer], PlacedLayer]


def remedies(
    plan: Plan,
    samples: Samples,
    report: ErrorReport,
    *,
    output: str | None = None,
    reference: Reference = "float",
    n_layers: int = N_LAYERS,
) -> tuple[Remedy, ...]:
    """Return remedies in order of what they buy: half the error of each cause, and of the `n_layers` layers that err most."""
    found = []
    for what, change in _changes(plan, report, n_layers):
        mended = replace(plan, layers=tuple(change(layer) for layer in plan.layers))
        found.append(remedy(what, mended, samples=samples, report=report, output=output, reference=reference))
    return tuple(sorted(found, key=lambda one: one.mse))


def remedy(what: str, mended: Plan, *, samples: Samples, report: ErrorReport, output: str | None, reference: Reference) -> Remedy:
    """Return what a changed plan makes of the reported error, predicted with the same seed."""
    after = predict(
        mended, samples, seed=int(report.provenance.seed), output=output, reference=reference, tol_rel=report.tol_rel, attribution=False
    )
    return Remedy(
        what=what,
        mse=after.mse,
        change_rel=after.mse / report.mse - 1.0 if report.mse > 0.0 else 0.0,
        accuracy_predicted=after.accuracy_predicted,
        valid=after.valid,
    )


def _changes(plan: Plan, report: ErrorReport, n_layers: int) -> Iterator[tuple[str, Change]]:
    if any(isinstance(layer.site.cell.programming, GaussianError) for layer in plan.layers):
        yield "half the programming error, all layers", _programming_halved
    if any(layer.site.read_law is not None for layer in plan.layers):
        yield "half the read noise, all layers", _read_noise_halved
    if any(layer.site.mapping.levels is not None for layer in plan.layers):
        yield "twice the levels, all layers", _levels_doubled
    for name, what in (("device_to_device", "cells that are alike"), ("stuck", "no stuck cells"), ("low_frequency_noise", "no 1/f noise")):
        if any(getattr(layer.site.cell, name) is not None for layer in plan.layers):
            yield f"{what}, all layers", partial(_without, name)
    if any(layer.site.has_wires for layer in plan.layers):
        yield "ideal wires, all layers", lambda layer: replace(layer, site=replace(layer.site, wires=IDEAL_WIRES))
    if any(layer.site.conduction is not None for layer in plan.layers):
        yield "ohmic cells, all layers", _ohmic
    if any(layer.path is not None and layer.path.adcs for layer in plan.layers):
        yield "ideal ADCs, all layers", _without_adcs
    if any(layer.path is not None and layer.path.dac is not None for layer in plan.layers):
        yield "ideal DACs, all layers", _without_dacs
    if report.bias2 > 0.01 * report.mse and all(_can_precompensate(layer) for layer in plan.layers):
        yield "mapping.precompensate = true", _precompensated
    shares = {name: share for name, share in report.by_layer.items() if name != INTERACTION}
    for name in sorted(shares, key=lambda name: -shares[name])[:n_layers] if len(shares) > 1 else []:
        yield f"half the errors of {name!r} alone", _only(name, lambda layer: _read_noise_halved(_programming_halved(layer)))


def _can_precompensate(layer: PlacedLayer) -> bool:
    return not layer.is_digital and layer.site.encoding.kind == "differential" and not layer.site.mapping.precompensate


def _only(name: str, change: Change) -> Change:
    return lambda layer: change(layer) if layer.name == name else layer


def _with(layer: PlacedLayer, part: Literal["cell", "mapping"], **changes: object) -> PlacedLayer:
    """Return the layer with another cell or mapping, for its weights and its bias."""
    new = {part: replace(getattr(layer.site, part), **changes)}
    bias = None if layer.bias_site is None else replace(layer.bias_site, **new)
    return replace(layer, site=replace(layer.site, **new), bias_site=bias)


def _programming_halved(layer: PlacedLayer) -> PlacedLayer:
    law = layer.site.cell.programming
    return _with(layer, "cell", programming=law.scaled(0.5)) if isinstance(law, GaussianError) else layer


def _read_noise_halved(layer: PlacedLayer) -> PlacedLayer:
    law = layer.site.cell.read_noise
    return layer if law is None else _with(layer, "cell", read_noise=law.scaled(0.5))


def _levels_doubled(layer: PlacedLayer) -> PlacedLayer:
    levels = layer.site.mapping.levels
    return layer if levels is None else _with(layer, "mapping", levels=2 * levels)


def _without(name: str, layer: PlacedLayer) -> PlacedLayer:
    return _with(layer, "cell", **{name: None})


def _without_adcs(layer: PlacedLayer) -> PlacedLayer:
    return layer if layer.path is None else replace(layer, path=replace(layer.path, adcs=()))


def _without_dacs(layer: PlacedLayer) -> PlacedLayer:
    return layer if layer.path is None else replace(layer, path=replace(layer.path, dac=None, digits=None))


def _ohmic(layer: PlacedLayer) -> PlacedLayer:
    path = None if layer.path is None else layer.path.ohmic()
    return replace(layer, site=replace(layer.site, conduction=None), path=path)


def _precompensated(layer: PlacedLayer) -> PlacedLayer:
    return _with(layer, "mapping", precompensate=True)
