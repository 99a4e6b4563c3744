"""What is trained, and how: strict TOML, every fault at once. No PyTorch.

    layers = "conv 32 k5 s2, conv 64 k3 s2, conv 128 k3 s2, dense 128"
    [word]
    coding = "binary"
    n_bits = 1
    [law]
    kind = "exponential"
    [faults]
    kind = "transient"
    [method]
    kind = "lanmax"
    energy_budget_rel = 0.3
"""

import hashlib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Literal, TypeAlias

from accelsim.training.layout import parse_layers
from accelsim.training.rates import HIGHEST_P
from devices.base.errors import SpecError, no_file
from devices.base.toml_codec import Faults, about, check_types, decode, parse_toml, raise_faults, read_text, write_lines
from devices.memory_faults import FAULT_KINDS, MemoryFaults
from devices.reliability import RELIABILITY_LAWS
from devices.reliability_law import ReliabilityLaw
from devices.word_format import WordFormat

_FOLDER = files("accelsim.training") / "recipes"
_BUDGET = "Energy of the reads over that at the law's energy 1, held by a multiplier that rises while it is exceeded."
_DOMAINS = about("How many voltages there are; layers are gathered by their error rates.", absent="one a layer", at_least=1)


def _one_of(record: object, *names: str) -> None:
    given = [name for name in names if getattr(record, name) is not None]
    if len(given) != 1:
        raise SpecError(f"{given[-1] if given else names[0]}: give one of {', '.join(names)}; got {', '.join(given) or 'none'}")


def _at_most(record: object, limit: float, *names: str) -> None:
    """Refuse fields above a limit."""
    wrong = [f"{n}: {getattr(record, n):g}: need at most {limit:g}" for n in names if (getattr(record, n) or 0.0) > limit]
    raise_faults(wrong)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliable:
    """Train without wrong bits."""

    kind = "reliable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Uniform:
    """Train with wrong bits at one error rate for all layers."""

    kind = "uniform"
    error_rate_p: float | None = field(default=None, metadata=about("Error rate of every bit.", above=0.0, absent="from the energy"))
    energy_budget_rel: float | None = field(
        default=None, metadata=about("Energy whose error rate is taken.", above=0.0, absent="see error_rate_p")
    )

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        _one_of(self, "error_rate_p", "energy_budget_rel")


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomBitErrors:
    """Random bit error training (Stutz et al., MLSys 2021): the gradients with right and with wrong bits are added."""

    kind = "random_bit_errors"
    error_rate_p: float = field(metadata=about("Error rate of every bit in training.", above=0.0))
    start_loss: float = field(
        default=1.75, metadata=about("Wrong bits start once the loss is below it; 1.75 is published for 10 classes.", above=0.0)
    )

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        _at_most(self, 0.5, "error_rate_p")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedForm:
    """Train at error rates by reverse water-filling: least linear damage for the energy, the damage measured before training."""

    kind = "closed_form"
    energy_budget_rel: float = field(metadata=about("Energy of the reads over that at the law's energy 1.", above=0.0))
    n_batches: int = field(default=64, metadata=about("Batches that the damage is measured on.", at_least=1))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanmax:
    """Learn the error rates with the weights (layer-wise noise maximization; Henwood et al., arXiv 1912.10764)."""

    kind = "lanmax"
    energy_budget_rel: float | None = field(default=None, metadata=about(_BUDGET, above=0.0, absent="see accuracy_budget"))
    accuracy_budget: float | None = field(
        default=None, metadata=about("Accuracy on images set aside that is held while energy falls.", above=0.0, absent="see above")
    )
    start_error_rate_p: float | None = field(
        default=None, metadata=about("Error rates that learning starts from.", above=0.0, absent="the closed form after --start, else 1e-3")
    )
    n_batches: int = field(default=64, metadata=about("Batches that the damage for the closed form is measured on.", at_least=1))
    rate: float = field(default=0.02, metadata=about("Largest step of the logarithm of an error rate.", above=0.0))
    multiplier_rate: float = field(default=0.02, metadata=about("Step of the logarithm of the multiplier.", above=0.0))
    learn_share: float = field(default=0.5, metadata=about("Share of training in which error rates move; after it they stay.", above=0.0))
    n_domains: int | None = field(default=None, metadata=_DOMAINS)

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        _one_of(self, "energy_budget_rel", "accuracy_budget")
        _at_most(self, 1.0, "learn_share", "accuracy_budget")
        _at_most(self, 0.4999, "start_error_rate_p")

    @property
    def has_closed_start(self) -> bool:
        """Whether learning may start at the closed form of its energy: from the weights of an earlier training it then does."""
        return self.start_error_rate_p is None and self.energy_budget_rel is not None


