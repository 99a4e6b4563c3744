"""Laws fitted to data drawn from known ones: parameters within their intervals, warnings, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from accelsim.accelerator import Accelerator
from accelsim.cli import main
from devices import catalog
from devices.base.errors import SpecError
from devices.fit import Fit, fit_law
from devices.measurements import Measurements, read_measurements
from devices.programming import ProportionalError, StateIndependentError
from devices.state_dependent import PolynomialError, SaturatingError

MICRO = 1e-6


def write(path: Path, targets: np.ndarray, programmed: np.ndarray, *, n_devices: int = 0, unit: str = "uS", scale: float = MICRO) -> Path:
    """Write siemens as a CSV, with device and cycle where devices are given."""
    head = f"target ({unit}),programmed ({unit})"
    rows = [f"{t / scale:.12g},{g / scale:.12g}" for t, g in zip(targets, programmed)]
    if n_devices:
        head = "device_id,cycle," + head
        rows = [f"d{i % n_devices},{i // n_devices},{row}" for i, row in enumerate(rows)]
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def drawn(name: str, tmp_path: Path, *, seed: int = 0, n: int = 250, n_states: int = 12) -> tuple[Measurements, PolynomialError, float]:
    """Return measurements of a preset's cells."""
    cell = Accelerator.preset(name).cell
    assert cell.programming is not None
    targets = np.repeat(np.linspace(cell.g_min_siemens, cell.g_max_siemens, n_states), n)
    normals = np.random.default_rng(seed).standard_normal(targets.size)
    programmed = cell.programming.sample(targets, cell.g_max_siemens, normals=normals)
    return read_measurements(write(tmp_path / "cells.csv", targets, programmed)), cell.programming, cell.g_max_siemens  # type: ignore[return-value]


POLYNOMIALS = (
    "pcm_nandakumar", "pcm_joshi", "pcm_hermes_1dev", "pcm_hermes_2dev", "rram_wan_a", "rram_wan_a_1day", "rram_wan_a_2days", "rram_wan_b",
    "rram_milo", "rram_cmo_hfox", "rram_cmo_hfox_2",
)  # fmt: skip


@pytest.mark.parametrize("name", POLYNOMIALS)
def test_the_parameters_of_every_preset_are_recovered_within_their_intervals(name: str, tmp_path: Path) -> None:
    """Each coefficient within 1.6 half-widths (z = 3.1 of some 34 numbers), and the standard deviation within 12 % at every state."""
    data, law, g_max = drawn(name, tmp_path)
    degree = len(law.coefficients_siemens) - 1
    fit = fit_law(data, kind="polynomial", degree=degree)
    true = np.array(law.coefficients_siemens) * (g_max / law.over_siemens) ** np.arange(degree + 1)
    off = np.array(list(fit.parameters.values())) - true
    assert np.all(np.abs(off) < 1.6 * np.array(list(fit.half_widths.values())))
    states = np.linspace(data.target_siemens.min(), g_max, 40)
    best = fit_law(data)
    np.testing.assert_allclose(best.law.std_siemens(states, g_max), law.std_siemens(states, g_max), rtol=0.12)
    assert fit.p_value is None or fit.p_value > 1e-3


@pytest.mark.parametrize("name", ["memse", "pcm_constant", "sonos"])
def test_constant_and_saturating_presets_are_recovered_too(name: str, tmp_path: Path) -> None:
    """Each parameter within 1.6 half-widths; a law of half the error is refused by the same measure."""
    data, law, _ = drawn(name, tmp_path)
    fit = fit_law(data, kind=law.kind)
    for parameter, found in fit.parameters.items():
        true, half = getattr(law, parameter), fit.half_widths[parameter]
        assert abs(found - true) < 1.6 * half
        assert abs(found - 0.5 * true) > 1.6 * half


def test_every_preset_with_a_law_that_is_fitted_is_among_these() -> None:
    kinds = {name: Accelerator.preset(name).cell for name in catalog.names()}
    laws = StateIndependentError | SaturatingError | PolynomialError
    fitted = {name for name, cell in kinds.items() if isinstance(cell.programming, laws)}
    same = {"memse_compat": "memse", "neurram": "rram_wan_a", "pcm_chip": "pcm_nandakumar", "rram_milo_iv": "rram_milo",
            "rram_cmo_hfox_relaxed": "rram_cmo_hfox"}  # fmt: skip
    for name, other in same.items():
        assert kinds[name].programming == kinds[other].programming
    assert fitted == {*POLYNOMIALS, "memse", "pcm_constant", "sonos", *same}


