"""Multi-level storage: published error rates, thresholds by search, moments by samples."""

import numpy as np
import pytest
from scipy import stats

from accelsim.accelerator import Accelerator
from devices.base.errors import SpecError
from devices.levels import LevelError, threshold
from validation.statistics import z_of_means

G_MAX = 25e-6
PUBLISHED = {2: 0.0, 4: 7.9e-9, 8: 3.81e-3}


def law(n: int) -> LevelError:
    found = Accelerator.preset(f"rram_mlc{n}").cell.programming
    assert isinstance(found, LevelError)
    return found


@pytest.mark.parametrize("n", PUBLISHED)
def test_the_mean_error_of_adjacent_levels_is_the_published_one(n: int) -> None:
    """NVMExplorer's distributions: the probability that a cell is misread, thresholds at the intersections of neighbours' densities."""
    up, down = law(n).adjacent_error_p()
    assert len(up) == len(down) == n - 1
    assert law(n).cell_error_p() == pytest.approx(PUBLISHED[n], rel=0.005, abs=1e-12)


def test_a_threshold_is_where_densities_meet() -> None:
    for low, high, s_low, s_high in ((0.0, 1.0, 0.1, 0.1), (0.2, 0.4, 0.03, 0.05), (0.1, 0.9, 0.2, 0.01)):
        t = threshold(low, high, s_low, s_high)
        assert stats.norm.pdf(t, low, s_low) == pytest.approx(stats.norm.pdf(t, high, s_high), rel=1e-6)
        assert low < t < high


def test_moments_are_those_of_samples_and_targets_go_to_the_nearest_level() -> None:
    eight, targets = law(8), G_MAX * np.array([0.0, 0.03, 0.05, 0.3, 0.5, 0.95, 1.0])
    normals = np.random.default_rng(1).standard_normal((7, 200_000))
    stored = eight.sample(np.repeat(targets[:, None], 200_000, axis=1), G_MAX, normals=normals)
    moments = eight.moments(targets, G_MAX)
    assert np.abs(z_of_means(moments.mean_siemens, stored)).max() < 4
    assert np.abs(z_of_means(moments.variance_siemens2, (stored - moments.mean_siemens[:, None]) ** 2)).max() < 4
    means = np.array(eight.means_rel)
    nearest = np.abs(targets[:, None] / G_MAX - means).argmin(axis=1)
    np.testing.assert_array_equal(eight.nearest(targets, G_MAX), nearest)
    assert np.abs(z_of_means(targets, stored)).max() > 10, "the negative control: targets are not what is stored"


def test_what_is_no_set_of_levels_is_refused() -> None:
    with pytest.raises(SpecError, match="one for each"):
        LevelError(means_rel=(0.0, 1.0), stds_rel=(0.1,))
    with pytest.raises(SpecError, match="above the one before"):
        LevelError(means_rel=(1.0, 0.0), stds_rel=(0.1, 0.1))
    with pytest.raises(SpecError, match="levels cannot be moved"):
        law(4).precompensated(np.zeros(1), G_MAX)
