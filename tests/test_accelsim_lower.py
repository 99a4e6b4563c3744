"""Array sites: their moments are those of the programmings that Monte-Carlo draws."""

import numpy as np
import pytest

from accelsim.lower import ArraySite
from accelsim.placement import Plan
from accelsim.sampling.programmings import Programmer
from tests.digits import digits_plan
from validation.statistics import z_of_means

N_TRIALS = 4_000
SETTINGS = {
    "clipped": (), "unclipped": ("cell.programming.clip=false",), "precompensated": ("mapping.precompensate=true",),
    "levels": ("mapping.levels=16",), "per_column": ("mapping.scale=column",), "per_network": ("mapping.scale=network",),
    "device_bias": ("mapping.bias=device",), "half_the_range": ("mapping.g_used_siemens=12.5e-6",),
    "off_zero": ("cell.g_min_siemens=1e-6",), "proportional": ("cell.programming.kind=proportional",),
    "offset": ("mapping.encoding=offset",), "offset_levels": ("mapping.encoding=offset", "mapping.levels=16", "cell.g_min_siemens=1e-6"),
    "sliced": ("mapping.slice_bits=[2,2,2]",), "uneven_slices": ("mapping.slice_bits=[1,3]", "cell.g_min_siemens=1e-6"),
    "offset_sliced": ("mapping.encoding=offset", "mapping.slice_bits=[2,3]", "mapping.scale=column", "mapping.bias=device"),
    "proportional_precompensated": ("cell.programming.kind=proportional", "mapping.precompensate=true"),
}  # fmt: skip


def plan_with(*assignments: str, error_rel: float = 0.05) -> Plan:
    return digits_plan("cnn", *assignments, error_rel=error_rel)


def drawn(plan: Plan, n_trials: int, *, seed: int = 3) -> dict[str, np.ndarray]:
    """Return weights `(n_trials, *shape)` of each layer, and its bias under `NAME bias` where devices hold it."""
    programmer, found = Programmer(plan, seed=seed), {}
    draws = [programmer.draw(t).view for t in range(n_trials)]
    for layer in plan.layers:
        found[layer.name] = np.stack([d.weights[layer.node] for d in draws])
        if layer.bias_site is not None:
            found[f"{layer.name} bias"] = np.stack([d.biases[layer.node] for d in draws])
    return found


def sites(plan: Plan) -> dict[str, ArraySite]:
    found = {layer.name: layer.site for layer in plan.layers}
    return found | {f"{layer.name} bias": layer.bias_site for layer in plan.layers if layer.bias_site is not None}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_the_moments_of_a_site_are_those_of_its_programmings(settings: tuple[str, ...]) -> None:
    """About 900 z-scores for means and variances, at a fixed seed: the largest of as many normal numbers exceeds 5 once in 2000.

    Squares of rectified Gaussians have heavy tails: 4,000 trials leave skew in the mean of a square, hence 6 for variances.
    """
    plan = plan_with(*settings)
    samples = drawn(plan, N_TRIALS)
    for name, site in sites(plan).items():
        moments = site.moments()
        values = np.moveaxis(samples[name].astype(np.float64), 0, -1)
        moving = moments.variance > 0.0
        assert np.abs(z_of_means(moments.mean[moving], values[moving])).max(initial=0.0) < 5, name
        squares = (values - moments.mean[..., None]) ** 2
        assert np.abs(z_of_means(moments.variance[moving], squares[moving])).max(initial=0.0) < 6, name
        together = squares[moving].sum(axis=0)
        assert abs(z_of_means(moments.variance[moving].sum(), together)) < 4, name


def test_moments_without_clipping_fail_the_same_comparison() -> None:
    """The negative control."""
    site = plan_with("cell.programming.clip=false").layers[0].site
    values = np.moveaxis(drawn(plan_with(), N_TRIALS)["conv1"].astype(np.float64), 0, -1)
    moments = site.moments()
    assert np.abs(z_of_means(moments.mean, values)).max() > 10
    assert abs(z_of_means(moments.variance.sum(), ((values - moments.mean[..., None]) ** 2).reshape(-1, N_TRIALS).sum(axis=0))) > 10


def test_precompensated_weights_are_on_average_the_ideal_ones() -> None:
    for site in sites(plan_with("mapping.precompensate=true")).values():
        np.testing.assert_allclose(site.moments().mean, site.values, rtol=0.0, atol=1e-12 * np.abs(site.values).max())
    assert np.abs(plan_with().layers[0].site.moments().mean - plan_with().layers[0].site.values).max() > 1e-3


def test_the_same_seed_gives_the_same_bits_and_another_one_others() -> None:
    first, again, other = (drawn(plan_with("mapping.bias=device"), 3, seed=s) for s in (3, 3, 4))
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])
        assert np.any(values != other[name])
    assert np.any(first["conv1"][0] != first["conv1"][1])


def test_read_noise_does_not_change_the_programmings() -> None:
    noisy = plan_with("cell.read_noise.kind=state_independent", "cell.read_noise.error_rel=0.02")
    quiet, with_noise = drawn(plan_with(), 3), drawn(noisy, 3)
    for name, values in quiet.items():
        np.testing.assert_array_equal(values, with_noise[name])


def test_device_biases_do_not_change_the_draws_of_weights() -> None:
    """Scales may change, where a bias is a layer's largest stored value; the cells' own draws may not."""
    with_bias, without = (Programmer(plan_with(*s), seed=3).draw(0).cells["conv1"][0] for s in (("mapping.bias=device",), ()))
    site = {True: plan_with("mapping.bias=device").layers[0].site, False: plan_with().layers[0].site}
    errors = [p - site[b].targets()[0] for p, b in ((with_bias, True), (without, False))]
    open_ = (with_bias > 0.0) & (without > 0.0)
    np.testing.assert_allclose(errors[0][open_], errors[1][open_], atol=1e-5 * 25e-6)


def test_a_mirrored_programming_has_the_opposite_draws() -> None:
    programmer = Programmer(plan_with("cell.programming.clip=false"), seed=3)
    ahead, behind = (programmer.draw(5, sign=s).view.weights[plan_with().layers[0].node] for s in (1.0, -1.0))
    mean = plan_with().layers[0].site.values
    np.testing.assert_allclose(ahead + behind, 2.0 * mean, atol=1e-5 * np.abs(mean).max())


def test_ideal_weights_of_levels_are_within_half_a_step() -> None:
    site = plan_with("mapping.levels=16").layers[0].site
    step = np.abs(site.values).max() / 15.0
    assert np.abs(site.ideal_weights() - site.values).max() <= 0.5 * step * (1 + 1e-9)
    assert np.abs(site.ideal_weights() - site.values).max() > 0.2 * step
