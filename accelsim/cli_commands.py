"""What each verb of the command line does."""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.resources import as_file
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelsim.cli_answers import FINE, INTERRUPTED, NO, answer, check_out, head
from accelsim.cli_inputs import budget_of, is_embedded, question, slicing_of
from accelsim.cli_terminal import TrialProgress, say
from accelsim.report.base import Report, clean, columns_table
from devices.base.errors import NetworkError, RunFolderError, SpecError, told_of
from workloads.zoo import embedded_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from devices.fit import Fit
    from workloads.onnx_survey import SurveyRow

def answer_or_file(options: argparse.Namespace, *, text: str, record: Mapping[str, Any]) -> int:
    """Print an answer, or write it to the new file `--out`."""
    if options.out is None:
        answer(options, text=text, record=record)
        return FINE
    _write_new(Path(options.out), json.dumps(clean(dict(record)), indent=2, allow_nan=False) if options.json else text)
    return FINE


def _write_new(path: Path, text: str) -> None:
    try:
        with path.open("x", encoding="utf-8", newline="\n") as file, _removed_on_failure(path):
            file.write(text + "\n")
            file.flush()
    except FileExistsError:
        raise RunFolderError(f"--out: {path} is there already; give another name, or remove it first") from None
    except OSError as error:
        raise RunFolderError(f"--out: cannot write {path}: {error.strerror or error}; give a writable place") from error


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def tell_warnings(report: Report) -> None:
    """Say on stderr what the answer's warnings are."""
    for line in report.provenance.warnings:
        say(f"note: {line}")


def _devices(options: argparse.Namespace) -> int:
    from accelsim.presets import preset_facts
    from devices import catalog

    if options.plot is not None:
        _draw_cell(options.name, options.plot)
    if options.name is not None:
        is_pipeline = options.name in catalog.names(catalog.FPGA)
        text = catalog.describe(options.name, folder=catalog.FPGA if is_pipeline else catalog.ACCELERATOR)
        return answer_or_file(options, text=text, record=head(options) | {"name": options.name, "toml": text})
    presets = [preset_facts(name) for name in catalog.names()]
    rows = [[p.name, p.range_text, p.error_text, p.drift_text, p.summary] for p in presets]
    text = columns_table(["preset", "range uS", "error uS, low / middle / high", "after a day", ""], rows)
    pipelines = {name: catalog.summary(name, folder=catalog.FPGA) for name in catalog.names(catalog.FPGA)}
    text += "\n\n" + columns_table(["pipeline on an FPGA, for simulate", ""], [list(pair) for pair in pipelines.items()])
    return answer_or_file(
        options,
        text=text + "\n\n`accelsim devices NAME` prints one with its source; `accelsim spec NAME` completes it.",
        record=head(options) | {"presets": [p.record() for p in presets], "pipelines": pipelines},
    )


def _memory(options: argparse.Namespace) -> int:
    from accelsim.memories import LAWS, law_facts, law_of, laws_text, memory_facts, presets_text
    from devices import catalog

    if options.ecc is not None:
        return _protection(options)
    if given := [flag for flag in _OF_ECC if getattr(options, flag) is not None]:
        raise SpecError(f"--{given[0].replace('_', '-')}: of --ecc only; give --ecc too, e.g. --ecc secded")
    if options.plot is not None:
        _draw_memory(options.name, options.plot)
    if options.name is None:
        laws = [law_facts(name, law) for name, law in LAWS.items()]
        presets = [memory_facts(name) for name in catalog.names(catalog.MEMORY)]
        text = f"{laws_text(laws)}\n\n{presets_text(presets)}\n\n`accelsim memory NAME` prints one with its source."
        record = {"laws": [asdict(f) for f in laws], "presets": [asdict(f) for f in presets]}
        return answer_or_file(options, text=text, record=head(options) | record)
    law = law_of(options.name)
    facts = law_facts(options.name, law)
    is_preset = options.name in catalog.names(catalog.MEMORY)
    toml = catalog.describe(options.name, folder=catalog.MEMORY) if is_preset else None
    text = laws_text([facts]) if toml is None else f"{toml}\n\n{laws_text([facts])}"
    return answer_or_file(options, text=text, record=head(options) | {"name": options.name, "toml": toml, "law": asdict(facts)})


_OF_ECC = ("data_bits", "protected", "word_bits", "logic_rel")


