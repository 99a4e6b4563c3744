"""explain(): why accuracy collapsed, looked for in the order in which causes hide each other.

Inputs first: on inputs that the network was not trained on nothing else means anything. Then converters that clip, quantization, and the
errors of cells, layer by layer; last what remedies would buy, each predicted like any other plan.
"""

import time
from collections.abc import Iterator, Sequence

import numpy as np

from accelsim.accelerator import Accelerator
from accelsim.diagnosis.preprocessing import Preprocessing, judged
from accelsim.diagnosis.signals import N_CHIPS, layer_facts
from accelsim.placement import Plan, check_question, place
from accelsim.prediction.predict import Method, predict
from accelsim.prediction.remedies import N_LAYERS, remedies, remedy
from accelsim.report.diagnosis import Diagnosis, Finding, LayerFacts, Remedy
from accelsim.report.records import INTERACTION, ErrorReport
from accelsim.response.labels import usable_labels
from accelsim.response.target import Reference, graph_to_output
from devices.base.errors import SpecError
from devices.base.quantity import percent
from workloads.card import ModelCard
from workloads.samples import Samples
from workloads.zoo import embedded_card

LOST = 0.02
"""Accuracy whose loss is more than one accepts without asking why."""
LOST_MSE_REL = 0.1
"""The same for the relative MSE."""
CLIPPED = 0.005
"""Share of clipped values that is looked at."""
HELPS = -0.25
"""Relative change of the MSE by a remedy that is worth a finding."""
STANDS_OUT = 10.0
"""How many times a layer's own error is that of the median layer where it stands out."""
WIDER = "converter ranges that hold the largest signals of these inputs"


def explain(
    plan: Plan,
    samples: Samples,
    *,
    seed: int,
    card: ModelCard | None = None,
    method: Method = "auto",
    output: str | None = None,
    reference: Reference = "float",
    tol_rel: float = 0.05,
    n_layers: int = N_LAYERS,
) -> Diagnosis:
    """Say why a plan's accuracy is what it is: findings in the order in which they must be mended, and what remedies would buy.

    `card` is what is known of the network; embedded networks have their own. Labels make the answer sharper: without them accuracy is not
    known, and inputs are judged by their looks. Raises SpecError for a card of another number of channels.
    """
    check_question(plan, samples)
    started = time.perf_counter()
    card = embedded_card(plan.network) if card is None else card
    if card is not None and not card.fits(samples.x.shape[1]):
        raise SpecError(f"card: mean has {len(card.mean)} values, and inputs have {samples.x.shape[1]} channels")
    graph = graph_to_output(plan.graph, output)
    labels, _ = usable_labels(samples.y, int(np.prod(graph.nodes[graph.output].shape)))
    inputs = judged(graph, samples, labels, card=card)
    asked = {"output": output, "reference": reference}
    report = predict(plan, samples, seed=seed, method=method, tol_rel=tol_rel, **asked)  # type: ignore[arg-type]
    layers = layer_facts(plan, samples, report, seed=seed, **asked)  # type: ignore[arg-type]
    wider = _wider(plan, samples, report, layers=layers, **asked)  # type: ignore[arg-type]
    mended = tuple(sorted((*wider, *remedies(plan, samples, report, n_layers=n_layers, **asked)), key=lambda r: r.mse))  # type: ignore[arg-type]
    return Diagnosis(
        error=report,
        findings=tuple(_findings(plan, report, inputs=inputs, layers=layers, wider=wider, mended=mended)),
        inputs=inputs.facts,
        accuracy_card=None if card is None else card.accuracy,
        chance=None if labels is None else float(np.bincount(labels).max() / len(labels)),
        tries=inputs.tries,
        layers=layers,
        remedies=mended,
        n_chips=N_CHIPS,
        elapsed_s=time.perf_counter() - started,
    )


def _findings(
    plan: Plan,
    report: ErrorReport,
    *,
    inputs: Preprocessing,
    layers: Sequence[LayerFacts],
    wider: Sequence[Remedy],
    mended: Sequence[Remedy],
) -> Iterator[Finding]:
    collapsed = _has_collapsed(report)
    yield from inputs.findings
    yield _clipping(layers, wider, collapsed=collapsed)
    yield _quantization(report)
    yield from _layer(plan, report, layers, collapsed=collapsed)
    yield _noise(report, mended, collapsed=collapsed)
    if not report.valid:
        said = f"the prediction estimates its own error as {percent(report.rel_error_estimate)}"
        yield Finding(topic="prediction", severity="note", what=said, lever="Sample: `accelsim validate`")


def _has_collapsed(report: ErrorReport) -> bool:
    if report.accuracy_clean is None or report.accuracy_predicted is None:
        return report.mse_rel > LOST_MSE_REL
    return report.mse_rel > LOST_MSE_REL or report.accuracy_clean - report.accuracy_predicted > LOST


# converters


def _wider(
    plan: Plan, samples: Samples, report: ErrorReport, *, layers: Sequence[LayerFacts], output: str | None, reference: Reference
) -> tuple[Remedy, ...]:
    """Return what ranges that clip nothing of these inputs would buy; nothing where nothing is clipped."""
    if not any(share > 0.0 for layer in layers for share in (layer.dac_clipped or 0.0, layer.adc_clipped or 0.0)):
        return ()
    try:
        anew = place(plan.network, _with_largest_ranges(plan.accelerator), calibration=samples, design=plan.design)
    except SpecError:  # a design with converter bits of its own, or scales that were moved
        return ()
    return (remedy(WIDER, anew, samples=samples, report=report, output=output, reference=reference),)


