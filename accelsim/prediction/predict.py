"""predict(): the error of every output, by the method that is good enough for this network and noise."""

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from accelsim.ledger import LayerPower, read_power
from accelsim.placement import PlacedLayer, Plan, check_question
from accelsim.prediction.accuracy import accuracy, corrected_accuracy, predicted_accuracy
from accelsim.prediction.attribution import attribution_by_cause, attribution_by_layer
from accelsim.prediction.event_sources import sources_of
from accelsim.prediction.events import CAUSES, with_faults, without_faults
from accelsim.prediction.joint_faults import can_be_joint, joint_faults, rare_for
from accelsim.prediction.methods import METHODS, choose
from accelsim.prediction.question import Question, Verdict
from accelsim.report.provenance import provenance_of
from accelsim.report.records import ErrorReport
from accelsim.response.labels import usable_labels
from accelsim.response.linear import Response, bytes_per_lane, images_at_a_time, respond
from accelsim.response.probes import n_probes_for
from accelsim.response.target import Reference, graph_to_output, ideal_weights
from accelsim.response.weights import Weights
from accelsim.sampling.programmings import N_CHECKED, Programmer, power_views
from accelsim.values_in_memory import accesses_of
from devices.ageing import Ageing
from devices.base.errors import MemoryLimitError, SpecError
from devices.base.quantity import format_quantity
from devices.programming import GaussianError
from workloads.network import Network
from workloads.operators.base import Array
from workloads.samples import Samples