def _protection(options: argparse.Namespace) -> int:
    """Say when a code pays, under one law or all."""
    from accelsim.memories import LAWS, law_of
    from accelsim.protection import code_name, protection, protection_facts, protection_text, protections_text
    from devices.break_even import Protected
    from devices.word_format import WordFormat

    laws = LAWS if options.name is None else {options.name: law_of(options.name)}
    word = WordFormat(n_bits=8 if options.word_bits is None else options.word_bits)
    contests = {
        name: Protected(
            law=law, ecc=protection(law, options.ecc, data_bits=options.data_bits, n_protected=options.protected), word=word,
            logic_rel=options.logic_rel or 0.0,
        )
        for name, law in laws.items()
    }  # fmt: skip
    facts = [protection_facts(name, protected) for name, protected in contests.items()]
    if options.plot is not None:
        from accelsim.plot.protection import plot_protection

        _draw_new(options.plot, lambda axes: plot_protection(contests, code_name(next(iter(contests.values())).ecc), axes))
    text = protection_text(facts[0]) if options.name is not None else protections_text(facts)
    return answer_or_file(options, text=text, record=head(options) | {"protections": [asdict(f) for f in facts]})


def _draw_memory(name: str | None, out: str) -> None:
    from accelsim.memories import law_of
    from accelsim.plot.memory_law import plot_reliability

    if name is None:
        raise SpecError("--plot: which one? give the name of a law or memory, e.g. `accelsim memory sram_14nm --plot law.png`")
    law = law_of(name)
    _draw_new(out, lambda axes: plot_reliability(law, name, axes))


def _spec(options: argparse.Namespace) -> int:
    from accelsim.accelerator import Accelerator

    accelerator = Accelerator.from_toml(options.source, set=options.set)
    record = head(options, spec_digest=accelerator.digest) | {"spec": accelerator.to_table()}
    return answer_or_file(options, text=accelerator.to_toml(comments=True).rstrip("\n"), record=record)


