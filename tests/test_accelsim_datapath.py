"""Converters, slices and row blocks: against loops over the definition, and predictions against Monte-Carlo."""

from dataclasses import replace

import numpy as np
import pytest

from accelsim.accelerator import Accelerator
from accelsim.datapath import InputDigits, blocks_of
from accelsim.placement import Plan, _walk_inputs, place
from accelsim.prediction.predict import predict
from accelsim.report.records import ErrorReport
from accelsim.response.target import ideal_weights, mean_weights
from accelsim.sampling.monte_carlo import monte_carlo
from devices.base.errors import SpecError, UnsupportedMethodError
from devices.converter import Uniform, UniformConverter, range_from
from tests.digits import CALIBRATION, digits_network, digits_plan, digits_samples
from workloads.kernels import ConvGeometry
from workloads.operators.matrix import Conv, ConvTranspose, MatrixOperator
from workloads.samples import samples_of
from workloads.zoo import load_embedded_network, load_embedded_samples

RNG = np.random.default_rng(11)
DAC, ADC = ("drive.dac.kind=uniform", "drive.dac.n_bits=6"), ("sense.adc.kind=uniform", "sense.adc.n_bits=7")
ROWS, SLICES, OFFSET = ("mapping.array.n_rows=20",), ("mapping.slice_bits=[2,2,2]",), ("mapping.encoding=offset",)
SERIAL = ("drive.slice_bits=2",)
READ = ("cell.read_noise.kind=state_independent", "cell.read_noise.error_rel=0.01")


def operators() -> list[MatrixOperator]:
    plain = ConvGeometry(in_shape=(6, 5, 5), n_out=4, kernel=(3, 3), pads=(1, 1, 1, 1), stride=(2, 2))
    grouped = ConvGeometry(in_shape=(6, 5, 5), n_out=4, kernel=(3, 3), groups=2)
    upwards = ConvGeometry(in_shape=(4, 7, 7), n_out=6, kernel=(3, 3), stride=(2, 2))
    return [
        Conv(weights=RNG.normal(size=plain.weight_shape).astype(np.float32), bias=None, geometry=plain),
        Conv(weights=RNG.normal(size=grouped.weight_shape).astype(np.float32), bias=None, geometry=grouped),
        ConvTranspose(weights=RNG.normal(size=(4, 6, 3, 3)).astype(np.float32), bias=None, geometry=upwards),
    ]


@pytest.mark.parametrize("operator", operators(), ids=["conv", "grouped", "transposed"])
@pytest.mark.parametrize("n_rows", [1, 4, 7, 50, None])
def test_row_blocks_add_up_to_the_product(operator: MatrixOperator, n_rows: int | None) -> None:
    geometry = operator.geometry  # type: ignore[attr-defined]
    x = RNG.normal(size=(*(geometry.out_shape if isinstance(operator, ConvTranspose) else geometry.in_shape), 3)).astype(np.float32)
    blocks = blocks_of(operator, n_rows)
    parts = [b.operator.multiply(b.weights(operator.weights), np.ascontiguousarray(x[b.channels])) for b in blocks]
    np.testing.assert_allclose(np.sum(parts, axis=0), operator.multiply(operator.weights, x), atol=2e-5)
    held = np.sum([np.count_nonzero(b.weights(np.ones_like(operator.weights))[0]) for b in blocks])
    assert held == operator.n_rows, "each weight is in one block"
    if n_rows is not None:
        most = max(np.count_nonzero(b.weights(np.ones_like(operator.weights))[0]) for b in blocks)
        assert most <= n_rows


def test_digits_are_those_of_the_code() -> None:
    codes = np.arange(-63.0, 64.0)
    digits = InputDigits(step=0.25, bits=2, n_digits=3)
    parts = list(digits.split(0.25 * codes))
    np.testing.assert_allclose(sum(value * part for value, part in parts), 0.25 * codes)
    for t, (value, part) in enumerate(parts):
        assert value == 0.25 * 3 * 4**t
        np.testing.assert_array_equal(np.abs(part) * 3, (np.abs(codes).astype(int) >> 2 * t) & 3)