Method: TypeAlias = Reliable | Uniform | RandomBitErrors | ClosedForm | Lanmax
METHODS: dict[str, type] = {method.kind: method for method in (Reliable, Uniform, RandomBitErrors, ClosedForm, Lanmax)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How long, and how fast: the rate rises over the first tenth and falls to 0 as a half cosine."""

    n_epochs: int = field(default=10, metadata=about("Passes over the training images.", at_least=1))
    batch_size: int = field(default=128, metadata=about("Images of a step.", at_least=2))
    optimizer: Literal["adam", "sgd"] = field(default="adam", metadata=about("Adam, or SGD with Nesterov's momentum of 0.9."))
    rate: float = field(default=0.01, metadata=about("Peak learning rate; 0.01 suits adam, 0.1 sgd.", above=0.0))
    weight_decay: float = field(default=0.0, metadata=about("Of latent weights.", at_least=0.0))
    shift_pixels: int = field(default=2, metadata=about("Images are shifted by up to so many pixels.", at_least=0))
    mirror: bool = field(default=True, metadata=about("Whether half of the images are mirrored."))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """How the trained network is tested: so many draws of wrong bits over all test images."""

    n_draws: int = field(default=20, metadata=about("Draws of wrong bits, each over all test images.", at_least=2))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A network, its memory, a method and a schedule."""

    layers: str = field(metadata=about("The network: `conv 32 k5 s2, pool 2, dense 128`; the classifier follows by itself."))
    word: WordFormat = field(metadata=about("How weights are stored."))
    law: ReliabilityLaw = field(metadata=about("Energy by error rate.", kinds=lambda: RELIABILITY_LAWS))
    faults: MemoryFaults = field(metadata=about("Which bits err.", kinds=lambda: FAULT_KINDS))
    method: Method = field(metadata=about("How it is trained.", kinds=lambda: METHODS))
    schedule: Schedule = field(default=Schedule(), metadata=about("How long and how fast."))
    evaluation: Evaluation = field(default=Evaluation(), metadata=about("How it is tested."))
    scale: Literal["fan_in", "mean", "none"] = field(
        default="fan_in", metadata=about("What the greatest number is worth: sqrt(2 / fan-in), the mean of |latent weight|, or 1.")
    )
    clip: float = field(default=1.0, metadata=about("Latent weights are held within it.", above=0.0))
    per: Literal["layer", "bit"] = field(default="layer", metadata=about("What has an error rate of its own, under lanmax."))
    reads: Literal["once", "positions"] = field(
        default="once", metadata=about("Reads of a weight in an inference: one, as published, or one for each output position.")
    )
    n_chips: int = field(
        default=1, metadata=about("For faults that stay: so many chips take turns in training; tested are others.", at_least=1)
    )
    mean: float = field(default=0.0, metadata=about("Taken off pixels in [0, 1]; for unsigned bytes only."))
    std: float = field(default=1.0, metadata=about("Pixels in [0, 1] less mean are divided by it; for unsigned bytes only.", above=0.0))

    def __post_init__(self) -> None:
        raise_faults(check_types(self))
        parse_layers(self.layers)
        if self.word.coding == "unsigned":
            raise SpecError("word.coding: unsigned: weights have signs; use twos_complement, sign_magnitude or offset_binary")
        if self.method.kind != "reliable":
            self._check_law()

    def _check_law(self) -> None:
        least, largest = self.law.bounds
        if least == largest and self.method.kind != "random_bit_errors":
            raise SpecError(f"law: {self.law.kind} has one error rate; the method {self.method.kind} needs a law that trades energy for it")
        budget = getattr(self.method, "energy_budget_rel", None)
        low, high = (float(self.law.energy_rel(p)) for p in (min(largest, HIGHEST_P), least))
        if budget is not None and not low <= budget <= high:
            raise SpecError(f"method.energy_budget_rel: {budget:g}: need {low:.4g} to {high:.4g}, the range of the law {self.law.kind}")

    @property
    def digest(self) -> str:
        """sha256 of the recipe as TOML, hex."""
        return hashlib.sha256(recipe_toml(self).encode()).hexdigest()


def recipe_toml(recipe: Recipe) -> str:
    """Return a recipe as TOML that reads back as the same record."""
    return "\n".join(write_lines(recipe)) + "\n"


def recipe_of(text: str, *, origin: str) -> Recipe:
    """Return the recipe of a TOML text; SpecError with every fault."""
    faults = Faults(origin)
    recipe = decode(Recipe, parse_toml(text, origin=origin), faults=faults)
    faults.raise_if_any()
    assert recipe is not None
    return recipe


def recipe_names() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package."""
    return tuple(sorted(path.name.removesuffix(".toml") for path in _FOLDER.iterdir() if path.name.endswith(".toml")))


def load_recipe(source: str | Path) -> Recipe:
    """Return the recipe in a file, or one that comes with the package, by its name."""
    if isinstance(source, str) and source in recipe_names() and not Path(source).exists():
        return recipe_of((_FOLDER / f"{source}.toml").read_text(encoding="utf-8"), origin=source)
    if not Path(source).exists():
        raise SpecError(f"--recipe: {no_file('recipe', Path(source), lever='recipes that come along: ' + ', '.join(recipe_names()))}")
    return recipe_of(read_text(Path(source)), origin=str(source))
