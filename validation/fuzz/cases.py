"""From a seed and a number to a folder of files, one of them damaged, and the command that reads it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from validation.fuzz.arrays import mutant_npz, sound_npz
from validation.fuzz.calls import CALLS
from validation.fuzz.mutation import NAMES, mutated_text
from validation.fuzz.networks import mutant_network, write_network
from validation.fuzz.questions import (
    RECIPE,
    SEARCH,
    SWEEP,
    mutant_checkpoint,
    mutant_reliability,
    mutant_search_folder,
    mutant_trials,
    training_images,
    write_idx,
)  # fmt: skip
from validation.fuzz.runs import mutant_run
from validation.fuzz.seeds import NetworkSeed, network_seeds, own_seeds, pipeline_seeds, spec_seeds
from validation.fuzz.sound import RUNS, SHAPE, Runs, write_sound
from validation.fuzz.specs import mutant_assignments, mutant_spec
from validation.fuzz.tables import mutant_measurements, mutant_times

ENGINES = ("bound", "recurrence", "des")
CHIPS = ("isaac", "puma", "mnsim_default")
QUESTION = ["tiny.onnx", "--inputs", "tiny.npz", "--seed", "1"]
ADJOINT = ["--method", "adjoint"]
FEW_TRIALS = ["--max-trials", "32", "--threads", "1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A command in a folder of its own; `names` are the files it is given, `out` where it may write."""

    kind: str
    argv: tuple[str, ...]
    names: tuple[str, ...]
    out: str | None = None


def write_case(seed: int, number: int, folder: Path, runs: Runs) -> Case:
    """Write the files of one case into an empty folder and return it: always the same for a seed and a number."""
    choose = Random(f"{seed}/{number}")
    make = choose.choices(list(MAKERS), list(MAKERS.values()))[0]
    write_sound(folder)
    case = make(choose, folder, runs)
    if choose.random() < 0.3 and case.argv[0] not in ("fit", "diff", *CALLS):
        case = _with(case, "--json")
    if choose.random() < 0.04 and case.argv[0] in ("predict", "optimize", "validate", "simulate", "evaluate"):
        case = Case(kind=case.kind, argv=(*case.argv, "--out", "run"), names=case.names, out="run")
    return case


def _with(case: Case, *more: str) -> Case:
    return Case(kind=case.kind, argv=(*case.argv, *more), names=case.names, out=case.out)


def _network(choose: Random, folder: Path, runs: Runs) -> Case:
    seeds = network_seeds() if choose.random() < 0.6 else own_seeds()
    seed = choose.choice(seeds)
    write_network(folder / "mutant.onnx", mutant_network(choose, seed, other=choose.choice(seeds)))
    for name, raw in seed.beside:
        (folder / name).write_bytes(raw)
    (folder / "images.npz").write_bytes(sound_npz(choose, seed.shape or (3, 4)))
    return Case(kind="network", argv=(*_network_command(choose), *_shape(choose, seed)), names=("mutant.onnx", "images.npz"))


def _network_command(choose: Random) -> list[str]:
    asked = ["mutant.onnx", "--inputs", "images.npz", "--seed", "1"]
    commands = (
        (30, ["inspect", "mutant.onnx"]),
        (35, ["predict", *asked, *ADJOINT]),
        (6, ["predict", *asked]),
        (3, ["predict", *asked, "--method", choose.choice(("sketched", "covariance", "corrected"))]),
        (12, ["simulate", "mutant.onnx", "--spec", choose.choice(CHIPS), "--engine", choose.choice(ENGINES), "--images", "2"]),
        (3, ["simulate", "mutant.onnx", "--spec", "pipecnn_de1"]),
        (3, ["evaluate", *asked, *ADJOINT, "--spec", choose.choice(CHIPS), "--images", "2"]),
        (4, ["validate", *asked, *ADJOINT, *FEW_TRIALS]),
        (4, ["optimize", *asked, *FEW_TRIALS, "--power-budget", "1 mW"]),
    )
    return choose.choices([words for _, words in commands], [weight for weight, _ in commands])[0]