Method = Literal["auto", "adjoint", "sketched", "covariance", "corrected"]
DEFAULT_MEMORY_BYTES = 8 * 2**30
FAULTS_OF = "faults of "
FAULT_DETAILS = (*(f"{cause}_mse" for cause in CAUSES), "fault_chip_variance", "healthy_variance", "n_events", "n_faults")
BYTES_PER_WEIGHT = 52
"""The weight, its mean, variance, targets and coefficient, and a programming while it is drawn; measured with VGG-16."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Outputs:
    """Outputs `(N, n_out)` of the float, the ideal quantized, and the reference network."""

    clean: Array
    quantized: Array
    wanted: Array


def predict(
    plan: Plan,
    samples: Samples,
    *,
    seed: int,
    method: Method = "auto",
    output: str | None = None,
    reference: Reference = "float",
    tol_rel: float = 0.05,
    memory_limit_bytes: int | None = None,
    attribution: bool = True,
) -> ErrorReport:
    """Predict the mean squared error of the outputs, averaged over `samples`, outputs and programmings.

    `method`: `adjoint` (first order), `sketched` (statistical linearization with sampled remainders), `covariance` (a Gaussian
    closure with full covariance, for small maps), `corrected` (adjoint and a few control-variate trials, any noise), or `auto`,
    which says what it picked and why. `output` names the node whose error counts; by default the output, or the input of a
    trailing Softmax, Sigmoid or ArgMax. Raises MemoryLimitError where the estimate exceeds `memory_limit_bytes`,
    UnsupportedMethodError where the method has no rule for an operator.
    """
    if method not in ("auto", *METHODS):
        raise SpecError(f"method: {method!r}: need auto | {' | '.join(METHODS)}")
    if not 0.0 < tol_rel < 1.0:
        raise SpecError(f"need 0 < tol_rel < 1, got {tol_rel:g}; 0.05 accepts a relative error of 5 %")
    check_question(plan, samples)
    started = time.perf_counter()
    graph = graph_to_output(plan.graph, output)
    _check_memory(plan, graph, len(samples), memory_limit_bytes or DEFAULT_MEMORY_BYTES)
    outputs = _outputs(plan, graph, samples, reference)
    n_out = int(np.prod(graph.nodes[graph.output].shape))
    programmer, n_probes = Programmer(plan, seed=seed), n_probes_for(n_out, len(samples))
    errors = programmer.checked_errors() if n_probes else tuple(programmer.checked_errors())
    response = respond(plan, graph, samples, seed=seed, n_probes=n_probes, errors=errors, view=programmer.mean)
    question = Question(
        plan=plan,
        programmer=programmer,
        errors=errors,
        graph=graph,
        samples=samples,
        seed=seed,
        wanted=outputs.wanted,
        tol_rel=tol_rel,
        reference=reference,
        labels=usable_labels(samples.y, n_out)[0],
    )
    if plan.has_faults and method != "corrected":
        verdict, response = _verdict_with_faults(question, response, method)
    else:
        verdict = choose(method, question, response)
    if not np.isfinite(verdict.mse):
        raise SpecError(
            f"{plan.network.name}: the predicted error is {verdict.mse:g}: cells' errors, weights and inputs are together beyond float32; "
            "look at cell, at scales in mapping, and at the largest weights and inputs"
        )
    return _report(question, verdict, response, outputs, attribution=attribution, started=started)


def _verdict_with_faults(question: Question, response: Response, method: str) -> tuple[Verdict, Response]:
    """Return the verdict on a plan with faults: the method's on the same plan without them, and the events; and that plan's response."""
    plan, n_probes = without_faults(question.plan), response.n_probes
    programmer = Programmer(plan, seed=question.seed)
    errors = programmer.checked_errors() if n_probes else tuple(programmer.checked_errors())
    sound = respond(plan, question.graph, question.samples, seed=question.seed, n_probes=n_probes, errors=errors, view=programmer.mean)
    healthy = choose(method, replace(question, plan=plan, programmer=programmer, errors=errors), sound)
    sound = _sound_of(response, sound)
    sources, together = sources_of(question, sound, plan), method == "auto" and can_be_joint(question.plan)
    verdict = with_faults(question, sound, healthy, plan, sources, patient=not together)
    if together and verdict.rel_error_estimate > question.tol_rel and verdict.details["n_faults"] < rare_for(question.plan):
        verdict = with_faults(question, sound, healthy, plan, sources)
    if method != "auto" or verdict.rel_error_estimate <= question.tol_rel:
        return verdict, sound
    why, tried = f"faults by single events would be off by about {100 * verdict.rel_error_estimate:.0f} %", [verdict]
    if together:
        tried.append(joint_faults(question, response, healthy, plan, sources))
    if tried[-1].rel_error_estimate > question.tol_rel:
        tried.append(METHODS["corrected"](question, response))
    best = min(tried, key=lambda one: one.rel_error_estimate)
    if best is not verdict:
        best = replace(best, reason=f"{why}; {best.reason}", details={**best.details, **_of_faults(verdict)})
    return best, sound


def _of_faults(verdict: Verdict) -> dict[str, float]:
    return {name: value for name, value in verdict.details.items() if name in FAULT_DETAILS or name.startswith(FAULTS_OF)}


def _sound_of(response: Response, sound: Response) -> Response:
    """Return the response with the mean outputs of cells with faults and the power of those without."""
    return replace(sound, mean_output=response.mean_output)


def _check_memory(plan: Plan, graph: Network, n_images: int, limit: int) -> None:
    n_out = int(np.prod(graph.nodes[graph.output].shape))
    n_probes = n_probes_for(n_out, n_images)
    carried = n_out if n_probes == 0 else n_probes + N_CHECKED
    chunk = min(n_images, images_at_a_time(graph, carried))
    weights = sum(layer.operator.weights.size for layer in plan.layers)
    by_weight = BYTES_PER_WEIGHT + (0 if n_probes else 4 * N_CHECKED)
    need = chunk * (4 * plan.activation_elements() + carried * bytes_per_lane(graph)) + weights * by_weight
    if need > limit:
        raise MemoryLimitError(
            f"predict() needs about {need / 2**30:.2g} GiB for {plan.network.name}, above the limit of {limit / 2**30:.2g} GiB; "
            "give fewer outputs (output=, --output) or a smaller input, or raise memory_limit_bytes in Python"
        )


def _outputs(plan: Plan, graph: Network, samples: Samples, reference: Reference) -> _Outputs:
    clean = Weights(weights={}, biases={}).outputs(graph, samples)
    has_levels = any(layer.site.is_quantized for layer in plan.layers)
    has_converters = any(layer.path is not None or layer.buffers is not None for layer in plan.layers)
    quantized = ideal_weights(plan).outputs(graph, samples) if has_levels or has_converters else clean
    return _Outputs(clean=clean, quantized=quantized, wanted=clean if reference == "float" else quantized)


def _report(
    question: Question, verdict: Verdict, response: Response, outputs: _Outputs, *, attribution: bool, started: float
) -> ErrorReport:
    plan, graph, samples = question.plan, question.graph, question.samples
    pooled = float(outputs.clean.var())
    mse_rel = verdict.mse / pooled if pooled > 0.0 else float("nan")
    views = power_views(question.programmer, mse_rel=mse_rel)
    rows = _mean_activity(plan, response) if len(views) == 1 else None
    power = read_power(plan, graph, samples, views, rows=rows)
    labels, label_notes = usable_labels(samples.y, outputs.clean.shape[1])
    return ErrorReport(
        provenance=provenance_of(
            plan,
            samples,
            seed=question.seed,
            output=graph.nodes[graph.output].name,
            reference=question.reference,
            warnings=(*verdict.warnings, *label_notes),
        ),
        mse=verdict.mse,
        mse_rel=mse_rel,
        bias2=verdict.bias2,
        variance=verdict.variance,
        by_layer=attribution_by_layer(question, response, mse=verdict.mse, faults=_by_layer(verdict)) if attribution else {},
        by_cause=_by_cause(question, response, verdict, outputs) if attribution else {},
        by_output=verdict.by_output,
        method=verdict.method,
        reason=verdict.reason,
        rel_error_estimate=verdict.rel_error_estimate,
        tol_rel=question.tol_rel,
        mse_se=verdict.mse_se,
        mse_chip_sd=_chip_sd(response, outputs.wanted, verdict),
        read_power_w=sum(p.total_w for p in power.values()),
        power_by_component=_by_component(power),
        power_by_layer={name: p.total_w for name, p in power.items()},
        accuracy_clean=accuracy(outputs.clean, labels),
        accuracy_quantized=accuracy(outputs.quantized, labels),
        accuracy_predicted=_accuracy(question, verdict),
        n_inputs=len(samples),
        elapsed_s=time.perf_counter() - started,
        meaning=meaning_of(plan),
        details=dict(verdict.details),
    )


def _by_cause(question: Question, response: Response, verdict: Verdict, outputs: _Outputs) -> dict[str, float]:
    faults = {cause: verdict.details[f"{cause}_mse"] for cause in CAUSES if f"{cause}_mse" in verdict.details}
    return attribution_by_cause(question, response, mse=verdict.mse, quantized=outputs.quantized, faults=faults)


def _by_layer(verdict: Verdict) -> dict[str, float]:
    return {name.removeprefix(FAULTS_OF): value for name, value in verdict.details.items() if name.startswith(FAULTS_OF)}


def _accuracy(question: Question, verdict: Verdict) -> float | None:
    if question.labels is None or verdict.covariance is None:
        return None
    if verdict.accuracy is not None:
        return verdict.accuracy
    moments = verdict.mean_output, verdict.covariance
    if verdict.samples:
        return corrected_accuracy(*moments, verdict.samples, question.labels, seed=question.seed)
    return predicted_accuracy(*moments, question.labels, seed=question.seed)


def _mean_activity(plan: Plan, response: Response) -> dict[str, Array]:
    """Return what `ledger.activity` returns for the mean weights, from the pass that has seen their inputs."""
    return {layer.name: response.layers[layer.name].row_activity * layer.volts_per_unit**2 for layer in plan.layers}


def _chip_sd(response: Response, wanted: Array, verdict: Verdict) -> float | None:
    """Return the spread over chips: sampled where faults that last meet, else of first order, scaled to the better closure's variance."""
    if "chip_sd" in verdict.details and verdict.details.get("fault_chip_variance", 0.0) > 0.0:
        return verdict.details["chip_sd"]
    sd, by_faults = response.chip_sd(wanted), verdict.details.get("fault_chip_variance", 0.0)
    if sd is None:
        return None
    variance = verdict.details.get("healthy_variance", verdict.variance)
    scale = max(variance, 0.0) / response.variance if response.variance > 0.0 else 1.0
    return float(np.hypot(sd * scale, np.sqrt(by_faults)))


