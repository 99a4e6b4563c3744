"""The answer to why accuracy collapsed: findings in the order in which they must be mended, and the evidence."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from accelsim.report.base import Report, columns_table, text_table
from accelsim.report.origin import Provenance
from accelsim.report.records import ErrorReport
from devices.base.quantity import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Severity = Literal["alarm", "note", "fine"]
_MARKS = {"alarm": "!!", "note": " -", "fine": "ok"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One change, and what it makes of the MSE: before and after, its share of the whole, and whether the prediction is valid."""

    what: str
    mse: float
    change_rel: float
    accuracy_predicted: float | None
    valid: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was looked at, how bad it is (`alarm`, `note` or `fine`), what was found, and what to do about it (empty: nothing)."""

    topic: str
    severity: str
    what: str
    lever: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFacts:
    """The inputs in numbers: extremes, mean and standard deviation of all values, and by channel where there are channels."""

    low: float
    high: float
    mean: float
    std: float
    channel_means: tuple[float, ...]
    channel_stds: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """Another preprocessing of the same inputs, and the accuracy of the network without any hardware on it."""

    what: str
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """One layer on sampled chips.

    Parameters
    ----------
    mse_rel
        Squared error of its output, with the errors of all layers before it, over the output's variance: how the error grows.
    own_rel
        The same with exact inputs: what this layer alone does wrong.
    share
        Of the MSE of the network's output, with only this layer's errors on.
    dac_clipped, adc_clipped
        Shares of the values beyond the ranges of its converters, without noise; None where there are none.
    """

    layer: str
    mse_rel: float
    own_rel: float
    share: float
    dac_clipped: float | None
    adc_clipped: float | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Diagnosis(Report):
    """Why accuracy collapsed, or that it did not.

    Parameters
    ----------
    error
        The prediction that is explained.
    findings
        What was looked at, in the order in which it must be mended: a wrong input makes all that follows meaningless.
    accuracy_card, chance
        What the network reaches by its card, and by guessing; None where there is no card, and no labels.
    tries
        Other preprocessings of the inputs, the best first; empty where accuracy is as the card says.
    layers
        In the order of the network.
    remedies
        Predicted changes, what buys most first.
    """

    kind: ClassVar[str] = "explain"
    error: ErrorReport
    findings: tuple[Finding, ...]
    inputs: InputFacts
    accuracy_card: float | None
    chance: float | None
    tries: tuple[Try, ...]
    layers: tuple[LayerFacts, ...]
    remedies: tuple[Remedy, ...]
    n_chips: int
    elapsed_s: float

    @property
    def provenance(self) -> Provenance:  # type: ignore[override]
        """That of the prediction."""
        return self.error.provenance

    @property
    def alarms(self) -> tuple[Finding, ...]:
        """The findings that explain a collapse."""
        return tuple(finding for finding in self.findings if finding.severity == "alarm")

    @property
    def answer(self) -> str:
        """The first thing to mend, in a sentence."""
        if not self.alarms:
            noted = [finding.topic for finding in self.findings if finding.severity == "note" and finding.lever]
            return f"Nothing alarming; worth a look: {', '.join(noted)}." if noted else (
                "Nothing alarming: inputs, converters, quantization and layers are as they should be."
            )
        first = self.alarms[0]
        return f"{first.what}. {first.lever}".strip()

    def numbers(self) -> dict[str, Any]:
        return {
            "answer": self.answer,
            "findings": [asdict(finding) for finding in self.findings],
            "inputs": asdict(self.inputs),
            "accuracy_card": self.accuracy_card,
            "chance": self.chance,
            "tries": [asdict(one) for one in self.tries],
            "layers": self.to_dicts(),
            "remedies": [asdict(one) for one in self.remedies],
            "n_chips": self.n_chips,
            "elapsed_s": self.elapsed_s,
            "predicted": self.error.numbers(),
        }

    def rows(self) -> list[tuple[str, str]]:
        e = self.error
        known = f"{percent(self.accuracy_card)} by the card, " if self.accuracy_card is not None else ""
        accuracies = f"{known}{percent(e.accuracy_clean)} clean, {percent(e.accuracy_quantized)} quantized, {percent(e.accuracy_predicted)}"
        x = self.inputs
        return [
            ("network", f"{e.provenance.network} on {e.n_inputs} inputs"),
            ("answer", self.answer),
            ("accuracy", "- (samples have no labels)" if e.accuracy_clean is None else f"{accuracies} predicted"),
            ("relative MSE", f"{e.mse_rel:.4g}, own error estimate {percent(e.rel_error_estimate)}: {'valid' if e.valid else 'NOT valid'}"),
            ("inputs", f"{x.low:.4g} to {x.high:.4g}, mean {x.mean:.4g}, standard deviation {x.std:.4g}"),
            *((f"{_MARKS[f.severity]} {f.topic}", f"{f.what}{f'. {f.lever}' if f.lever else ''}") for f in self.findings),
        ]

    def __str__(self) -> str:
        return "\n\n".join(part for part in (text_table(self.rows()), *self._tables()) if part)

    def _tables(self) -> Iterator[str]:
        if self.tries:
            rows = [[one.what, percent(one.accuracy, 1)] for one in self.tries[:5]]
            yield columns_table(["inputs taken otherwise", "accuracy, float network"], rows)
        header = ["layer", "error so far", "its own", "share", "DAC clips", "ADC clips"]
        yield columns_table(header, [_layer_row(layer) for layer in self.layers])
        if self.remedies:
            yield remedies_table(self.remedies)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one record a layer."""
        return [asdict(layer) for layer in self.layers]

    def arrays(self) -> dict[str, np.ndarray]:
        return {}

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw how the error grows from layer to layer, and what each layer adds."""
        from accelsim.plot.growth import plot_growth

        return plot_growth(self.layers, network=self.provenance.network, note=self.answer, ax=ax)

    __repr__ = __str__


def _layer_row(layer: LayerFacts) -> list[str]:
    clipped = [percent(share) for share in (layer.dac_clipped, layer.adc_clipped)]
    return [layer.layer, f"{layer.mse_rel:.3g}", f"{layer.own_rel:.3g}", percent(layer.share, 1), *clipped]


def remedies_table(remedies: tuple[Remedy, ...]) -> str:
    """Return a table of what would help."""
    rows = [
        [r.what, f"{r.mse:.4g}", f"{100 * r.change_rel:+.1f} %", percent(r.accuracy_predicted), "" if r.valid else "not valid"]
        for r in remedies
    ]
    return columns_table(["what would help", "MSE", "change", "accuracy", ""], rows)
