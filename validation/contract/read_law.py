"""What every law of reads must keep."""

from dataclasses import replace
from typing import ClassVar

import numpy as np

from accelsim.accelerator import Accelerator
from devices.law import ReadLaw, Values


class ReadLawContract:
    """Subclass, and set `laws`: instances of the law at several parameter values."""

    laws: ClassVar[tuple[ReadLaw, ...]]
    g_max_siemens: ClassVar[float] = 25e-6
    registered: ClassVar[bool] = True

    def stored(self) -> Values:
        """Return the stored conductances that are tried."""
        return self.g_max_siemens * np.array([0.0, 1e-3, 0.03, 0.1, 0.5, 1.0])

    def test_the_variance_has_the_shape_of_the_stored_values_and_is_possible(self) -> None:
        for law in self.laws:
            for shape in ((6,), (2, 3), (1, 6, 1)):
                variance = law.variance_siemens2(self.stored().reshape(shape), self.g_max_siemens)
                assert variance.shape == shape
                assert np.all(np.isfinite(variance))
                assert np.all(variance >= 0.0)

    def test_arguments_are_left_as_they_are_and_answers_repeat(self) -> None:
        for law in self.laws:
            stored = self.stored()
            first = law.variance_siemens2(stored, self.g_max_siemens)
            np.testing.assert_array_equal(stored, self.stored())
            np.testing.assert_array_equal(law.variance_siemens2(stored, self.g_max_siemens), first)

    def test_the_variance_is_a_straight_line_in_the_square_of_the_stored_value(self) -> None:
        """v(G) = a + b G^2: predictors average it over programmings by E G^2 alone."""
        for law in self.laws:
            squares = np.linspace(0.0, self.g_max_siemens**2, 7)
            variance = law.variance_siemens2(np.sqrt(squares), self.g_max_siemens)
            np.testing.assert_allclose(np.diff(variance, 2), 0.0, atol=1e-12 * variance.max(), err_msg=str(law))

    def test_no_conductance_and_its_mirror_image_are_told_apart(self) -> None:
        """Only the size of a stored value counts: unclipped programmings may be negative."""
        for law in self.laws:
            ahead, behind = (law.variance_siemens2(sign * self.stored(), self.g_max_siemens) for sign in (1.0, -1.0))
            np.testing.assert_array_equal(ahead, behind, err_msg=str(law))

    def test_a_spec_holds_the_law_and_gives_it_back(self) -> None:
        if not self.registered:
            return
        base = Accelerator.preset("memse")
        for law in self.laws:
            written = replace(base, cell=replace(base.cell, read_noise=law))
            assert Accelerator.from_text(written.to_toml()).cell.read_noise == law
