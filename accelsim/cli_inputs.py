"""From what was typed to a plan and samples; every choice that was made for the user is told on stderr."""

import argparse
import secrets
from dataclasses import dataclass
from pathlib import Path

from accelsim.accelerator import Accelerator
from accelsim.cli_terminal import say
from accelsim.design import Design
from accelsim.placement import Plan, place
from accelsim.report.loading import check_inside
from devices.base.errors import RunFolderError, SamplesError, SpecError, no_file, told_of
from devices.base.quantity import parse_quantity
from workloads.network import Network
from workloads.onnx_reader import FOLD_LIMIT_BYTES, load_onnx
from workloads.samples import Samples, load_samples
from workloads.zoo import embedded_names, load_embedded_network, load_embedded_samples

TOPOLOGY_BYTES = 2**30
"""Constants that a file may declare without storing them: topologies whose weights do not matter."""
N_CALIBRATION = 64
N_INPUTS = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Question:
    """What predict, validate and optimize work on."""

    plan: Plan
    samples: Samples
    seed: int
    calibration: Samples


def question(options: argparse.Namespace) -> Question:
    """Return the plan, the samples and the seed of a command."""
    accelerator = Accelerator.from_toml(options.spec, set=options.set)
    network = load_network(options.network, input_shape=options.input_shape)
    samples, calibration = _samples(options, network)
    plan = place(network, accelerator, calibration=calibration)
    if options.design is not None:
        with told_of(Path(options.design)):
            plan = _designed(plan, _design(options.design, plan), calibration)
    return Question(plan=plan, samples=samples, seed=seed_of(options), calibration=calibration)


def _designed(plan: Plan, design: Design, calibration: Samples) -> Plan:
    """Return the plan with a design; placed anew where that moves slices, which ranges of converters go with."""
    if design.slice_bits:
        return place(plan.network, plan.accelerator, calibration=calibration, design=design)
    return plan.with_design(design)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TimedQuestion:
    """What simulate works on; samples only where inputs were given."""

    plan: Plan
    samples: Samples | None
    seed: int


def timed_question(options: argparse.Namespace, network: Network) -> TimedQuestion:
    """Return the plan, the samples if any, and the seed (0 unless given: little is random)."""
    accelerator = Accelerator.from_toml(options.spec, set=options.set)
    seed = 0 if options.seed is None else int(options.seed)
    if options.inputs is None:
        return TimedQuestion(plan=place(network, accelerator, calibration=None), samples=None, seed=seed)
    samples, calibration = _samples(options, network)
    return TimedQuestion(plan=place(network, accelerator, calibration=calibration), samples=samples, seed=seed)


def is_pipeline(spec: str) -> bool:
    """Return whether a spec is of an FPGA pipeline: a preset of one, or a file with a table [fpga]."""
    from accelsim.timing.fpga import is_preset
    from devices.base.toml_codec import parse_toml, read_text

    if is_preset(spec):
        return True
    path = Path(spec)
    return path.is_file() and "fpga" in parse_toml(read_text(path), origin=spec)