def _shape(choose: Random, seed: NetworkSeed) -> list[str]:
    if seed.shape is not None and choose.random() < 0.9:
        return []
    return ["--input-shape", choose.choice(("3,4", "1,6,6", "3,8,8", "1", "4", "2,3,4,5", "1000,1000", "1,30000,30000", "3,5"))]


def _spec(choose: Random, folder: Path, runs: Runs) -> Case:
    if choose.random() < 0.08:
        return _pipeline(choose, folder)
    _, text = choose.choice(spec_seeds())
    (folder / "mutant.toml").write_bytes(mutant_spec(choose, text))
    (folder / "other.toml").write_text('use = "mutant.toml"\n')
    asked = [*QUESTION, "--spec", "mutant.toml"]
    commands = (
        (30, ["spec", "mutant.toml"]), (5, ["cite", "mutant.toml"]), (28, ["predict", *asked, *ADJOINT]), (8, ["predict", *asked]),
        (20, ["simulate", "tiny.onnx", "--spec", "mutant.toml", "--images", "2", "--engine", choose.choice(ENGINES)]),
        (4, ["evaluate", *asked, *ADJOINT, "--images", "2"]), (3, ["validate", *asked, *ADJOINT, *FEW_TRIALS]),
        (4, ["optimize", *asked, *FEW_TRIALS, "--mse-budget", "1e-3"]),
    )  # fmt: skip
    weights = [w * (3 if "[chip" in text and words[0] in ("simulate", "evaluate") else 1) for w, words in commands]
    return Case(kind="spec", argv=tuple(choose.choices([words for _, words in commands], weights)[0]), names=("mutant.toml",))


def _pipeline(choose: Random, folder: Path) -> Case:
    _, text = choose.choice(pipeline_seeds())
    (folder / "mutant.toml").write_bytes(mutant_spec(choose, text))
    return Case(kind="pipeline", argv=("simulate", "tiny.onnx", "--spec", "mutant.toml"), names=("mutant.toml",))


def _assignments(choose: Random, folder: Path, runs: Runs) -> Case:
    base = choose.choice(("memse", "memse", "isaac", "puma", "neurram", "sonos", "pcm_chip"))
    verb = choose.choice(("spec", "predict", "predict", "predict", "simulate", "optimize"))
    command = {
        "spec": ["spec", base],
        "predict": ["predict", *QUESTION, "--spec", base, *(ADJOINT if choose.random() < 0.7 else [])],
        "simulate": ["simulate", "tiny.onnx", "--spec", choose.choice(CHIPS), "--images", "2"],
        "optimize": ["optimize", *QUESTION, "--spec", base, *FEW_TRIALS, "--power-budget", "10 uW"],
    }[verb]
    given = [f"--set={text}" for text in mutant_assignments(choose)]
    return Case(kind="set", argv=(*command, *given), names=("--set",))


def _design(choose: Random, folder: Path, runs: Runs) -> Case:
    text = (runs.sound("design") / "design.toml").read_text()
    (folder / "mutant.toml").write_bytes(mutant_spec(choose, text))
    return Case(kind="design", argv=("predict", *QUESTION, *ADJOINT, "--design", "mutant.toml"), names=("mutant.toml",))


def _arrays(choose: Random, folder: Path, runs: Runs) -> Case:
    (folder / "mutant.npz").write_bytes(mutant_npz(choose, SHAPE))
    commands = (
        ("predict", "tiny.onnx", "--inputs", "mutant.npz", "--seed", "1", *ADJOINT),
        ("predict", "tiny.onnx", "--inputs", "mutant.npz", "--seed", "1", *ADJOINT),
        ("predict", *QUESTION, *ADJOINT, "--calibration", "mutant.npz"),
        ("optimize", *QUESTION, *FEW_TRIALS, "--power-budget", "1 W", "--verify", "mutant.npz"),
        ("simulate", "tiny.onnx", "--inputs", "mutant.npz", "--images", "2"),
    )
    return Case(kind="samples", argv=choose.choice(commands), names=("mutant.npz",))