def _cite(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from accelsim.accelerator import Accelerator
    from accelsim.citations import citations

    accelerator = Accelerator.from_toml(options.source, set=options.set)
    found = citations(accelerator)
    text = columns_table(["what", "reference"], [[c.what, c.reference] for c in found])
    record = head(options, spec_digest=accelerator.digest) | {"citations": [asdict(c) for c in found]}
    return answer_or_file(options, text=text, record=record)


def _inspect(options: argparse.Namespace) -> int:
    from workloads.onnx_survey import survey

    with _network_path(options.network) as path:
        rows = survey(path, input_shape=options.input_shape)
    reasons = list(dict.fromkeys(row.reason for row in rows if not row.supported))
    n_parameters, n_macs = sum(row.n_parameters for row in rows), sum(row.n_macs for row in rows)
    total = f"{len(rows)} layers, {n_parameters:,} parameters, {n_macs:,} MACs an image; {'NOT supported:' if reasons else 'all supported'}"
    counts = {"n_parameters": n_parameters, "n_macs": n_macs, "supported": not reasons, "layers": [_layer_record(row) for row in rows]}
    record = head(options, name=Path(options.network).stem, digest=_digest(options)) | counts
    text = "\n".join([_layer_table(rows), "", total, *(f"  {reason}" for reason in reasons)])
    return answer_or_file(options, text=text, record=record)


@contextmanager
def _network_path(name: str) -> Iterator[Path]:
    """Give the file of a network: an embedded one's, which may be inside an archive, or the user's."""
    if not is_embedded(name):
        yield Path(name)
        return
    with as_file(embedded_path(name)) as path:
        yield path


def _layer_table(rows: "Sequence[SurveyRow]") -> str:
    header = ["layer", "operator", "in", "out", "parameters", "MACs", "supported"]
    return columns_table(header, [_layer_line(row) for row in rows])


def _layer_line(row: "SurveyRow") -> list[str]:
    counts = [f"{count:,}" if count else "" for count in (row.n_parameters, row.n_macs)]
    return [row.name, row.operator, _sizes(row.in_shape), _sizes(row.out_shape), *counts, "yes" if row.supported else "NO"]


def _layer_record(row: "SurveyRow") -> dict[str, Any]:
    return asdict(row) | {"reason": row.reason or None}


def _digest(options: argparse.Namespace) -> str | None:
    """Return the network's digest for JSON, None for one that cannot be loaded."""
    from accelsim.cli_inputs import load_network

    try:
        return load_network(options.network, input_shape=options.input_shape).digest if options.json else None
    except NetworkError:
        return None


def _sizes(shape: tuple[int, ...] | None) -> str:
    return "?" if shape is None else "x".join(map(str, shape)) or "1"


def _predict(options: argparse.Namespace) -> int:
    from accelsim.prediction.predict import predict
    from accelsim.prediction.remedies import remedies
    from accelsim.report.diagnosis import remedies_table
    from accelsim.report.run_folder import save_report

    check_out(options)
    asked = question(options)
    report = predict(
        asked.plan,
        asked.samples,
        seed=asked.seed,
        method=options.method,
        output=options.output,
        reference=options.reference,
        tol_rel=options.tol_rel,
    )
    tell_warnings(report)
    if options.out is not None:
        save_report(report, options.out, command=options.command_line, figure=True)
    if not options.explain:
        answer(options, text=str(report), record=report.to_json_dict())
        return FINE
    found = remedies(asked.plan, asked.samples, report, output=options.output, reference=options.reference)
    record = report.to_json_dict() | {"explain": [asdict(remedy) for remedy in found]}
    answer(options, text=f"{report}\n\n{remedies_table(found)}", record=record)
    return FINE


def _explain(options: argparse.Namespace) -> int:
    from accelsim.diagnosis.explain import explain
    from accelsim.report.run_folder import save_report
    from workloads.card import ModelCard

    check_out(options)
    card = None if options.card is None else ModelCard.from_toml(options.card)
    asked = question(options)
    report = explain(
        asked.plan, asked.samples, seed=asked.seed, card=card, method=options.method, output=options.output,
        reference=options.reference, tol_rel=options.tol_rel,
    )  # fmt: skip
    tell_warnings(report)
    if options.out is not None:
        save_report(report, options.out, command=options.command_line, figure=True)
    answer(options, text=str(report), record=report.to_json_dict())
    return FINE


def _validate(options: argparse.Namespace) -> int:
    from accelsim.prediction.predict import predict
    from accelsim.report.run_folder import save_reports
    from accelsim.sampling.monte_carlo import monte_carlo

    check_out(options)
    asked = question(options)
    shared: dict[str, Any] = {"seed": asked.seed, "output": options.output, "reference": options.reference}
    report = predict(asked.plan, asked.samples, method=options.method, tol_rel=options.tol_rel, **shared)
    progress = TrialProgress("Monte-Carlo")
    trials = monte_carlo(
        asked.plan,
        asked.samples,
        rel_error=options.rel_error,
        max_trials=options.max_trials,
        threads=options.threads,
        checkpoint=options.checkpoint,
        progress=progress,
        **shared,
    )
    progress.close()
    verdict = trials.agreement_with(report, tolerance=options.tolerance)
    tell_warnings(report)
    if options.out is not None:
        save_reports({"predicted": report, "trials": trials}, options.out, command=options.command_line, figure=True)
    predicted = report.to_json_dict()
    shared_head = {
        name: predicted[name] for name in ("schema", "version", "seed", "network", "spec_digest", "output", "reference", "warnings")
    }
    record = {**shared_head, "kind": "validate", "predicted": report.numbers(), "mc": trials.numbers(), **verdict.numbers()}
    answer(options, text=f"PREDICTED\n{report}\n\nMONTE-CARLO\n{trials}\n\nVERDICT\n{verdict}", record=record)
    if trials.stopped_by == "interrupt":
        say("accelsim: interrupted; the answer is of the trials until then")
        return INTERRUPTED
    return FINE if verdict.agrees else NO


def _optimize(options: argparse.Namespace) -> int:
    from accelsim.optimizer.optimize import optimize
    from accelsim.report.run_folder import save_report
    from workloads.samples import load_samples

    check_out(options)
    power_w = budget_of(options.power_budget, "watt", flag="--power-budget")
    energy_j = budget_of(options.energy_budget, "joule", flag="--energy-budget")
    latency_s = budget_of(options.latency_budget, "second", flag="--latency-budget")
    area_m2 = budget_of(options.area_budget, "metre2", flag="--area-budget")
    slice_bits = None if options.slices is None else tuple(slicing_of(text) for text in options.slices)
    asked = question(options)
    verify = None if options.verify is None else load_samples(options.verify, input_shape=asked.plan.network.input_shape)
    progress = TrialProgress("Monte-Carlo at the design")
    report = optimize(
        asked.plan, asked.samples, seed=asked.seed, verify=verify, power_budget_w=power_w, mse_budget=options.mse_budget,
        energy_budget_j=energy_j, latency_budget_s=latency_s, area_budget_m2=area_m2, per=options.per,
        slice_bits=slice_bits, calibration=asked.calibration,
        yield_p=options.yield_p, adc_bits=None if options.adc_bits is None else tuple(options.adc_bits), memories=options.memories,
        memory_domains=options.memory_domains, memory_codes=options.memory_codes, output=options.output,
        reference=options.reference, mc_rel_error=options.rel_error,
        mc_max_trials=options.max_trials, threads=options.threads, checkpoint=options.checkpoint,
        progress=progress,
    )  # fmt: skip
    progress.close()
    tell_warnings(report)
    if options.out is not None:
        save_report(report, options.out, command=options.command_line, figure=True)
    answer(options, text=str(report), record=report.to_json_dict())
    if report.mc is not None and report.mc.stopped_by == "interrupt":
        return INTERRUPTED
    return FINE if report.feasible else NO


def _simulate(options: argparse.Namespace) -> int:
    from accelsim.cli_inputs import TOPOLOGY_BYTES, is_pipeline, load_network, timed_question
    from accelsim.report.run_folder import save_report
    from accelsim.timing.simulate import simulate, times_of
    from accelsim.timing.trace import write_chrome_trace

    check_out(options)
    _check_new(options.trace, flag="trace")
    if is_pipeline(options.spec):
        return _simulate_pipeline(options)
    network = load_network(options.network, input_shape=options.input_shape, fold_limit_bytes=TOPOLOGY_BYTES)
    asked = timed_question(options, network)
    how = _timing(options)
    report = simulate(asked.plan, samples=asked.samples, seed=asked.seed, **how)
    tell_warnings(report)
    if options.trace is not None:
        write_chrome_trace(times_of(asked.plan, seed=asked.seed, **how), Path(options.trace))
    if options.out is not None:
        save_report(report, options.out, command=options.command_line, figure=True)
    answer(options, text=str(report), record=report.to_json_dict())
    return FINE


def _simulate_pipeline(options: argparse.Namespace) -> int:
    """Simulate an FPGA pipeline, which has no arrays: nothing of a crossbar's options applies."""
    from accelsim.cli_inputs import TOPOLOGY_BYTES, load_network
    from accelsim.report.run_folder import save_report
    from accelsim.timing.fpga import FpgaPipeline, simulate_fpga

    for flag in ("inputs", "calibration", "trace"):
        if getattr(options, flag) is not None:
            raise SpecError(f"--{flag}: {options.spec} is an FPGA pipeline, to which it means nothing; leave it out")
    usual = {"arrivals": "saturated", "copies": "given", "token": 1, "rooms": "sized", "service": "deterministic"}
    for flag, value in usual.items():
        if getattr(options, flag) != value:
            raise SpecError(f"--{flag} {getattr(options, flag)}: an FPGA pipeline has nothing to choose there; leave it out")
    if options.set:
        raise SpecError("--set: an FPGA pipeline's spec is changed in its file")
    network = load_network(options.network, input_shape=options.input_shape, fold_limit_bytes=TOPOLOGY_BYTES)
    pipeline = FpgaPipeline.from_toml(options.spec)
    images = N_IMAGES if options.images is None else options.images
    report = simulate_fpga(network, pipeline, engine=options.engine, images=images, seed=options.seed or 0)
    tell_warnings(report)
    if options.out is not None:
        save_report(report, options.out, command=options.command_line, figure=True)
    answer(options, text=str(report), record=report.to_json_dict())
    return FINE


N_IMAGES = 8
"""Images that pass through a simulation, where nothing says how many."""


def _timing(options: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `simulate` that were typed."""
    from accelsim.cli_inputs import arrivals_of

    rooms = int(options.rooms) if options.rooms.isascii() and options.rooms.isdigit() else options.rooms
    if rooms not in ("sized", "unbounded") and not (isinstance(rooms, int) and rooms > 0):
        raise SpecError(f"--rooms {options.rooms!r}: need sized, unbounded, or a number of rows from 1")
    if options.copies not in ("given", "balanced", "budget"):
        raise SpecError(f"--copies {options.copies!r}: need given, balanced or budget; single layers: --set layers.NAME.mapping.replicas=4")
    arrivals = arrivals_of(options.arrivals)
    images = options.images
    if images is None:
        images = N_IMAGES if isinstance(arrivals, str) else len(arrivals)
    return {
        "engine": options.engine, "images": images, "arrivals": arrivals, "copies": options.copies,
        "token": options.token, "rooms": rooms, "service": options.service,
    }  # fmt: skip


def _evaluate(options: argparse.Namespace) -> int:
    from accelsim.report.run_folder import save_report
    from accelsim.timing.evaluate import evaluate

    check_out(options)
    asked = question(options)
    shared: dict[str, Any] = {"output": options.output, "reference": options.reference}
    report = evaluate(
        asked.plan, asked.samples, seed=asked.seed, method=options.method, tol_rel=options.tol_rel, **shared, **_timing(options)
    )
    tell_warnings(report)
    if options.out is not None:
        save_report(report, options.out, command=options.command_line, figure=True)
    answer(options, text=str(report), record=report.to_json_dict())
    return FINE


def _check_new(path: str | None, *, flag: str) -> None:
    if path is not None and Path(path).exists():
        raise RunFolderError(f"--{flag}: {path} is there already; give another name, or remove it first")


def _diff(options: argparse.Namespace) -> int:
    from accelsim.report.difference import compare

    found = compare(options.run_a, options.run_b)
    return answer_or_file(options, text=str(found), record=head(options) | found.numbers())


def _report(options: argparse.Namespace) -> int:
    from accelsim.page.document import write_page

    written = write_page(options.run, options.out)
    answer(options, text=f"{written}: open it in a browser; it needs no network", record=head(options) | {"page": str(written)})
    return FINE


def _fit(options: argparse.Namespace) -> int:
    from accelsim.cell_fit import cell_toml, fit_record, fit_text, stem_of
    from devices.fit import fit_law
    from devices.measurements import read_measurements

    for flag in ("out", "plot"):
        _check_new(getattr(options, flag), flag=flag)
    data = read_measurements(options.data)
    with told_of(Path(options.data)):
        fit = fit_law(data, kind=options.kind, degree=options.degree)
        toml = cell_toml(data, fit, name=stem_of(options.out, data))
    if options.plot is not None:
        _draw_fit(fit, Path(options.plot))
    if options.out is not None:
        _write_new(Path(options.out), toml.rstrip("\n"))
    text = fit_text(data, fit)
    after = f"written to {options.out}; use it with --spec {options.out}" if options.out is not None else "--out TOML writes it as a spec"
    answer(options, text=f"{text}\n\n{after}", record=head(options) | fit_record(data, fit, toml))
    return FINE


def _draw_fit(fit: "Fit", path: Path) -> None:
    from accelsim.plot.cell_fit import plot_fit

    _draw(path, lambda axes: plot_fit(fit, axes))


def _draw_cell(name: str | None, out: str) -> None:
    from accelsim.accelerator import Accelerator
    from accelsim.plot.cell_law import plot_cell

    if name is None:
        raise SpecError("--plot: which one? give the name of a preset, e.g. `accelsim devices pcm_nandakumar --plot cell.png`")
    cell = Accelerator.preset(name).cell
    _draw_new(out, lambda axes: plot_cell(cell, name, axes))


def _draw_new(out: str, plot: "Callable[[Axes], object]") -> None:
    """Draw into a file that is not there yet."""
    _check_new(out, flag="plot")
    _draw(Path(out), plot)


def _draw(path: Path, plot: "Callable[[Axes], object]") -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.2), layout="constrained")
    plot(figure.subplots())
    try:
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise RunFolderError(f"--plot: cannot write {path}: {error}; give a name that ends in .png, in a writable place") from error


def _demo(options: argparse.Namespace) -> int:
    from accelsim.cli_demo import demo

    return demo(options)


def _sweep(options: argparse.Namespace) -> int:
    from accelsim.cli_sweep import sweep_verb

    return sweep_verb(options)


def _collect(options: argparse.Namespace) -> int:
    from accelsim.cli_sweep import collect_verb

    return collect_verb(options)


def _train(options: argparse.Namespace) -> int:
    from accelsim.cli_train import train

    return train(options)


def _explore(options: argparse.Namespace) -> int:
    from accelsim.cli_sweep import explore_verb

    return explore_verb(options)


VERBS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "demo": _demo, "inspect": _inspect, "spec": _spec, "predict": _predict, "validate": _validate, "optimize": _optimize,
    "simulate": _simulate, "evaluate": _evaluate, "devices": _devices, "memory": _memory, "cite": _cite, "fit": _fit, "diff": _diff,
    "report": _report, "sweep": _sweep, "collect": _collect, "explore": _explore, "explain": _explain, "train": _train,
}  # fmt: skip