def _by_component(power: dict[str, LayerPower]) -> dict[str, float]:
    sums = {
        "memristors": sum(p.memristors_w for p in power.values()),
        "amplifiers": sum(p.amplifiers_w for p in power.values()),
        "dacs": sum(p.dacs_w for p in power.values()),
        "adcs": sum(p.adcs_w for p in power.values()),
        "memories": sum(p.memories_w for p in power.values()),
    }
    return {name: watts for name, watts in sums.items() if watts > 0.0 or name in ("memristors", "amplifiers")}


def meaning_of(plan: Plan) -> tuple[str, ...]:
    """Return in words what the spec's relative numbers mean in siemens and volts."""
    first = next((layer for layer in plan.layers if not layer.is_digital), None)
    if first is None:
        return _memories_in_words(plan)
    site = first.site
    law, g_max = site.cell.programming, site.cell.g_max_siemens
    lines = []
    if law is not None:
        clipped = ", not below zero" if getattr(law, "clip", False) else ", unclipped"
        lines.append((law.in_words(g_max) if isinstance(law, GaussianError) else law.kind) + clipped)
    if isinstance(site.cell.drift, Ageing):
        lines.append(site.cell.drift.in_words() + (", compensated by layer" if site.mapping.drift_compensation else ""))
    used, bits = float(site.g_used_siemens.max()), site.encoding.slice_bits
    stored = f"in slices of {', '.join(map(str, bits))} bits" if bits else f"{site.mapping.levels} levels"
    stored = "analog" if site.encoding.n_levels is None else stored
    around = "" if site.encoding.kind == "differential" else ", zero in the middle of the range"
    lines += _converters_in_words(first)
    lines.append(f"largest weight of {site.layer!r} at {format_quantity(used, 'siemens', n_digits=4)}, {stored}{around}")
    return (*lines, *_memories_in_words(plan))