def _table(choose: Random, folder: Path, runs: Runs) -> Case:
    if choose.random() < 0.25:
        (folder / "mutant.csv").write_bytes(mutant_times(choose))
        return Case(kind="times", argv=("simulate", "tiny.onnx", "--images", "2", "--arrivals", "mutant.csv"), names=("mutant.csv",))
    (folder / "mutant.csv").write_bytes(mutant_measurements(choose))
    kind = choose.choice(("auto", "auto", "state_independent", "proportional", "saturating", "polynomial", "tabulated"))
    return Case(kind="measurements", argv=("fit", "mutant.csv", "--kind", kind), names=("mutant.csv",))


def _run(choose: Random, folder: Path, runs: Runs) -> Case:
    sound = runs.sound(choose.choice(RUNS))
    mutant_run(choose, sound, folder / "mutant")
    if choose.random() < 0.25 and sound.name == "design":
        return Case(kind="design of a run", argv=("predict", *QUESTION, *ADJOINT, "--design", "mutant"), names=("mutant",))
    pair = ["mutant", "mutant"] if choose.random() < 0.5 else [str(sound), "mutant"]
    return Case(kind="run", argv=("diff", *pair), names=("mutant",))


def _report(choose: Random, folder: Path, runs: Runs) -> Case:
    mutant_run(choose, runs.sound(choose.choice(RUNS)), folder / "mutant")
    return Case(kind="page", argv=("report", "mutant", "--out", "page.html"), names=("mutant",), out="page.html")


def _sweep_file(choose: Random, folder: Path, runs: Runs) -> Case:
    (folder / "mutant.toml").write_bytes(mutant_spec(choose, SWEEP))
    (folder / "other.toml").write_text('use = "memse"\n')
    out = ["--out", "grid"] if choose.random() < 0.7 else []
    return Case(kind="sweep", argv=("sweep", "mutant.toml", *out), names=("mutant.toml", "other.toml"), out="grid" if out else None)


def _search_file(choose: Random, folder: Path, runs: Runs) -> Case:
    (folder / "mutant.toml").write_bytes(mutant_spec(choose, SEARCH))
    out = ["--out", "search"] if choose.random() < 0.5 else []
    return Case(kind="search", argv=("explore", "mutant.toml", *out), names=("mutant.toml",), out="search" if out else None)


def _sweep_folder(choose: Random, folder: Path, runs: Runs) -> Case:
    mutant_search_folder(choose, runs.sound("sweep"), folder / "mutant")
    (folder / "sweep.toml").write_text(SWEEP)
    commands = (
        ("collect", "mutant"), ("collect", "mutant", "--table", "all.csv"), ("report", "mutant", "--out", "page.html"),
        ("sweep", "sweep.toml", "--out", "mutant"), ("load_report", "mutant"),
    )  # fmt: skip
    argv = choose.choice(commands)
    return Case(kind="folder of a sweep", argv=argv, names=("mutant", "sweep.toml"), out=_out(argv))


def _search_folder(choose: Random, folder: Path, runs: Runs) -> Case:
    (folder / "search.toml").write_text(SEARCH)
    commands = (("report", "mutant", "--out", "page.html"), ("explore", "search.toml", "--out", "mutant"), ("load_report", "mutant"))
    argv = choose.choice(commands)
    if runs.sound("search").is_dir():
        mutant_search_folder(choose, runs.sound("search"), folder / "mutant")
    return Case(kind="folder of a search", argv=argv, names=("mutant", "search.toml"), out=_out(argv))


def _out(argv: tuple[str, ...]) -> str | None:
    return next((name for name in ("all.csv", "page.html") if name in argv), None)


def _trials(choose: Random, folder: Path, runs: Runs) -> Case:
    (folder / "mutant.npz").write_bytes(mutant_trials(choose, runs.sound("trials.npz")))
    verb = ["validate", *QUESTION, *ADJOINT] if choose.random() < 0.8 else ["optimize", *QUESTION, "--power-budget", "1 W"]
    return Case(kind="checkpoint of trials", argv=(*verb, *FEW_TRIALS, "--checkpoint", "mutant.npz"), names=("mutant.npz",))