def test_intervals_cover_as_often_as_they_say(tmp_path: Path) -> None:
    """Of 60 fits of a clipped law's two parameters, 108 to 120 of 120 intervals of 95 % cover; of half their width, fewer than 95."""
    law = SaturatingError(top_siemens=1.2e-6, knee_siemens=6e-6)
    covered = halved = 0
    for seed in range(60):
        targets = np.repeat(np.linspace(0.5e-6, 25e-6, 8), 100)
        programmed = law.sample(targets, 25e-6, normals=np.random.default_rng(seed).standard_normal(targets.size))
        fit = fit_law(read_measurements(write(tmp_path / "cells.csv", targets, programmed)), kind="saturating")
        for name, true in (("top_siemens", 1.2e-6), ("knee_siemens", 6e-6)):
            off = abs(fit.parameters[name] - true) / fit.half_widths[name]
            covered, halved = covered + (off <= 1.0), halved + (off <= 0.5)
    assert covered >= 108
    assert halved < 95


def test_simple_laws_are_chosen_for_simple_data(tmp_path: Path) -> None:
    for law in (StateIndependentError(error_rel=0.02), ProportionalError(error_rel=0.05, clip=False)):
        targets = np.repeat(np.linspace(1e-6, 25e-6, 10), 200)
        programmed = law.sample(targets, 25e-6, normals=np.random.default_rng(2).standard_normal(targets.size))
        fit = fit_law(read_measurements(write(tmp_path / "cells.csv", targets, programmed)))
        assert fit.label == law.kind
        assert abs(fit.parameters["error_rel"] - law.error_rel) < 1.6 * fit.half_widths["error_rel"]


def test_clipped_cells_do_not_look_more_exact_than_they_are(tmp_path: Path) -> None:
    """Half of the cells at zero are clipped: their spread alone would tell 0.58 of the error (the control), the likelihood tells it all."""
    law = StateIndependentError(error_rel=0.04)
    targets = np.repeat([0.0, 0.25e-6, 0.5e-6], 400)
    programmed = law.sample(targets, 25e-6, normals=np.random.default_rng(3).standard_normal(targets.size))
    targets, programmed = np.append(targets, [25e-6] * 2), np.append(programmed, [25e-6 + 1e-6, 25e-6 - 1e-6])
    fit = fit_law(read_measurements(write(tmp_path / "cells.csv", targets, programmed)), kind="state_independent")
    assert fit.parameters["error_rel"] == pytest.approx(0.04, rel=0.08)
    assert fit.states[0].std_siemens == pytest.approx(np.sqrt(0.3408) * 1e-6, rel=0.1)


def test_a_law_that_is_wrong_is_found_out(tmp_path: Path) -> None:
    """A constant error fitted to cells whose error doubles: the p-value says so, and the right family's does not."""
    data, _, _ = drawn("pcm_nandakumar", tmp_path)
    wrong, right = fit_law(data, kind="state_independent"), fit_law(data, kind="polynomial", degree=2)
    assert wrong.p_value is not None
    assert wrong.p_value < 1e-6
    assert right.p_value is not None
    assert right.p_value > 1e-3
    assert right.bic["polynomial, degree 2"] < wrong.bic["state_independent"] - 100