def arrivals_of(text: str) -> str | list[float]:
    """Return `saturated` and `poisson:RATE` as they are, and the times in a file, one a line."""
    if not text.endswith(".csv"):
        return text
    path = Path(text)
    if not path.is_file():
        raise SpecError(f"--arrivals: {no_file('arrivals', path, lever='give saturated, poisson:RATE, or a CSV of times')}")
    if path.stat().st_size > MAX_ARRIVALS_BYTES:
        raise SpecError(f"--arrivals: {text} has {path.stat().st_size} bytes; at most {MAX_ARRIVALS_BYTES} are read")
    lines = [line.strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    try:
        return [float(line) for line in lines]
    except ValueError as error:
        raise SpecError(f"--arrivals: {text}: need one time in seconds a line: {str(error)[:80]}") from None


MAX_ARRIVALS_BYTES = 2**22


def seed_of(options: argparse.Namespace) -> int:
    """Return the seed that was given, or draw one and say which."""
    if options.seed is not None:
        return int(options.seed)
    seed = secrets.randbits(31)
    say(f"note: seed {seed} was drawn; --seed {seed} gives the same answer again")
    return seed


def is_embedded(name: str) -> bool:
    """Return whether a network's name means an embedded one: it does unless a file of this very name is there."""
    return name in embedded_names() and not Path(name).exists()


def load_network(name: str, *, input_shape: tuple[int, ...] | None, fold_limit_bytes: int = FOLD_LIMIT_BYTES) -> Network:
    """Return an embedded network by its name, or the network in a file."""
    if not is_embedded(name):
        return load_onnx(name, input_shape=input_shape, fold_limit_bytes=fold_limit_bytes)
    if input_shape is not None:
        raise SpecError(f"--input-shape: the embedded network {name} has its own input shape; leave it out")
    return load_embedded_network(name)


def _samples(options: argparse.Namespace, network: Network) -> tuple[Samples, Samples]:
    """Return the inputs and the calibration samples."""
    return samples_for(options.network, network, inputs=options.inputs, calibration=options.calibration)


def samples_for(
    name: str, network: Network, *, inputs: str | None, calibration: str | None, flag: str = "--inputs"
) -> tuple[Samples, Samples]:
    """Return inputs and calibration samples from files, or the embedded ones; `flag` is what files are given with."""
    shape, prefix = network.input_shape, "--" if flag.startswith("--") else ""
    if inputs is not None:
        found = load_samples(inputs, input_shape=shape)
        fallback, where = found[: min(N_CALIBRATION, len(found))], "inputs"
    elif is_embedded(name):
        every = load_embedded_samples(name)
        found, fallback, where = every[N_CALIBRATION : N_CALIBRATION + N_INPUTS], every[:N_CALIBRATION], "embedded images"
        say(f"note: inputs are the embedded test images {N_CALIBRATION} to {N_CALIBRATION + N_INPUTS - 1}; {flag} takes your own")
    else:
        needed = f"an .npz file with an array x of shape (N, {_listed(shape)})"
        raise SamplesError(f"{flag} is missing: give the images that {network.name} takes, as {needed}")
    if calibration is not None:
        return found, load_samples(calibration, input_shape=shape)
    say(f"note: calibrated on the first {len(fallback)} {where}; {prefix}calibration takes others")
    return found, fallback


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _design(source: str, plan: Plan) -> Design:
    """Return the design in a run folder or a file; say so where it was found for another network or spec."""
    path = Path(source)
    if path.is_dir():
        path = path / "design.toml"
        check_inside(path)
        if not path.is_file():
            raise RunFolderError(f"{source} holds no design.toml; give the run folder of an `accelsim optimize` that found a design")
    design = Design.from_toml(path)
    for what, found, here in (
        ("network", design.network_digest, plan.network.digest),
        ("spec", design.accelerator_digest, plan.accelerator.digest),
    ):
        if found and found != here:
            say(f"note: the design was found for another {what} ({found[:8]}..., here {here[:8]}...)")
    return design


BUDGETS = {"watt": "a power", "joule": "an energy", "second": "a time", "metre2": "an area"}


def budget_of(text: str | None, unit: str, *, flag: str) -> float | None:
    """Return a budget in SI, above 0; None where none was given."""
    if text is None:
        return None
    try:
        value = parse_quantity(text, unit)
    except SpecError as error:
        raise SpecError(f"{flag} {text[:64]!r}: {error}") from None
    if value <= 0.0:
        raise SpecError(f"{flag} {text!r}: need {BUDGETS[unit]} above 0")
    return value


def slicing_of(text: str) -> tuple[int, ...]:
    """Return the slices that a word names: `8`, `4+4`, or `one` for a cell that holds all of a weight."""
    if text == "one":
        return ()
    parts = text.split("+")
    if not all(part.isascii() and part.isdigit() and 1 <= int(part) <= MAX_SLICE_BITS for part in parts):
        raise SpecError(f"--slices {text[:64]!r}: need bits of each slice, most significant first, such as 8, 4+4 or 2+2+2+2, or one")
    return tuple(map(int, parts))


MAX_SLICE_BITS = 24
