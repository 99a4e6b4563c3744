"""What every operator on signals must keep: moments of samples, a staircase that never falls, pure functions, types kept."""

from typing import ClassVar

import numpy as np

from devices.law import SignalOperator, Values

N_SAMPLES = 100_000
N_EVENTS = 100
Z_LIMIT = 4.5
"""Some 500 z-scores an operator: the largest of as many normal numbers exceeds 4.5 once in 290; seeds are fixed."""
FLOAT32_ROUNDING = 6e-8


class SignalOperatorContract:
    """Subclass, and set `operators`; `low` and `high` are signals beyond both ends of what they tell apart.

    Signals are Gaussian with means from `low` to `high` and the standard deviations `stds_rel` of high - low.
    """

    operators: ClassVar[tuple[SignalOperator, ...]]
    low: ClassVar[float] = -1.3
    high: ClassVar[float] = 1.3
    stds_rel: ClassVar[tuple[float, ...]] = (1e-5, 1e-3, 0.02, 0.3, 3.0)
    seed: ClassVar[int] = 20_261_124

    def signals(self, n: int = 41) -> Values:
        """Return signals from `low` to `high`, and slightly beyond."""
        return np.linspace(self.low, self.high, n) + 1e-3 * (self.high - self.low) * np.sin(np.arange(n))

    def test_the_moments_are_those_of_samples(self) -> None:
        """Mean, variance and Stein's gain, the mean of (Q(z) - E Q)(z - m)/s^2."""
        draws = np.random.default_rng(self.seed).standard_normal(N_SAMPLES)
        for operator in self.operators:
            for std in (self.high - self.low) * np.array(self.stds_rel):
                means = self.signals(33)
                mean, variance, gain = operator.moments(means, np.full(33, std**2))
                for m, *predicted in zip(means, mean, variance, gain):
                    self._check_moments(operator, m, std, draws, tuple(float(p) for p in predicted))

    def _check_moments(self, operator: SignalOperator, m: float, std: float, draws: Values, predicted: tuple[float, ...]) -> None:
        mean, variance, gain = predicted
        y = operator.value(m + std * draws)
        where = f"{operator} at mean {m:g}, standard deviation {std:g}"
        usual = float(np.median(y))
        if np.count_nonzero(y != usual) < N_EVENTS:
            self._check_rare(operator, m, std, usual, predicted)
            return
        deviation = y - mean
        for name, samples, expected in (
            ("mean", deviation, 0.0), ("variance", deviation**2, variance), ("gain", deviation * draws / std, gain),
        ):  # fmt: skip
            z = (samples.mean() - expected) / (samples.std() / np.sqrt(N_SAMPLES))
            assert abs(z) < Z_LIMIT, f"{where}: the {name}, {expected:g}, is off by z = {z:.1f}"

    def _check_rare(self, operator: SignalOperator, m: float, std: float, usual: float, predicted: tuple[float, ...]) -> None:
        """Too few samples differ to compare with, so their predicted share is bounded: it reaches as far as the value in 8 deviations."""
        near = operator.value(np.array([m - 8.0 * std, m + 8.0 * std]))
        reach, share, allowed = float(near[1] - near[0]), 2.0 * N_EVENTS / N_SAMPLES, 1e-12 * (self.high - self.low)
        where = f"{operator} at mean {m:g}, standard deviation {std:g}: {predicted}"
        assert abs(predicted[0] - usual) <= share * reach + allowed, where
        assert 0.0 <= predicted[1] <= share * reach**2 + allowed * (self.high - self.low), where

    def test_the_value_never_falls(self) -> None:
        for operator in self.operators:
            assert np.all(np.diff(operator.value(np.sort(self.signals(20_001)))) >= 0.0), operator

    def test_without_variance_the_moments_are_the_value_and_its_slope(self) -> None:
        for operator in self.operators:
            signals = self.signals(1_001)
            mean, variance, gain = operator.moments(signals, np.zeros_like(signals))
            np.testing.assert_array_equal(mean, operator.value(signals), err_msg=str(operator))
            np.testing.assert_array_equal(variance, 0.0, err_msg=str(operator))
            np.testing.assert_array_equal(gain, operator.slope(signals), err_msg=str(operator))

    def test_the_answers_have_the_shape_of_the_signal_and_are_possible(self) -> None:
        for operator in self.operators:
            for shape in ((24,), (2, 12), (4, 1, 6), (0,), ()):
                signals = np.resize(self.signals(24), shape)
                assert operator.value(signals).shape == shape
                assert operator.slope(signals).shape == shape
                np.testing.assert_array_equal(operator.value(signals).ravel(), operator.value(signals.ravel()))
                for std in self.stds_rel:
                    moments = operator.moments(signals, np.full(shape, std**2))
                    for moment, flat in zip(moments, operator.moments(signals.ravel(), np.full(signals.size, std**2))):
                        assert moment.shape == shape
                        assert np.all(np.isfinite(moment))
                        np.testing.assert_array_equal(moment.ravel(), flat)
                    assert np.all(moments[1] >= 0.0)

    def test_arguments_are_left_as_they_are_and_answers_repeat(self) -> None:
        for operator in self.operators:
            signals, variance = self.signals(), np.full(41, 0.01)
            kept = signals.copy(), variance.copy()
            first = (operator.value(signals), operator.slope(signals), *operator.moments(signals, variance))
            again = (operator.value(signals), operator.slope(signals), *operator.moments(signals, variance))
            np.testing.assert_array_equal(signals, kept[0])
            np.testing.assert_array_equal(variance, kept[1])
            for a, b in zip(first, again):
                np.testing.assert_array_equal(a, b, err_msg=str(operator))
                assert not np.shares_memory(a, signals)

    def test_the_type_is_kept_and_float32_has_the_same_values(self) -> None:
        for operator in self.operators:
            single = self.signals(10_001).astype(np.float32)
            value, double = operator.value(single), operator.value(single.astype(np.float64))
            assert value.dtype == np.float32
            assert double.dtype == np.float64
            assert operator.slope(single).dtype == np.float32
            np.testing.assert_allclose(value, double, rtol=FLOAT32_ROUNDING, atol=1e-30, err_msg=str(operator))