def _memories_in_words(plan: Plan) -> tuple[str, ...]:
    """Return what memories hold, how it errs, and what it takes."""
    words, seen = [], {access.part: access for layer in plan.layers for access in accesses_of(layer)}
    for part, access in seen.items():
        every = [a for layer in plan.layers for a in accesses_of(layer) if a.part == part]
        bits, memory = sum((a.reads + a.writes) * a.memory.word.n_bits for a in every), access.memory
        taken = sum((a.reads + a.writes) * a.memory.read_bits for a in every) / bits
        rates = [rate for a in every for rate in a.memory.error_rates]
        span = f"{min(rates):.3g}" if min(rates) == max(rates) else f"{min(rates):.3g} to {max(rates):.3g}"
        name = part.replace("_", " ")
        words.append(
            f"{name} of {len(every)} layers in words of {memory.word.n_bits} bits ({memory.word.coding}), {memory.faults.kind} faults, "
            f"p = {span}; {bits} bits an inference at {taken:.3f} of the energy at 1 of {memory.law.kind}"
        )
    return tuple(words)


def _converters_in_words(layer: PlacedLayer) -> list[str]:
    """Return what converters and arrays of a layer are."""
    if layer.path is None:
        return []
    words = []
    if layer.path.conduction is not None:
        law, full = layer.path.conduction.read.law, np.full(1, layer.drive.v_read_v)
        half = float(np.squeeze(law.current_a(np.full(1, layer.site.cell.g_max_siemens), 0.5 * full) * 2.0))
        bend = half / float(np.squeeze(law.current_a(np.full(1, layer.site.cell.g_max_siemens), full))) - 1.0
        words.append(f"non-linear cells ({law.kind}): at the top, half the read voltage gives half the current {100 * bend:+.2g} %")
    if layer.drive.dac is not None:
        reads = f", applied in {layer.path.n_reads} slices of {layer.drive.slice_bits} bits" if layer.path.digits is not None else ""
        words.append(f"inputs of {layer.name!r} in {layer.drive.dac.n_bits} bits up to {layer.path.x_span:.4g}{reads}")
    if layer.sense.adc is not None:
        blocks = f", {len(layer.path.blocks)} row blocks" if len(layer.path.blocks) > 1 else ""
        words.append(f"columns of {layer.name!r} in {layer.sense.adc.n_bits} bits{blocks}")
    return words