def _training(choose: Random, folder: Path, runs: Runs) -> Case:
    """Return a training with its recipe, its images, or the checkpoint that it goes on from damaged."""
    asked = ["train", "--seed", "1"]
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "train.npz").write_bytes(training_images())
    how = choose.random()
    if how < 0.4:
        (folder / "mutant.toml").write_bytes(mutant_spec(choose, RECIPE))
        return Case(kind="recipe", argv=(*asked, "--recipe", "mutant.toml", "--data", "train.npz"), names=("mutant.toml",))
    asked += ["--recipe", "recipe.toml"]
    if how < 0.55:
        (folder / "mutant.npz").write_bytes(mutant_npz(choose, SHAPE))
        given = choose.choice((["--data", "mutant.npz"], ["--data", "train.npz", "--test", "mutant.npz"]))
        return Case(kind="images to train on", argv=(*asked, *given), names=("mutant.npz",))
    if how < 0.7:
        write_idx(choose, folder / "mutant")
        return Case(kind="images to train on", argv=(*asked, "--data", "mutant"), names=("mutant", "-ubyte"))
    if runs.sound("training").is_dir():
        mutant_checkpoint(choose, runs.sound("training"), folder / "mutant")
    given = choose.choice((["--out", "mutant"], ["--out", "mutant"], ["--start", "mutant"]))
    return Case(kind="checkpoint of a training", argv=(*asked, "--data", "train.npz", *given), names=("mutant",))


def _reliability(choose: Random, folder: Path, runs: Runs) -> Case:
    (folder / "mutant.csv").write_bytes(mutant_reliability(choose))
    return Case(kind="reliability", argv=("read_reliability", "mutant.csv"), names=("mutant.csv",))


WORDS = (
    "--input-shape", "--power-budget", "--mse-budget", "--output", "--seed", "--tol-rel", "--threads", "--images", "--token", "--rooms",
    "--arrivals", "--copies", "--adc-bits", "--latency-budget", "--yield", "--out", "--spec", "--set", "--design", "--engine", "--trace",
    "--calibration", "--verify", "--method",
)  # fmt: skip
VALUES = (
    "1", "0", "-1", "1e9", "nan", "10 mW", "1 ms", "99999999999999999999", "poisson:1e6", "poisson:-1", "balanced", "budget", "rows",
    *NAMES,
)  # fmt: skip


SOUND = (
    ["predict", *QUESTION, *ADJOINT], ["validate", *QUESTION, *FEW_TRIALS], ["optimize", *QUESTION, *FEW_TRIALS, "--power-budget", "1 W"],
    ["simulate", "tiny.onnx", "--images", "2"], ["evaluate", *QUESTION, *ADJOINT, "--spec", "isaac", "--images", "2"],
    ["spec", "memse"], ["devices", "memse"], ["memory", "sram_14nm"], ["cite", "isaac"],
)  # fmt: skip


def _arguments(choose: Random, folder: Path, runs: Runs) -> Case:
    """Return a sound command with other words in it."""
    words = list(choose.choice(SOUND))
    for _ in range(choose.choice((1, 1, 2, 3))):
        how = choose.randrange(4)
        if how == 0:
            words += [choose.choice(WORDS), choose.choice(VALUES)]
        elif how == 1:
            at = choose.randrange(1, len(words))
            words[at] = choose.choice((*VALUES, mutated_text(choose, words[at])))
        elif how == 2:
            del words[choose.randrange(1, len(words))]
            words = words if len(words) > 1 else [*words, "x"]
        else:
            words.insert(choose.randrange(1, len(words) + 1), choose.choice((*WORDS, *VALUES)))
    return Case(kind="arguments", argv=tuple(word.replace("\0", "") for word in words), names=("",))


Maker = Callable[[Random, Path, Runs], Case]
MAKERS: dict[Maker, int] = {
    _network: 30, _spec: 18, _assignments: 4, _design: 2, _arrays: 8, _table: 5, _run: 5, _arguments: 3, _report: 3, _sweep_file: 6,
    _search_file: 3, _sweep_folder: 4, _search_folder: 2, _trials: 3, _training: 4, _reliability: 2,
}  # fmt: skip
"""How many of about a hundred cases are of each kind."""