def fit_of_devices(tmp_path: Path, own: float) -> Fit:
    """Return a fit of 40 devices, 20 cycles at each of three states; `own` of the variance is the device's."""
    random = np.random.default_rng(5)
    targets = np.repeat([5e-6, 15e-6, 25e-6], 800)
    device = np.arange(2400) % 40
    of_device = np.stack([random.standard_normal(40) for _ in range(3)])[np.arange(2400) // 800, device]
    errors = np.sqrt(own) * of_device + np.sqrt(1.0 - own) * random.standard_normal(2400)
    return fit_law(read_measurements(write(tmp_path / "cells.csv", targets, targets + 0.5e-6 * errors, n_devices=40)))


@pytest.mark.parametrize("own", [0.0, 0.3, 0.8])
def test_devices_and_cycles_are_told_apart(own: float, tmp_path: Path) -> None:
    share = fit_of_devices(tmp_path, own).device_share
    assert share == pytest.approx(own, abs=0.08)


def test_what_makes_a_fit_weak_is_said(tmp_path: Path) -> None:
    targets = np.repeat([5e-6, 25e-6], 12)
    programmed = targets + 1e-6 + 0.2e-6 * np.random.default_rng(1).standard_normal(24)
    told = " ".join(fit_law(read_measurements(write(tmp_path / "cells.csv", targets, programmed))).warnings)
    assert "only 12 measurements at 5 uS: its error is known to 21 %" in told
    assert "only 2 states were measured" in told
    assert "cells miss their target on average at 2 of 2 states" in told
    assert "without device_id and cycle" in told


def test_later_times_are_left_aside_and_said(tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    rows = [f"{t},10,{10 + 0.1 * (i % 7 - 3)}" for t in (0, 3600) for i in range(30)]
    path.write_text("time (s),target (uS),programmed (uS)\n" + "\n".join(rows) + "\n")
    fit = fit_law(read_measurements(path), kind="state_independent")
    assert fit.n == 30
    assert "30 of 60 rows are at later times" in fit.warnings[0]


def test_units_of_the_header_count(tmp_path: Path) -> None:
    targets = np.repeat([5e-6, 25e-6], 12)
    found = [
        read_measurements(write(tmp_path / f"{i}.csv", targets, targets, unit=unit, scale=scale)).target_siemens
        for i, (unit, scale) in enumerate((("uS", 1e-6), ("nS", 1e-9), ("S", 1.0)))
    ]
    for values in found:
        np.testing.assert_array_equal(values, targets)


FAULTY = {
    "target,programmed (uS)\n1,1": "header: 'target': give its unit, e.g. target (uS)",
    "target (uV),programmed (uS)\n1,1": "uV is a voltage",
    "target (uS),programmd (uS)\n1,1": "header: 'programmd (uS)': unknown column; nearest: programmed (uS)",
    "target (uS),cycle\n1,1": "header: no column programmed (uS); there are target (uS), cycle",
    "target (uS),target (nS),programmed (uS)\n1,1,1": "the second column of target",
    "target (uS),programmed (uS)\n1,1\n2,x": "line 3: programmed: 'x': need a number in uS",
    "target (uS),programmed (uS)\n1,1\n2": "line 3: 1 values for 2 columns",
    "target (uS),programmed (uS)\n-1,1": "line 2: target: '-1': need a finite number of at least 0",
    "target (uS),programmed (uS)\n1,nan": "line 2: programmed: 'nan': need a finite number",
    "target (uS),programmed (uS)": "need a header and at least one measurement",
}


@pytest.mark.parametrize(("text", "message"), FAULTY.items())
def test_faulty_files_are_told(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cells.csv"
    path.write_text(text + "\n")
    with pytest.raises(SpecError) as caught:
        read_measurements(path)
    assert message in str(caught.value)
    assert "cells.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("targets", "programmed", "message"),
    [
        (np.full(5, 1e-6), np.full(5, 1e-6), "5 measurements; need at least 20"),
        (np.full(30, 1e-6), np.full(30, 1e-6), "every cell is exactly at its target"),
        (np.zeros(30), np.full(30, 1e-6), "every target is zero"),
    ],
)
def test_data_that_tells_no_law_is_refused(targets: np.ndarray, programmed: np.ndarray, message: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=message):
        fit_law(read_measurements(write(tmp_path / "cells.csv", targets, programmed)))


def test_errors_at_zero_are_not_proportional(tmp_path: Path) -> None:
    data, _, _ = drawn("pcm_nandakumar", tmp_path)
    with pytest.raises(SpecError, match="cells at a target of zero err, so the error is not proportional"):
        fit_law(data, kind="proportional")


def test_the_command_writes_a_spec_that_predict_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn("pcm_nandakumar", tmp_path)
    spec, picture = tmp_path / "cell.toml", tmp_path / "fit.png"
    assert main(["fit", str(tmp_path / "cells.csv"), "--out", str(spec), "--plot", str(picture)]) == 0
    said = capsys.readouterr().out
    assert "polynomial, degree 2 *" in said
    assert "the law describes the data: p =" in said
    assert picture.stat().st_size > 10_000
    chip = Accelerator.from_toml(spec)
    assert isinstance(chip.cell.programming, PolynomialError)
    assert chip.cell.g_max_siemens == 25e-6
    assert "sha256" in chip.cell.source
    assert main(["fit", str(tmp_path / "cells.csv"), "--out", str(spec)]) != 0
    assert "is there already" in capsys.readouterr().err


def test_the_command_answers_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drawn("rram_milo", tmp_path)
    assert main(["fit", str(tmp_path / "cells.csv"), "--json", "--kind", "polynomial", "--degree", "1"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["law"] == "polynomial"
    assert set(record["parameters"]) == {"c_0", "c_1"}
    assert len(record["states"]) == 12
