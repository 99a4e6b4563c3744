"""Pictures: they draw the numbers they are given, show nothing, and leave pyplot alone when axes are given."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from made_reports import design_report, error_report, trial_report
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from accelsim import Accelerator, Plan, SpecError, load_embedded, place
from accelsim.plot.agreement import plot_agreement
from accelsim.plot.error import MAX_BARS
from accelsim.plot.pareto import plot_pareto
from accelsim.plot.weights import plot_weights, save_weights
from accelsim.report.drawing import drawn


@pytest.fixture(autouse=True)
def _no_window() -> Iterator[None]:
    matplotlib.use("Agg")
    yield
    pyplot.close("all")


@pytest.fixture
def ax() -> Axes:
    return Figure(figsize=(7, 4), layout="constrained").add_subplot()


@pytest.fixture(scope="module")
def plan() -> Plan:
    network, samples = load_embedded("fashion_cnn")
    return place(network, Accelerator.preset("memse", set=["mapping.levels=16"]), calibration=samples[:8])


def _drawn(ax: Axes) -> None:
    """Draw for real: layout and fonts can fail only then."""
    figure = ax.figure
    assert isinstance(figure, Figure)
    figure.savefig(io.BytesIO(), format="png")


@pytest.mark.parametrize("report", [error_report(), trial_report(), design_report()], ids=lambda r: r.kind)
def test_a_report_draws_on_the_axes_it_is_given_and_on_its_own(report, ax: Axes) -> None:  # type: ignore[no-untyped-def]
    assert report.plot(ax) is ax
    assert not pyplot.get_fignums()
    _drawn(ax)
    assert ax.get_title(loc="left")
    assert ax.get_xlabel()
    assert isinstance(report.plot(), Axes)
    assert len(pyplot.get_fignums()) == 1


def test_the_bars_are_the_parts_of_the_error(ax: Axes) -> None:
    report = error_report()
    report.plot(ax)
    widths = sorted(bar.get_width() for bar in ax.patches)
    assert widths == sorted([*report.by_layer.values(), *report.by_cause.values()])
    assert ax.get_title(loc="left") == "features.3 alone makes 57 % of the error"


def test_many_layers_are_summed_up_and_nothing_is_lost(ax: Axes) -> None:
    layers = {f"layer{i}": 1.0 + i for i in range(60)} | {"interaction": -3.0}
    error_report(by_layer=layers, by_cause={}, mse=sum(layers.values())).plot(ax)
    assert len(ax.patches) == MAX_BARS + 2
    assert sum(bar.get_width() for bar in ax.patches) == pytest.approx(sum(layers.values()))
    assert "40 others" in [label.get_text() for label in ax.get_yticklabels()]


def test_a_report_without_error_draws(ax: Axes) -> None:
    error_report(mse=0.0, by_layer={"a": 0.0}, by_cause={}).plot(ax)
    _drawn(ax)
    assert ax.get_title(loc="left") == "made_up: no error"


def test_a_formula_in_a_name_is_not_read_as_one(ax: Axes) -> None:
    error_report(by_layer={r"a $\bad{ b$": 0.01}).plot(ax)
    _drawn(ax)


def test_the_histogram_holds_every_chip(ax: Axes) -> None:
    report = trial_report()
    report.plot(ax)
    assert sum(bar.get_height() for bar in ax.containers[0]) == report.n_trials


def test_trials_without_spread_draw(ax: Axes) -> None:
    trial_report(mse=0.0, ci_low=0.0, ci_high=0.0, losses=np.zeros(3), mse_chip_quantiles={}).plot(ax)
    _drawn(ax)


def test_predictions_are_drawn_beside_trials_and_the_title_tells_the_worst(ax: Axes) -> None:
    noise = [0.1, 0.01]
    predictions = [error_report(mse=1.2, rel_error_estimate=0.3), error_report(mse=0.0101)]
    trials = [trial_report(mse=m, ci_low=0.98 * m, ci_high=1.02 * m) for m in (1.0, 0.01)]
    plot_agreement(noise, predictions, trials, ax)
    _drawn(ax)
    assert "within 20.0 % of Monte-Carlo" in ax.get_title(loc="left")
    assert [text.get_text() for text in ax.texts] == ["1 of 2 call themselves not valid; the others are within 1.0 %"]
    assert list(ax.lines[0].get_xdata()) == [1.0, 10.0]
    with pytest.raises(SpecError, match="need as many"):
        plot_agreement([0.1], predictions, trials, ax)


def test_the_pareto_curve_has_the_chosen_design_on_it(ax: Axes) -> None:
    report = design_report()
    report.plot(ax)
    by_label = {line.get_label(): line for line in ax.lines}
    assert by_label["chosen design"].get_xdata()[0] == pytest.approx(0.7)  # type: ignore[index]
    assert by_label["power budget"].get_xdata()[0] == pytest.approx(0.7)  # type: ignore[index]
    assert ax.get_xlabel() == "read power (mW)"
    assert "27 % less error than the best common scale" in ax.get_title(loc="left")


def test_an_infeasible_budget_says_so(ax: Axes) -> None:
    design_report(feasible=False, design=None, mse=None, read_power_w=None, baseline=None, power_budget_w=1e-4).plot(ax)
    _drawn(ax)
    assert ax.get_title(loc="left") == "No design meets the budget"


def test_axes_are_logarithmic_only_where_values_span_much(ax: Axes) -> None:
    assert plot_pareto([1e-3, 2e-3], [1.0, 1e-4], ax=ax).get_yscale() == "log"
    assert ax.get_xscale() == "linear"
    with pytest.raises(SpecError, match="as many powers as errors"):
        plot_pareto([1.0], [1.0, 2.0])


def test_the_weights_of_a_layer_are_all_counted(plan: Plan, tmp_path: Path) -> None:
    axes = plot_weights(plan, "conv1", seed=1)
    assert [sum(bar.get_height() for bar in ax.patches) for ax in axes] == [400, 800, 800]
    assert axes[1].get_title(loc="left") == "largest weight at 25 uS"
    save_weights(plan, "conv1", seed=1, path=tmp_path / "w.png")
    counted = [int(line.rpartition(",")[2]) for line in (tmp_path / "w.csv").read_text().splitlines()[1:]]
    assert sum(counted) == 2000


def test_an_unknown_layer_is_refused_with_the_names(plan: Plan) -> None:
    with pytest.raises(SpecError, match="no placed layer 'conv9'; there are conv1, conv2, fc1, fc2"):
        plot_weights(plan, "conv9", seed=1)


def test_names_make_a_saved_picture_higher() -> None:
    """A bar of a name needs room; numbers beside the axes do not."""

    def bars(n: int) -> Callable[[Axes], object]:
        return lambda ax: ax.set_yticks(range(n), [f"layer{i}" for i in range(n)])

    heights = [drawn(bars(n)).get_size_inches()[1] for n in (2, 20, 60)]
    assert heights[0] < heights[1] < heights[2] < 20.0
    assert drawn(lambda ax: ax.set_yticks(range(60))).get_size_inches()[1] < heights[1]