def _with_largest_ranges(accelerator: Accelerator) -> Accelerator:
    places = [("", accelerator), *((f'layers."{name}".', accelerator.for_layer(name)) for name in accelerator.layer_names)]
    found = [
        f"{prefix}{path}.range=max"
        for prefix, local in places
        for path, converter in (("drive.dac", local.drive.dac), ("sense.adc", local.sense.adc))
        if converter is not None
    ]
    return accelerator.with_set(*found)


def _clipping(layers: Sequence[LayerFacts], wider: Sequence[Remedy], *, collapsed: bool) -> Finding:
    shares = [(max(layer.dac_clipped or 0.0, layer.adc_clipped or 0.0), layer) for layer in layers]
    share, worst = max(shares, key=lambda one: one[0], default=(0.0, None))
    if worst is None or all(layer.dac_clipped is None and layer.adc_clipped is None for layer in layers):
        return Finding(topic="clipping", severity="fine", what="no converters: nothing is clipped")
    which = "DAC" if (worst.dac_clipped or 0.0) >= (worst.adc_clipped or 0.0) else "ADCs"
    said = f"the {which} of {worst.layer!r} clip {percent(share)} of the values, the most of all converters"
    gain = wider[0].change_rel if wider else 0.0
    if share < CLIPPED and gain > HELPS:
        return Finding(topic="clipping", severity="fine", what=said)
    bought = f"{WIDER} would change the MSE by {100 * gain:+.0f} %{_accuracy_of(wider)}"
    severity = "alarm" if collapsed and gain <= HELPS else "note"
    where = "drive.dac" if which == "DAC" else "sense.adc"
    lever = f"Widen {where}: range = \"max\", or calibrate on inputs like these" if gain <= HELPS else ""
    return Finding(topic="clipping", severity=severity, what=f"{said}; {bought}" if wider else said, lever=lever)


def _accuracy_of(mended: Sequence[Remedy]) -> str:
    known = mended[0].accuracy_predicted if mended else None
    return "" if known is None else f", the accuracy to {percent(known, 1)}"


# quantization, noise, layers


def _quantization(report: ErrorReport) -> Finding:
    share = report.by_cause.get("quantization")
    if share is None:
        return Finding(topic="quantization", severity="fine", what="weights are not quantized")
    part = percent(share / report.mse, 1) if report.mse > 0.0 else "-"
    if report.accuracy_clean is None or report.accuracy_quantized is None:
        return Finding(topic="quantization", severity="note", what=f"quantization alone makes {part} of the MSE")
    said = (
        f"accuracy is {percent(report.accuracy_clean, 1)} in float and {percent(report.accuracy_quantized, 1)} when quantized and without "
        f"noise; quantization of weights alone makes {part} of the MSE"
    )
    if report.accuracy_clean - report.accuracy_quantized <= LOST:
        return Finding(topic="quantization", severity="fine", what=said)
    return Finding(topic="quantization", severity="alarm", what=said, lever="Give more levels, slices or converter bits, or a wider range")


def _noise(report: ErrorReport, mended: Sequence[Remedy], *, collapsed: bool) -> Finding:
    causes = {name: value for name, value in report.by_cause.items() if name != INTERACTION}
    if not causes or report.mse <= 0.0:
        return Finding(topic="errors", severity="fine", what="there is no error")
    name = max(causes, key=lambda cause: causes[cause])
    share = percent(causes[name] / report.mse, 0)
    said = f"{name} makes {share} of the MSE, which is {100 * report.mse_rel:.3g} % of the outputs' variance"
    if report.accuracy_clean is not None and report.accuracy_predicted is not None:
        lost = f"{percent(report.accuracy_clean, 1)} to {percent(report.accuracy_predicted, 1)}"
        said = f"errors take accuracy from {lost}; {said}"
    if not collapsed:
        return Finding(topic="errors", severity="fine", what=said)
    bought = ""
    if mended:
        bought = f"Most is bought by {mended[0].what}: the MSE changes by {100 * mended[0].change_rel:+.0f} %{_accuracy_of(mended)}"
    return Finding(topic="errors", severity="alarm", what=said, lever=bought)


def _layer(plan: Plan, report: ErrorReport, layers: Sequence[LayerFacts], *, collapsed: bool) -> Iterator[Finding]:
    """Yield the layer whose own error stands out, or the one that makes most of the output's error."""
    if len(layers) < 2:
        return
    worst = max(layers, key=lambda layer: layer.share)
    median = float(np.median([layer.own_rel for layer in layers if layer is not worst]))
    ratio = worst.own_rel / median if median > 0.0 else np.inf
    said = f"{worst.layer!r} alone makes {percent(worst.share, 0)} of the MSE"
    if ratio <= STANDS_OUT or worst.share < 0.5:
        yield Finding(topic="layers", severity="note" if collapsed else "fine", what=said)
        return
    said += f"; with exact inputs its output errs {ratio:.0f} times as much as the median layer's"
    own = worst.layer in plan.accelerator.layer_names
    lever = f'Look at [layers."{worst.layer}"] of the spec, which gives it values of its own' if own else (
        "Give it more conductance, bits or a better cell: [layers] of the spec"
    )
    yield Finding(topic="layers", severity="alarm" if collapsed else "note", what=said, lever=lever)
