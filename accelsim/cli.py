"""The command line: what may be typed, which verb answers it, and how every ending looks.

Answers go to stdout; notes, progress and errors to stderr. Exit codes: 0 fine, 1 infeasible or disagreement, 2 usage or bad
input, 130 interrupted, 70 a bug of ours.
"""

import argparse
import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn

from accelsim._version import __version__
from accelsim.cli_terminal import heard, printable, say, show_warning
from devices.base.errors import AccelsimError

FINE, NO, BAD_INPUT, BUG, INTERRUPTED = 0, 1, 2, 70, 130
Add = Callable[..., argparse.ArgumentParser]

_NET = "an ONNX file, or the embedded fashion_cnn or fashion_resnet"
_EXITS = "exit codes: 0 fine, 1 infeasible or disagreement, 2 usage or bad input, 130 interrupted, 70 a bug of ours"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        options = parser().parse_args(arguments)
    except SystemExit as ending:  # argparse has spoken
        return int(ending.code or 0)
    options.command_line = ["accelsim", *arguments]
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that lacks a letter is no reason to end
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        return _guarded(options)


def _guarded(options: argparse.Namespace) -> int:
    try:
        code = _run(options)
        if sys.stdout is not None:  # None where the shell closed it
            sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except AccelsimError as error:
        say(f"accelsim: error: {error}")
        return BAD_INPUT
    except OSError as error:
        say(f"accelsim: error: {_system(error)}")
        return BAD_INPUT
    except MemoryError as error:
        say(f"accelsim: error: not enough memory ({error or 'no more is given'}); give fewer or smaller inputs, or choose --method adjoint")
        return BAD_INPUT
    except KeyboardInterrupt:
        say("accelsim: interrupted")
        return INTERRUPTED
    except Exception:  # noqa: BLE001  what ends here is our bug
        _report_bug()
        return BUG


def _system(error: OSError) -> str:
    """Return what the system refused, and of which file, in at most two lines."""
    if error.filename is None or error.strerror is None:
        return str(error)
    name = str(error.filename)
    return f"{name if len(name) <= 200 else f'{name[:80]}...{name[-80:]}'}: {error.strerror}"


def _run(options: argparse.Namespace) -> int:
    import logging

    from accelsim import cli_commands  # numerical libraries are slow to import, and --help needs none

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where there is no home directory for its settings
    with heard(options.verb):
        return cli_commands.VERBS[options.verb](options)


