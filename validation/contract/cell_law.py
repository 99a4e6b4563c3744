"""What every law of stored values must keep."""

from dataclasses import replace
from typing import ClassVar

import numpy as np

from accelsim.accelerator import Accelerator
from devices.law import CellLaw, Values
from validation.statistics import z_of_means

N_SAMPLES = 200_000
Z_LIMIT = 4.0
"""24 z-scores a law at most: the largest of as many normal numbers exceeds 4 once in 650; seeds are fixed."""


class CellLawContract:
    """Subclass, and set `laws`: instances of the law, at several parameter values, small and large errors among them.

    `registered` is whether specs know the law's kind, as the cell's `field_name`; only then can it go through TOML.
    """

    laws: ClassVar[tuple[CellLaw, ...]]
    g_max_siemens: ClassVar[float] = 25e-6
    seed: ClassVar[int] = 20_261_124
    registered: ClassVar[bool] = True
    field_name: ClassVar[str] = "programming"

    def targets(self) -> Values:
        """Return the targets that are tried: both ends of the range, and close to them."""
        return self.g_max_siemens * np.array([0.0, 1e-3, 0.01, 0.03, 0.1, 0.3, 0.5, 0.9, 1.0])

    def test_the_moments_are_those_of_samples(self) -> None:
        targets = self.targets()
        for law in self.laws:
            stored = self._sampled(law, np.repeat(targets[:, None], N_SAMPLES, axis=1))
            moments = law.moments(targets, self.g_max_siemens)
            mean_z = z_of_means(moments.mean_siemens, stored)
            assert np.abs(mean_z).max() < Z_LIMIT, f"{law}: the mean is off by z = {mean_z} at {targets} S"
            squares = (stored - moments.mean_siemens[:, None]) ** 2
            variance_z = z_of_means(moments.variance_siemens2, squares)
            assert np.abs(variance_z).max() < Z_LIMIT, f"{law}: the variance is off by z = {variance_z} at {targets} S"

    def test_the_moments_have_the_shape_of_the_targets_and_are_possible(self) -> None:
        for law in self.laws:
            for shape in ((9,), (3, 3), (1, 9, 1)):
                moments = law.moments(self.targets().reshape(shape), self.g_max_siemens)
                assert moments.mean_siemens.shape == shape
                assert moments.variance_siemens2.shape == shape
                assert np.all(np.isfinite(moments.mean_siemens))
                assert np.all(np.isfinite(moments.variance_siemens2))
                assert np.all(moments.variance_siemens2 >= 0.0)

    def test_stored_values_stay_within_bounds(self) -> None:
        """A law that clips stores no negative conductance, and its mean is none either."""
        for law in self.laws:
            stored = self._sampled(law, np.repeat(self.targets()[:, None], 10_000, axis=1))
            assert np.all(np.isfinite(stored))
            if getattr(law, "clip", False):
                assert stored.min() >= 0.0, f"{law} stores {stored.min():g} S"
                assert law.moments(self.targets(), self.g_max_siemens).mean_siemens.min() >= 0.0

    def test_arguments_are_left_as_they_are(self) -> None:
        for law in self.laws:
            targets, normals = self.targets(), np.random.default_rng(self.seed).standard_normal(9)
            kept = targets.copy(), normals.copy()
            law.moments(targets, self.g_max_siemens)
            law.sample(targets, self.g_max_siemens, normals=normals)
            law.precompensated(targets, self.g_max_siemens)
            np.testing.assert_array_equal(targets, kept[0])
            np.testing.assert_array_equal(normals, kept[1])

    def test_the_same_draws_give_the_same_bits(self) -> None:
        for law in self.laws:
            targets = np.tile(self.targets(), 100)
            np.testing.assert_array_equal(self._sampled(law, targets), self._sampled(law, targets))

    def test_float32_draws_give_the_same_values_in_float32(self) -> None:
        """Samplers work in float32: 4 roundings of 6e-8 of the largest value that meets."""
        for law in self.laws:
            targets = np.tile(self.targets(), 100)
            normals = np.random.default_rng(self.seed).standard_normal(targets.size).astype(np.float32)
            single = law.sample(targets, self.g_max_siemens, normals=normals)
            double = law.sample(targets, self.g_max_siemens, normals=normals.astype(np.float64))
            assert single.dtype == np.float32
            largest = self.g_max_siemens + np.abs(double).max()
            np.testing.assert_allclose(single, double, rtol=0.0, atol=4 * 6e-8 * largest)

    def test_a_precompensated_pair_has_the_mean_that_was_wanted(self) -> None:
        for law in self.laws:
            asked = law.precompensated(self.targets(), self.g_max_siemens)
            means = law.moments(asked, self.g_max_siemens).mean_siemens
            np.testing.assert_allclose(means - means[0], self.targets(), rtol=0.0, atol=1e-12 * self.g_max_siemens, err_msg=str(law))

    def test_the_deviation_scales_with_what_the_law_says(self) -> None:
        """Far above zero, where clipping does not reach: 1e3 and 2e3 times g_max. What goes with the state follows no power."""
        for law in (law for law in self.laws if law.scales_with() != "state"):
            low, high = law.moments(self.g_max_siemens * np.array([1e3, 2e3]), self.g_max_siemens).variance_siemens2
            ratio = {"nothing": 1.0, "target": 4.0}[law.scales_with()]
            np.testing.assert_allclose(high, ratio * low, rtol=1e-9, err_msg=str(law))

    def test_a_spec_holds_the_law_and_gives_it_back(self) -> None:
        if not self.registered:
            return
        base = Accelerator.preset("memse")
        for law in self.laws:
            written = replace(base, cell=replace(base.cell, **{self.field_name: law}))  # type: ignore[arg-type]
            assert getattr(Accelerator.from_text(written.to_toml()).cell, self.field_name) == law

    def _sampled(self, law: CellLaw, targets: Values) -> Values:
        normals = np.random.default_rng(self.seed).standard_normal(targets.shape)
        return law.sample(targets, self.g_max_siemens, normals=normals)