def by_loops(plan: Plan, x: np.ndarray) -> np.ndarray:
    """Return the first layer's product, every conversion by itself, from the definition: patches, rows, digits, nearest codes."""
    layer = plan.layers[0]
    path, site = layer.path, layer.site
    assert path is not None
    operator = layer.operator
    assert isinstance(operator, Conv)
    g = operator.geometry
    cells = [np.asarray(part).reshape(operator.n_columns, -1) for part in site.targets()]
    span, g_min = site.span_siemens[:, None], site.cell.g_min_siemens
    driven = x if path.dac is None else path.dac.value(x)
    top, left, bottom, right = g.pads
    padded = np.pad(driven, ((0, 0), (top, bottom), (left, right), (0, 0)))
    out = np.zeros((*g.out_shape, x.shape[-1]))
    rows = site.mapping.array.n_rows if site.mapping.array and site.mapping.array.n_rows else operator.n_rows
    slices = site.encoding.slice_bits or (0,)

    def conducted(g: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Return the current of each cell over the read voltage, siemens."""
        return g * v if site.cell.conduction is None else site.cell.conduction.current_a(g, v * layer.drive.v_read_v) / layer.drive.v_read_v

    for i, j, b in np.ndindex(g.out_shape[1], g.out_shape[2], x.shape[-1]):
        patch = padded[:, i * g.stride[0] : i * g.stride[0] + g.kernel[0], j * g.stride[1] : j * g.stride[1] + g.kernel[1], b].ravel()
        if path.digits is None:
            inputs = [(path.x_span, patch / path.x_span)]
        else:
            codes, base = np.rint(patch / path.digits.step).astype(int), 2**path.digits.bits
            inputs = [
                (path.digits.step * (base - 1) * base**t, np.sign(codes) * ((np.abs(codes) // base**t) % base) / (base - 1))
                for t in range(path.digits.n_digits)
            ]
        for s in range(len(slices)):
            for value, v in inputs:
                for r in range(0, operator.n_rows, rows):
                    own = slice(r, r + rows)
                    adc = path.adcs[(r // rows) * len(slices) + s if path.by_tile else s]
                    if site.encoding.kind == "differential":
                        pair = (cells[2 * s + k][:, own] for k in (0, 1))
                        current = np.subtract(*(conducted(half, v[own]).sum(axis=1) for half in pair)) / span[:, 0]
                        number = adc.value(current)
                    else:
                        zero = np.broadcast_to(site.encoding.parts[s].zero * span + g_min, cells[s].shape)
                        current, unit = (conducted(g[:, own], v[own]).sum(axis=1) / span[:, 0] for g in (cells[s], zero))
                        number = adc.value(current) - adc.value(unit)
                    out[:, i, j, b] += value * path.gains[s] * site.w_span * number
    return out


@pytest.mark.parametrize(
    "settings",
    [ADC, DAC + ADC, ADC + ROWS, DAC + ADC + ROWS + SERIAL, DAC + ADC + ROWS + SLICES + SERIAL, DAC + ADC + OFFSET + SLICES, ADC + OFFSET],
    ids=["adc", "both", "rows", "serial", "all", "offset_slices", "offset"],
)
def test_a_layer_is_what_the_definition_says_conversion_by_conversion(settings: tuple[str, ...]) -> None:
    """A full scale with which sums of digits meet no threshold: where they do, float32 decides by its rounding."""
    plan = digits_plan("cnn", *settings, "sense.adc.range=fixed", "sense.adc.full_scale=5.4321", error_rel=0.01)
    x = np.ascontiguousarray(np.moveaxis(digits_samples()[:3].x, 0, -1)).astype(np.float32)
    view, node = ideal_weights(plan), plan.layers[0].node
    found = view.paths[node].run(view.slices[node], x)
    expected = by_loops(plan, x.astype(np.float64))
    off = np.abs(found - expected) > 1e-5 * np.abs(expected).max()
    assert off.mean() < 0.002
    assert np.abs(expected).max() > 0.1


TILES = ("sense.adc.range_per=tile",)
RANGES = {
    "fixed": ("sense.adc.range=fixed", "sense.adc.full_scale=5.4321"),
    "max": ("sense.adc.range=max",),
    "percentile": ("sense.adc.range=percentile", "sense.adc.percentile=99"),
    "mse": ("sense.adc.range=mse",),
    "full": ("sense.adc.range=full",),
}


@pytest.mark.parametrize("kind", RANGES)
@pytest.mark.parametrize("settings", [ADC + ROWS, DAC + ADC + ROWS + SLICES + SERIAL, ADC + ROWS + OFFSET], ids=["rows", "all", "offset"])
def test_ranges_of_tiles_are_those_of_their_own_signals(kind: str, settings: tuple[str, ...]) -> None:
    """Each block's converter, found from that block's sums alone by the rule; and the product is the definition's with them."""
    plan = digits_plan("cnn", *settings, *RANGES[kind], *TILES, error_rel=0.01)
    path, site, adc = plan.layers[1].path, plan.layers[1].site, plan.layers[1].sense.adc
    assert path is not None
    assert isinstance(adc, UniformConverter)
    n = len(path.gains)
    assert len(path.blocks) > 1
    assert len(path.adcs) == path.n_adcs == n * len(path.blocks)
    signals: dict[int, list[np.ndarray]] = {}

    def watch(i: int, x: np.ndarray) -> None:
        if i == plan.layers[1].node:
            for at, z in path.signals(tuple(s.astype(np.float32) for s in site.ideal_slices()), x):
                signals.setdefault(at, []).append(z.ravel())

    _walk_inputs(plan.graph, digits_samples()[CALIBRATION], watch)
    for at, converter in enumerate(path.adcs):
        own, block = np.concatenate(signals[at]).astype(np.float64), path.blocks[at // n]
        rows = block.operator.n_rows if block.taken is None else int(block.taken.sum())
        low, high = range_from(own, adc, worst_case=(-rows if own.min() < 0 else 0.0, rows))
        assert isinstance(converter, Uniform)
        if kind == "mse":  # of evenly sampled signals where there are many; ranges far apart can err nearly alike
            errors = [float(np.mean((each.value(own) - own) ** 2)) for each in (converter, adc.ideal(low, high))]
            assert errors[0] <= 1.05 * errors[1]
        else:
            assert (converter.low, converter.high) == pytest.approx((low, high), rel=0.03 if kind == "percentile" else 1e-6)
    if kind != "fixed":  # sums of digits meet thresholds in other ranges, where float32 decides by its rounding
        return
    x = np.ascontiguousarray(np.moveaxis(digits_samples()[:2].x, 0, -1)).astype(np.float32)
    first = plan.layers[0].path
    assert first is not None
    found = first.run(tuple(s.astype(np.float32) for s in plan.layers[0].site.ideal_slices()), x)
    off = np.abs(found - by_loops(plan, x.astype(np.float64))) > 1e-5 * np.abs(found).max()
    assert off.mean() < 0.002


def test_ranges_of_tiles_make_the_error_of_conversion_smaller() -> None:
    """Blocks differ: with a range of its own each wastes fewer codes; where there is one block nothing changes."""
    images = digits_samples()[:16]
    by_layer, by_tile = (digits_plan("cnn", *ADC, *ROWS, *tiles, "cell.programming=none") for tiles in ((), TILES))
    errors = [predict(plan, images, seed=1).by_cause["adc"] for plan in (by_layer, by_tile)]
    assert errors[1] < 0.9 * errors[0]
    whole = [ideal_weights(digits_plan("cnn", *ADC, *tiles)).outputs(by_layer.graph, images) for tiles in ((), TILES)]
    np.testing.assert_array_equal(*whole)


def test_predictions_with_ranges_of_tiles_agree_with_monte_carlo_and_bits_can_be_changed() -> None:
    plan = digits_plan("cnn", *DAC, *ADC, *ROWS, *SLICES, *TILES, error_rel=0.02)
    report, trials = reports(plan)
    assert trials.agreement_with(report).agrees  # type: ignore[attr-defined]
    moved = plan.layers[1].with_adc_bits(5)
    assert moved.path is not None
    assert [adc.n_bits for adc in moved.path.adcs] == [5] * moved.path.n_adcs  # type: ignore[attr-defined]
    with pytest.raises(SpecError, match=r"dac\.range_per"):
        digits_plan("cnn", *DAC, "drive.dac.range_per=tile")


SINH = ("cell.conduction.kind=sinh", "cell.conduction.v0_v=0.1", "cell.conduction.measured_at_v=0.2")
MILO = (
    "cell.g_min_siemens=50 uS", "cell.g_max_siemens=225 uS", "drive.v_read_v=0.5", "cell.conduction.kind=by_state",
    "cell.conduction.quadratic=[7.063e-3,5.711e-3,1.541e-3,1.388e-4]", "cell.conduction.cubic=[1.2968e-3,6.7919e-4,8.871e-5]",
    "cell.conduction.low_siemens=50 uS", "cell.conduction.high_siemens=225 uS", "cell.conduction.limit_v=0.5",
)  # fmt: skip


@pytest.mark.parametrize("cells", [SINH, MILO], ids=["sinh", "by_state"])
@pytest.mark.parametrize(
    "settings",
    [ADC, DAC + ADC + ROWS + SLICES + SERIAL, DAC + ADC + OFFSET + SLICES, ADC + OFFSET + ROWS],
    ids=["adc", "all", "slices", "offset"],
)
def test_non_linear_cells_are_what_the_definition_says_cell_by_cell(cells: tuple[str, ...], settings: tuple[str, ...]) -> None:
    """Every cell's current at its own voltage; ohmic cells (the negative control) give other numbers."""
    plan = digits_plan("cnn", *cells, *settings, "sense.adc.range=fixed", "sense.adc.full_scale=5.4321", error_rel=0.01)
    x = np.ascontiguousarray(np.moveaxis(digits_samples()[:2].x, 0, -1)).astype(np.float32)
    path, site = plan.layers[0].path, plan.layers[0].site
    assert path is not None
    slices = tuple(part.astype(np.float32) for part in site.ideal_slices())
    found, expected = path.run(slices, x), by_loops(plan, x.astype(np.float64))
    off = np.abs(found - expected) > 1e-5 * np.abs(expected).max()
    assert off.mean() < 0.002
    ohmic = path.ohmic().run(slices[: site.encoding.n_slices], x)
    assert np.mean(np.abs(ohmic - expected) > 1e-5 * np.abs(expected).max()) > 0.05


def test_a_converter_for_each_row_block_is_not_one_for_all() -> None:
    """The negative control of the loops: partial sums that are added before conversion give other numbers."""
    blocked, whole = (digits_plan("cnn", *ADC, *rows, error_rel=0.01) for rows in (ROWS, ()))
    outputs = [ideal_weights(plan).outputs(plan.graph, digits_samples()[:8]) for plan in (blocked, whole)]
    assert np.abs(outputs[0] - outputs[1]).max() > 1e-3


def reports(plan: Plan, n_images: int = 16, **more: object) -> tuple[ErrorReport, object]:
    images = digits_samples()[100 : 100 + n_images]
    return predict(plan, images, seed=5, tol_rel=0.03), monte_carlo(plan, images, seed=6, rel_error=0.03, max_trials=4000)


@pytest.mark.parametrize(
    "settings",
    [DAC + ADC, DAC + ADC + ROWS + SLICES, DAC + ADC + SERIAL + READ, ADC + OFFSET + ROWS],
    ids=["both", "slices", "serial_read_noise", "offset"],
)
def test_predictions_agree_with_monte_carlo(settings: tuple[str, ...]) -> None:
    plan = digits_plan("cnn", *settings, error_rel=0.02)
    report, trials = reports(plan)
    agreement = trials.agreement_with(report)  # type: ignore[attr-defined]
    assert agreement.agrees, agreement
    assert sum(report.by_cause.values()) == pytest.approx(report.mse)
    assert {"programming", "adc"} <= report.by_cause.keys()


def test_leaving_the_converters_out_is_noticed() -> None:
    """The negative control: the same Monte-Carlo, a prediction that knows nothing of 4-bit columns."""
    plan = digits_plan("cnn", "sense.adc.kind=uniform", "sense.adc.n_bits=4", error_rel=0.02)
    _, trials = reports(plan)
    ideal = predict(replace(plan, layers=tuple(replace(la, path=None) for la in plan.layers)), digits_samples()[100:116], seed=5)
    assert not trials.agreement_with(ideal).agrees  # type: ignore[attr-defined]


def test_integer_sums_on_a_granular_converter_have_no_error() -> None:
    """ISAAC's case: digits times digits, a code for every sum; and a step more, a rest of rounding."""
    exact = ("mapping.slice_bits=[2,2]", "drive.dac.kind=uniform", "drive.dac.n_bits=4", "drive.slice_bits=1", "sense.adc.kind=uniform")
    fine = digits_plan("cnn", *exact, "sense.adc.n_bits=12", "sense.adc.range=granular", error_rel=0.0)
    coarse = digits_plan("cnn", *exact, "sense.adc.n_bits=5", "sense.adc.range=granular", error_rel=0.0)
    images = digits_samples()[:16]
    assert predict(fine, images, seed=1).by_cause["adc"] < 1e-8
    assert predict(coarse, images, seed=1).by_cause["adc"] > 1e-3


def test_dither_turns_bias_into_variance() -> None:
    """Errors of the cells make a converter's error random: the mean product over programmings is not the ideal weights' one."""
    plan = digits_plan("cnn", "sense.adc.kind=uniform", "sense.adc.n_bits=4", error_rel=0.05)
    report = predict(plan, digits_samples()[:16], seed=1, method="adjoint")
    assert report.variance > 0.0
    layer = plan.layers[0]
    assert layer.path is not None
    x = np.ascontiguousarray(np.moveaxis(digits_samples()[:4].x, 0, -1)).astype(np.float32)
    mean, rest = layer.path.moments(mean_weights(plan).slices[layer.node], mean_weights(plan).variances[layer.node], x)
    assert rest.min() >= 0.0
    assert rest.max() > 0.0
    exact = layer.operator.multiply(mean_weights(plan).weights[layer.node], x)
    staircase = layer.path.run(mean_weights(plan).slices[layer.node], x)
    assert np.mean((mean - exact) ** 2) < np.mean((staircase - exact) ** 2)


def test_reads_of_input_slices_take_the_power_of_full_drives() -> None:
    """Bit by bit each read is driven over the whole voltage: against the sum over positions, digits and cells."""
    settings = ("drive.dac.kind=uniform", "drive.dac.n_bits=4", "drive.slice_bits=1", "cell.programming=none")
    plan, images = digits_plan("cnn", *settings, error_rel=0.0), digits_samples()[:4]
    layer = plan.layers[0]
    assert layer.path is not None
    assert layer.path.digits is not None
    x = np.ascontiguousarray(np.moveaxis(images.x, 0, -1)).astype(np.float32)
    codes = np.rint(layer.path.driven(x) / layer.path.digits.step).astype(int)
    conductances = np.sum(layer.site.targets(), axis=0).sum(axis=0)  # over columns: one sum a row
    power = 0.0
    for digit in range(layer.path.digits.n_digits):
        volts = ((codes >> digit) & 1) * layer.drive.v_read_v
        padded = np.pad(volts, ((0, 0), (1, 1), (1, 1), (0, 0)))
        for a, b in np.ndindex(3, 3):
            power += float(np.sum(conductances[0, a, b] * padded[:, a : a + 8, b : b + 8] ** 2)) / len(images)
    share = 1.0 / (layer.operator.n_positions * layer.path.n_reads)
    found = [predict(plan, images, seed=1).power_by_layer["conv1"], monte_carlo(plan, images, seed=1, max_trials=20).read_power_w]
    assert found[0] == pytest.approx(power * share, rel=1e-5)
    assert predict(plan, images, seed=1).read_power_w == pytest.approx(found[1], rel=1e-5)


def test_what_cannot_be_done_says_so() -> None:
    plan = digits_plan("cnn", *ADC, error_rel=0.01)
    with pytest.raises(UnsupportedMethodError, match="converters"):
        predict(plan, digits_samples()[:8], seed=1, method="covariance")
    with pytest.raises(SpecError, match="place"):
        plan.rescaled("column")
    with pytest.raises(SpecError, match=r"drive\.dac"):
        Accelerator.preset("memse", set=("drive.slice_bits=2",))
    blank = samples_of(np.zeros_like(digits_samples()[:2].x))
    with pytest.raises(SpecError, match=r"drive.dac of layer .*none but zero"):
        place(digits_network("cnn"), Accelerator.preset("prime"), calibration=blank)
    with pytest.raises(SpecError, match=r"slice_bits: 3000: need at most 24"):
        Accelerator.preset("prime", set=("drive.slice_bits=3000",))
    with pytest.raises(SpecError, match=r"granular"):
        digits_plan("cnn", "sense.adc.kind=uniform", "sense.adc.n_bits=8", "sense.adc.range=granular", error_rel=0.01)


CHIPS = ["prime", "pcm_chip", "neurram", "sonos"]


@pytest.mark.parametrize("name", [*CHIPS, pytest.param("isaac", marks=pytest.mark.slow), pytest.param("puma", marks=pytest.mark.slow)])
@pytest.mark.parametrize("network", ["fashion_cnn", pytest.param("fashion_resnet", marks=pytest.mark.slow)])
def test_published_chips_run_the_embedded_networks(name: str, network: str) -> None:
    samples = load_embedded_samples(network)
    plan = place(load_embedded_network(network), Accelerator.preset(name), calibration=samples[:64])
    report = predict(plan, samples[64:128], seed=3)
    assert report.valid, report.reason
    assert report.accuracy_predicted is not None
    assert report.accuracy_predicted > 0.7
    assert report.read_power_w > 0.0
    assert {"dac", "adc"} <= report.by_cause.keys()
    if name == "isaac":
        assert report.by_cause["adc"] < 1e-3 * report.mse
        assert report.power_by_component["adcs"] > report.power_by_component["dacs"] > 0.0


def test_errors_that_converters_round_away_leave_nothing() -> None:
    """Small errors of cells, a code for every sum: the outputs are those of ideal cells, though the linear response says otherwise."""
    exact = ("mapping.slice_bits=[2,2]", "drive.dac.kind=uniform", "drive.dac.n_bits=4", "drive.slice_bits=1", "sense.adc.kind=uniform")
    plan = digits_plan("cnn", *exact, "sense.adc.n_bits=12", "sense.adc.range=granular", error_rel=0.005)
    images = digits_samples()[:16]
    trials = monte_carlo(plan, images, seed=2, rel_error=0.02, max_trials=400)
    linear, sketched = (predict(plan, images, seed=1, method=method) for method in ("adjoint", "sketched"))  # type: ignore[arg-type]
    assert sketched.mse == pytest.approx(trials.mse, rel=0.02)
    assert sketched.valid
    assert abs(linear.mse / trials.mse - 1.0) > 0.02, "the negative control"
    assert predict(plan, images, seed=1).valid