def _report_bug() -> None:
    traceback.print_exc(file=sys.stderr)
    say(f"\naccelsim: this is a bug in accelsim {__version__}, not in what you typed. Please report it: the lines above, the command, and, "
        "if you may share them, the network and spec. Without them we cannot mend it.")  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    top = _Parser(
        prog="accelsim", description="Error, time, energy and the best design of memristor DNN accelerators.", epilog=_EXITS
    )
    top.add_argument("--version", action="version", version=f"accelsim {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    def add(name: str, says: str) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=says, description=says[0].upper() + says[1:] + ".", epilog=_EXITS)
        verb.add_argument("--json", action="store_true", help="print JSON for machines")
        verb.add_argument("--seed", type=_natural, help="of all random numbers; drawn and printed when absent")
        return verb

    defined = (
        _demo, _inspect, _spec, _predict, _validate, _optimize, _simulate, _evaluate, _devices, _memory, _cite, _fit, _diff, _report,
        _sweep, _collect, _explore, _explain, _train,
    )  # fmt: skip
    for define in defined:
        define(add)
    return top


class _Parser(argparse.ArgumentParser):
    """argparse, whose complaints repeat what was typed, without control characters, and say where help is."""

    def error(self, message: str) -> NoReturn:
        begin = "; `accelsim demo` shows what it does" if message.endswith("required: VERB") else ""
        super().error(printable(f"{message} (`{self.prog} --help` tells what there is{begin})"))


def _demo(add: Add) -> None:
    verb = add("demo", "predict, check and optimize an embedded network, in under a minute")
    verb.add_argument("--quick", action="store_true", help="fewer images and trials, in about 20 s")
    _threads(verb)
    _out_folder(verb, "run folders and pictures")


def _inspect(add: Add) -> None:
    verb = add("inspect", "list a network's layers: shapes, parameters, MACs, and whether they are supported")
    verb.add_argument("network", metavar="NET", help=_NET)
    _input_shape(verb)
    _out_file(verb)


def _spec(add: Add) -> None:
    verb = add("spec", "print a complete, commented spec to edit")
    verb.add_argument("source", metavar="NAME|FILE", help="a preset (see `accelsim devices`) or a spec file")
    _set(verb)
    _out_file(verb)


def _predict(add: Add) -> None:
    verb = add("predict", "predict the output error, its causes, and the read power")
    _question(verb)
    _method(verb)
    verb.add_argument("--explain", action="store_true", help="also predict what halving each cause and the worst layers' errors would buy")
    _out_folder(verb, "a run folder")


def _explain(add: Add) -> None:
    verb = add("explain", "say why accuracy collapsed: inputs, converters, quantization, layers, and what remedies would buy")
    _question(verb)
    _method(verb)
    verb.add_argument("--card", metavar="TOML", help="what is known of the network: accuracy = 0.92, mean and std of its normalization")
    _out_folder(verb, "a run folder")


def _validate(add: Add) -> None:
    verb = add("validate", "compare a prediction with Monte-Carlo")
    _question(verb)
    _method(verb)
    verb.add_argument("--rel-error", type=_share, default=0.01, help="half-width of Monte-Carlo's interval over its mean (0.01)")
    verb.add_argument("--tolerance", type=_share, default=0.05, help="how far prediction and Monte-Carlo may be apart (0.05)")
    verb.add_argument("--max-trials", type=_natural, default=100_000, metavar="N", help="stop after so many trials (100000)")
    _checkpoint(verb)
    _threads(verb)
    _out_folder(verb, "the run folders `predicted` and `trials`")


def _optimize(add: Add) -> None:
    verb = add("optimize", "find the best conductance scales under a budget")
    _question(verb)
    budget = verb.add_mutually_exclusive_group(required=True)
    budget.add_argument("--power-budget", metavar="POWER", help='least error within this read power: "10 mW"')
    budget.add_argument("--energy-budget", metavar="ENERGY", help='least error within this energy of an inference: "2 uJ"')
    budget.add_argument("--mse-budget", type=_positive, metavar="MSE", help="least read power within this error: 1e-3")
    verb.add_argument("--per", choices=("layer", "column", "network"), default="layer", help="what has a scale of its own (layer)")
    verb.add_argument(
        "--adc-bits", nargs=2, type=_natural, metavar=("LEAST", "MOST"), help="choose the bits of each layer's ADC too, within these limits"
    )
    verb.add_argument(
        "--slices", nargs="+", metavar="BITS", help="choose each layer's slices too, among these: 8 4+4 2+2+2+2, one (no slices)"
    )
    verb.add_argument("--area-budget", metavar="AREA", help='refuse chips that are larger: "2 mm2"; needs a [chip]')
    verb.add_argument(
        "--memories", choices=("fixed", "layer", "bit"),
        help="error rates of memories: as they are, one a layer, or one a bit of a layer's words (layer, where memories have energies)",
    )  # fmt: skip
    verb.add_argument("--memory-domains", type=_natural, metavar="K", help="voltages that memories share; by default each has its own")
    verb.add_argument("--memory-codes", action="store_true", help="give a memory a SECDED code where that pays")
    verb.add_argument("--latency-budget", metavar="TIME", help='refuse designs that take longer for an image: "1 ms"; needs a [chip]')
    verb.add_argument("--yield", dest="yield_p", type=_share, metavar="P", help="share of chips that must meet the budget")
    verb.add_argument("--verify", metavar="V.npz", help="samples to verify on; by default the last half of the inputs is held out")
    verb.add_argument("--rel-error", type=_share, default=0.01, help="half-width of Monte-Carlo's interval over its mean (0.01)")
    verb.add_argument("--max-trials", type=_natural, default=5_000, metavar="N", help="of Monte-Carlo's check; 0 leaves it out (5000)")
    _checkpoint(verb)
    _threads(verb)
    _out_folder(verb, "a run folder, whose design `predict --design` takes")


def _simulate(add: Add) -> None:
    verb = add("simulate", "simulate time and energy: latency, interval, power, where they go")
    verb.add_argument("network", metavar="NET", help=_NET)
    verb.add_argument("--spec", default="isaac", metavar="NAME|FILE", help="a preset or a spec file with a [chip] (isaac)")
    verb.add_argument("--inputs", metavar="X.npz", help="samples: the energy of cells then follows from their conductances and these")
    verb.add_argument("--calibration", metavar="C.npz", help="samples that fix each layer's input range; by default the first 64 inputs")
    _times(verb)
    verb.add_argument("--images", type=_natural, metavar="N", help="images that pass through (8, or as many as arrive)")
    verb.add_argument("--trace", metavar="JSON", help="write the tokens' times into a new file that Perfetto opens")
    _input_shape(verb)
    _set(verb)
    _out_folder(verb, "a run folder")


def _evaluate(add: Add) -> None:
    verb = add("evaluate", "predict error and accuracy and simulate time, energy and area, of one spec in one table")
    _question(verb)
    _method(verb)
    _times(verb)
    verb.add_argument("--images", type=_natural, metavar="N", help="images that pass through the simulation (8, or as many as arrive)")
    _out_folder(verb, "a run folder")


def _times(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--engine", choices=("bound", "recurrence", "des"), default="recurrence",
        help="closed-form bounds, every token's time without contention, or discrete events with it (recurrence)",
    )  # fmt: skip
    verb.add_argument(
        "--arrivals", default="saturated", metavar="HOW", help="saturated, poisson:RATE (images a second), or FILE.csv of times in seconds"
    )
    verb.add_argument(
        "--copies", default="given", metavar="HOW",
        help="copies of layers: given (by mapping.replicas), balanced (over pixels), or budget (as many as there are tiles)",
    )  # fmt: skip
    verb.add_argument("--token", type=_count, default=1, metavar="PIXELS", help="least width of what is simulated at once (1)")
    verb.add_argument("--rooms", default="sized", metavar="HOW", help="buffers: sized (nothing deadlocks), unbounded, or rows")
    verb.add_argument("--service", choices=("deterministic", "exponential"), default="deterministic", help="of each token (des)")


def _devices(add: Add) -> None:
    verb = add("devices", "list the presets, or print one with its sources")
    verb.add_argument("name", nargs="?", metavar="NAME")
    verb.add_argument("--plot", metavar="PNG", help="draw the cell's errors over its range into a new file; with NAME")
    _out_file(verb)


def _memory(add: Add) -> None:
    verb = add("memory", "list energy-reliability laws and memory presets, or print one with its source")
    verb.add_argument("name", nargs="?", metavar="NAME")
    verb.add_argument("--plot", metavar="PNG", help="draw energy over error rate into a new file, with NAME; or, with --ecc, where it pays")
    verb.add_argument("--ecc", metavar="KIND", help="say when it pays: secded, parity_zero, tripled_bits, separate_bits")
    verb.add_argument("--data-bits", type=_natural, metavar="N", help="data bits of a word of secded (64)")
    verb.add_argument("--protected", type=_natural, metavar="N", help="top bits that tripled_bits or separate_bits keep safer (1)")
    verb.add_argument("--word-bits", type=_natural, metavar="N", help="bits of a number, in two's complement (8)")
    verb.add_argument(
        "--logic-rel", type=float, metavar="E", help="energy of encoder and decoder, a bit of a number, over the law's energy 1 (0)"
    )
    _out_file(verb)


def _cite(add: Add) -> None:
    verb = add("cite", "print the references that a spec rests on")
    verb.add_argument("source", metavar="NAME|FILE", help="a preset (see `accelsim devices`) or a spec file")
    _set(verb)
    _out_file(verb)


def _fit(add: Add) -> None:
    verb = add("fit", "fit a programming law to measured cells, and write a spec that uses it")
    verb.add_argument(
        "data", metavar="DATA.csv", help="columns target (uS), programmed (uS) and, where known, device_id, cycle, time (s); any units"
    )
    verb.add_argument(
        "--kind", default="auto", choices=("auto", "state_independent", "proportional", "saturating", "polynomial", "tabulated"),
        help="which law; auto takes the one with the least BIC",
    )  # fmt: skip
    verb.add_argument("--degree", type=_natural, metavar="N", help="of a polynomial; 1 to 4, the best by default")
    verb.add_argument("--plot", metavar="PNG", help="draw data and law into a new file")
    verb.add_argument("--out", metavar="TOML", help="write the spec to a new file")


def _train(add: Add) -> None:
    verb = add("train", "train a network for unreliable memory: weights and each layer's error rate together (extra `train`)")
    verb.add_argument("--recipe", required=True, metavar="NAME|FILE", help="a recipe file, or one that comes along: fashion_lanmax")
    verb.add_argument("--data", required=True, metavar="DIR|X.npz", help="folder of IDX files like MNIST's, or x (N, C, H, W) and y (N,)")
    verb.add_argument("--test", metavar="T.npz", help="images to test on, with --data X.npz; by default its last sixth")
    verb.add_argument("--start", metavar="RUN", help="go on from the weights of an earlier training: its folder")
    verb.add_argument("--threads", type=_count, metavar="N", help="of PyTorch (1); another number changes the last digits of sums")
    _out_folder(verb, "network, memory profile and checkpoint; the same command goes on where it was interrupted")


def _diff(add: Add) -> None:
    verb = add("diff", "compare two run folders: spec, versions, and numbers with their intervals")
    verb.add_argument("run_a", metavar="RUN_A")
    verb.add_argument("run_b", metavar="RUN_B")
    _out_file(verb)


def _report(add: Add) -> None:
    verb = add("report", "write a run folder as one page of HTML: the answer, tables, pictures, the spec with sources, how to get it again")
    verb.add_argument("run", metavar="RUN", help="a run folder, or a folder of runs such as that of `validate`")
    verb.add_argument("--out", metavar="HTML", help="write the page to a new file (RUN/report.html)")


def _sweep(add: Add) -> None:
    verb = add("sweep", "predict, sample, simulate, evaluate or optimize at many points, as a file says; only what is missing is computed")
    verb.add_argument("file", metavar="FILE.toml", help="network, inputs, spec, axes, run and its options (docs: files)")
    _many(verb)
    verb.add_argument("--shard", type=_part, metavar="I/N", help="compute every N-th point from the I-th on (1 to N), for jobs of an array")
    _out_folder(verb, "the answers, one file a point, into a folder of their own, new or of an earlier sweep")


def _explore(add: Add) -> None:
    verb = add("explore", "search fields of a spec for the best trade-offs of error, accuracy, power, energy, latency and area")
    verb.add_argument("file", metavar="FILE.toml", help="network, inputs, spec, space, objectives and constraints (docs: files)")
    verb.add_argument("--trials", type=_natural, metavar="N", help="trials in all; more than before goes on")
    _many(verb)
    _out_folder(verb, "the search's journal and answers into a folder of its own, new or of the same search")


def _many(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--workers", type=_count, metavar="N", help="start N processes; without it points are computed one by one")
    verb.add_argument("--cluster", metavar="ADDRESS", help="compute on the Dask cluster of this scheduler: tcp://host:8786")
    _set(verb)


def _collect(add: Add) -> None:
    verb = add("collect", "put the points of a sweep's folder together, whoever computed them")
    verb.add_argument("folder", metavar="DIR", help="the --out of a sweep")
    _out_folder(verb, "a run folder, for `report` and `diff`")
    verb.add_argument("--table", metavar="FILE", help="write all numbers of all points into a new .csv or .parquet file")
    verb.add_argument("--plot", metavar="PNG", help="draw a number over one axis or two into a new file")
    verb.add_argument("--column", metavar="NAME", help="what to draw, as the table names it; what the run is about by default")
    verb.add_argument("--over", nargs="+", metavar="AXIS", help="one axis or two to draw it over")


def _question(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("network", metavar="NET", help=_NET)
    verb.add_argument(
        "--inputs", metavar="X.npz", help="array x (N, ...) as the network takes it, and labels y; may be left out for embedded networks"
    )
    verb.add_argument("--calibration", metavar="C.npz", help="samples that fix each layer's input range; by default the first 64 inputs")
    verb.add_argument("--spec", default="memse", metavar="NAME|FILE", help="a preset or a spec file (memse)")
    verb.add_argument("--design", metavar="RUN|FILE", help="conductances of an earlier `optimize`: its run folder, or a design.toml")
    verb.add_argument("--output", metavar="NODE", help="node whose error counts; by default the output, before a last softmax")
    verb.add_argument("--reference", choices=("float", "quantized"), default="float", help="what the error is against (float)")
    _input_shape(verb)
    _set(verb)


def _method(verb: argparse.ArgumentParser) -> None:
    methods = ("auto", "adjoint", "sketched", "covariance", "corrected")
    verb.add_argument("--method", choices=methods, default="auto", help="how to predict (auto)")
    verb.add_argument(
        "--tol-rel", type=_share, default=0.05, metavar="T", help="largest relative error of a prediction that is valid (0.05)"
    )


def _set(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--set", action="extend", nargs="+", default=[], metavar="PATH=VALUE", help="change the spec: cell.error_rel=0.03; repeatable"
    )


def _input_shape(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--input-shape", type=_shape, metavar="C,H,W", help="shape of one sample, for networks that leave it open: 1,64,64")


def _threads(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--threads", type=_count, metavar="N", help="for Monte-Carlo; by default the CPUs this process may use")


def _checkpoint(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--checkpoint", metavar="FILE", help="keep Monte-Carlo's trials in this file; the same command goes on with them")


def _out_folder(verb: argparse.ArgumentParser, what: str) -> None:
    verb.add_argument("--out", metavar="DIR", help=f"write {what}")


def _out_file(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--out", metavar="FILE", help="write the answer to a new file instead of printing it")


def _natural(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else -1
    if not 0 <= value < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r}: need a whole number from 0 to 2^63 - 1")
    return value


def _count(text: str) -> int:
    value = int(text) if text.isascii() and text.isdigit() and len(text) <= 4 else 0
    if not 1 <= value <= 4096:
        raise argparse.ArgumentTypeError(f"{text!r}: need a whole number from 1 to 4096")
    return value


def _part(text: str) -> tuple[int, int]:
    i, slash, n = text.partition("/")
    if not slash or not (i + n).isascii() or not i.isdigit() or not n.isdigit() or len(text) > 16 or not 1 <= int(i) <= int(n):
        raise argparse.ArgumentTypeError(f"{text!r}: need I/N with I from 1 to N: 3/40 (number the jobs of an array from 1)")
    return int(i), int(n)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r}: need a number") from None


def _share(text: str) -> float:
    value = _number(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text!r}: need a number between 0 and 1")
    return value


def _positive(text: str) -> float:
    value = _number(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: need a number above 0")
    return value


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.replace("x", ",").split(",")
    if not all(size.strip().isascii() and size.strip().isdigit() and 0 < int(size) < 2**31 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r}: need sizes from 1 to 2^31 - 1, without the batch: 1,64,64")
    return tuple(map(int, sizes))
