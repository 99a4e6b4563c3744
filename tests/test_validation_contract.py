"""Every law and operator that ships keeps the contract that outsiders' must keep; ones that are wrong do not."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import pytest

from devices.ageing import AGEING_LAWS
from devices.base.errors import SpecError
from devices.cells import PROGRAMMING_LAWS
from devices.drift import LogarithmicDrift, PiecewiseDrift, PowerLawDrift
from devices.law import CellMoments, ReadLaw, Values
from devices.levels import LevelError
from devices.low_frequency_noise import LOW_FREQUENCY_LAWS, LogarithmicOneOverF, OneOverF, PiecewiseOneOverF
from devices.programming import ProportionalError, StateIndependentError
from devices.read_noise import READ_LAWS, ProportionalReadNoise, SaturatingReadNoise, StateIndependentReadNoise
from devices.relaxation import LogarithmicRelaxation
from devices.state_dependent import InverseProportionalError, PolynomialError, SaturatingError, TabulatedError
from tests.test_devices_ageing import retention
from validation.contract import CellLawContract, OperatorContract, ReadLawContract, Subject
from workloads.kernels import ConvGeometry
from workloads.operators.activation import Elementwise
from workloads.operators.base import Array, GaussianStep, LocalMap, Slopes
from workloads.operators.matrix import Conv, ConvTranspose
from workloads.operators.merge import Add, Affine, Concat, Mul
from workloads.operators.normalization import LRN, LogSoftmax, Softmax, Standardize
from workloads.operators.piecewise import Abs, Clip, HardSigmoid, LeakyRelu, PRelu, Relu
from workloads.operators.pooling import AveragePool, MaxPool, Window
from workloads.operators.reduce import ReduceMax, ReduceMean, ReduceSum
from workloads.operators.reshape import Gather, Pad, Reshape, Slice, Transpose
from workloads.operators.smooth import Elu, Gelu, HardSwish, Mish, Sigmoid, SiLU, Softplus, Tanh

ERRORS = (0.0, 0.002, 0.03, 0.3)


class TestStateIndependentError(CellLawContract):
    laws = tuple(StateIndependentError(error_rel=e, clip=c) for e in ERRORS for c in (True, False))


class TestProportionalError(CellLawContract):
    """At an error of 0.3 of the state the clipped mass is Phi(-3.3)."""

    laws = tuple(ProportionalError(error_rel=e, clip=c) for e in ERRORS for c in (True, False))


MICRO = 1e-6


class TestPolynomialError(CellLawContract):
    """Published fits among them: `pcm_nandakumar`, and `rram_wan_a`, whose error at the top is a third of that in the middle."""

    laws = tuple(
        PolynomialError(coefficients_siemens=tuple(MICRO * v for v in c), over_siemens=over * MICRO, clip=clip)
        for c, over in (
            ((0.26348, 1.9650, -1.1731), 25), ((0.348, 16.030, -43.853, 45.393, -16.815), 40), ((0.0,), 1), ((0.1, -1.0), 25),
        )
        for clip in (True, False)
    )  # fmt: skip


class TestTabulatedError(CellLawContract):
    laws = tuple(
        TabulatedError(points_siemens=(0.0, 5e-6, 20e-6), stds_siemens=(0.1e-6, 2e-6, 0.5e-6), clip=c) for c in (True, False)
    )


class TestSaturatingError(CellLawContract):
    laws = tuple(SaturatingError(top_siemens=t, knee_siemens=3e-6, clip=c) for t in (0.0, 1e-6) for c in (True, False))


class TestLevelError(CellLawContract):
    """Targets are moved to levels: no precompensation."""

    laws = tuple(LevelError(means_rel=(0.0, 0.2, 0.6, 1.0), stds_rel=(0.01, 0.03, 0.02, 0.005), clip=c) for c in (True, False))

    def test_arguments_are_left_as_they_are(self) -> None:
        targets, normals = self.targets(), np.zeros(9)
        self.laws[0].moments(targets, self.g_max_siemens)
        self.laws[0].sample(targets, self.g_max_siemens, normals=normals)
        np.testing.assert_array_equal(targets, self.targets())
        np.testing.assert_array_equal(normals, 0.0)

    def test_a_precompensated_pair_has_the_mean_that_was_wanted(self) -> None:
        with pytest.raises(SpecError, match="levels cannot be moved"):
            self.laws[0].precompensated(self.targets(), self.g_max_siemens)


class TestInverseProportionalError(CellLawContract):
    """Not at zero, where it has no bounds, and with no precompensation, which needs zero."""

    laws = tuple(InverseProportionalError(error_rel=e, clip=c) for e in (0.0, 0.002, 0.03) for c in (True, False))

    def targets(self) -> Values:
        return self.g_max_siemens * np.array([0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.0])

    def test_arguments_are_left_as_they_are(self) -> None:
        targets = self.targets()
        self.laws[-1].moments(targets, self.g_max_siemens)
        np.testing.assert_array_equal(targets, self.targets())

    def test_a_precompensated_pair_has_the_mean_that_was_wanted(self) -> None:
        with pytest.raises(SpecError, match=r"mapping\.precompensate: inverse_proportional"):
            self.laws[-1].precompensated(self.targets(), self.g_max_siemens)


class TestPowerLawDrift(CellLawContract):
    """Exponents that are certain, spread, and folded at zero; no time, a day and ten years."""

    registered = False  # as cell.drift: see test_devices_drift
    laws = tuple(
        PowerLawDrift(nu_mean=mean, nu_std=std, t0_s=20.0, t_s=t)
        for mean, std in ((0.05, 0.0), (0.06, 0.02), (0.01, 0.03)) for t in (0.0, 86400.0, 3.2e8)
    )  # fmt: skip


class TestLogarithmicDrift(CellLawContract):
    registered = False
    laws = tuple(
        LogarithmicDrift(over_siemens=25e-6, mean_slope=-0.0155, mean_offset=0.0244, mean_low=0.049, mean_high=0.1, std_slope=-0.0125,
                         std_offset=-0.0059, std_low=0.008, std_high=0.045, t0_s=20.0, t_s=t)
        for t in (0.0, 3600.0, 3.2e7)
    )  # fmt: skip


class TestLogarithmicRelaxation(CellLawContract):
    """Limits that many cells meet, at both ends, and none; a second, an hour, ten years."""

    field_name = "drift"
    laws = tuple(
        LogarithmicRelaxation(shift_siemens=-0.09 * MICRO, spread_siemens=0.41 * MICRO, widening_siemens=0.042 * MICRO,
                              low_siemens=low * MICRO, high_siemens=high, t_s=t)
        for low, high in ((0.0, None), (0.3, 24.9e-6)) for t in (1.0, 3600.0, 3.2e8)
    )  # fmt: skip

    def test_a_precompensated_pair_has_the_mean_that_was_wanted(self) -> None:
        with pytest.raises(SpecError, match="made for errors of writing"):
            self.laws[0].precompensated(self.targets(), self.g_max_siemens)

    def test_arguments_are_left_as_they_are(self) -> None:
        targets, normals = self.targets(), np.zeros(9)
        self.laws[0].moments(targets, self.g_max_siemens)
        self.laws[0].sample(targets, self.g_max_siemens, normals=normals)
        np.testing.assert_array_equal(targets, self.targets())
        np.testing.assert_array_equal(normals, 0.0)


class TestRetentionTable(CellLawContract):
    """Published polynomials, on a day that was measured and between two."""

    field_name = "drift"
    g_max_siemens = 28.571428571428573e-6
    laws = tuple(replace(retention(), t_s=t) for t in (0.0, 86_400.0, 3.3 * 86_400.0))

    def test_a_precompensated_pair_has_the_mean_that_was_wanted(self) -> None:
        TestLogarithmicRelaxation.test_a_precompensated_pair_has_the_mean_that_was_wanted(self)  # type: ignore[arg-type]

    def test_arguments_are_left_as_they_are(self) -> None:
        TestLogarithmicRelaxation.test_arguments_are_left_as_they_are(self)  # type: ignore[arg-type]


class TestLogarithmicOneOverF(CellLawContract):
    field_name = "low_frequency_noise"
    laws = tuple(
        LogarithmicOneOverF(scale_siemens=scale, over_siemens=MICRO, t_read_s=1e-6, t_s=t)
        for scale in (0.028e-6, 0.5e-6)
        for t in (0.0, 3600.0)
    )


class TestSaturatingReadNoise(ReadLawContract):
    """Not a straight line in the square of what is stored: its mean over programmings is a law of its own."""

    laws = tuple(SaturatingReadNoise(top_siemens=top, knee_siemens=4e-6) for top in (0.0, 0.2e-6))

    def test_the_variance_is_a_straight_line_in_the_square_of_the_stored_value(self) -> None:
        with pytest.raises(AssertionError):
            super().test_the_variance_is_a_straight_line_in_the_square_of_the_stored_value()

    def test_the_mean_over_programmings_is_that_of_samples(self) -> None:
        """Cells of mean and spread alike, around the knee; at the root of E G^2 (the control) it would be 5 standard errors off."""
        law, random = self.laws[1], np.random.default_rng(7)
        for mean, std in ((1e-6, 0.2e-6), (4e-6, 1e-6), (20e-6, 3e-6)):
            seen = law.variance_siemens2(np.maximum(mean + std * random.standard_normal(400_000), 0.0), 25e-6)
            error = seen.std() / np.sqrt(seen.size)
            found = law.mean_variance_siemens2(np.full(1, mean), np.full(1, std**2), 25e-6)[0]
            assert abs(found - seen.mean()) < 4.0 * error
            if mean == 4e-6:
                assert abs(ReadLaw.mean_variance_siemens2(law, np.full(1, mean), np.full(1, std**2), 25e-6)[0] - seen.mean()) > 5.0 * error


class TestStateIndependentReadNoise(ReadLawContract):
    laws = tuple(StateIndependentReadNoise(error_rel=e) for e in ERRORS)


class TestProportionalReadNoise(ReadLawContract):
    laws = tuple(ProportionalReadNoise(error_rel=e) for e in ERRORS)


RANDOM = np.random.default_rng(3)


def conv(spatial: int = 2, *, bias: bool = True, **geometry: object) -> Conv:
    shape = ConvGeometry(**geometry)  # type: ignore[arg-type]
    return Conv(RANDOM.normal(size=shape.weight_shape) / 2, RANDOM.normal(size=shape.n_out) if bias else None, shape, spatial)


def transposed() -> ConvTranspose:
    """From (4, 3, 3) to (6, 6, 6), stride 2, two groups: the adjoint of a convolution from 6 channels to 4."""
    shape = ConvGeometry(in_shape=(6, 6, 6), n_out=4, kernel=(2, 2), stride=(2, 2), groups=2)
    return ConvTranspose(RANDOM.normal(size=(6, 2, 2, 2)), RANDOM.normal(size=6), shape)


class TestMatrices(OperatorContract):
    subjects = (
        Subject(conv(spatial=0, in_shape=(7, 1, 1), n_out=4), ((7,),)),
        Subject(conv(in_shape=(2, 5, 4), n_out=3, kernel=(3, 3), pads=(1, 1, 1, 1)), ((2, 5, 4),)),
        Subject(conv(in_shape=(4, 6, 5), n_out=6, kernel=(3, 2), stride=(2, 1), pads=(1, 0, 0, 2), groups=2, bias=False), ((4, 6, 5),)),
        Subject(conv(in_shape=(3, 7, 7), n_out=3, kernel=(3, 3), dilation=(2, 2), groups=3), ((3, 7, 7),)),
        Subject(conv(spatial=1, in_shape=(2, 1, 9), n_out=3, kernel=(1, 3), stride=(1, 2)), ((2, 9),)),
        Subject(transposed(), ((4, 3, 3),)),
    )


class TestActivations(OperatorContract):
    """Gauss-Hermite with 24 nodes holds 2e-3 of the spread for smooth functions (tests/test_workloads_operators.py)."""

    subjects = (
        *(Subject(op, ((3, 4),)) for op in (Relu(), LeakyRelu(0.1), Clip(0.0, 6.0), Clip(-1.0, 0.5), HardSigmoid(), Abs())),
        Subject(PRelu(RANDOM.random((3, 1))), ((3, 4),)),
        *(Subject(op, ((3, 4),), 2e-3) for op in (Sigmoid(), Tanh(), Gelu(), SiLU(), Softplus(), Elu(), HardSwish(), Mish())),
    )


PAIRS = Window(in_size=(4, 4), out_size=(4, 2), kernel=(1, 2), stride=(1, 2))
SQUARES = Window(in_size=(5, 5), out_size=(3, 3), kernel=(3, 3), stride=(2, 2), pads=(1, 1, 1, 1))


class TestPoolingMergingAndMoving(OperatorContract):
    """Clark is exact for the larger of two; beyond it treats the winner as Gaussian: measured within 6 % of the spread for nine."""

    subjects = (
        Subject(MaxPool(PAIRS), ((2, 4, 4),)),
        Subject(MaxPool(SQUARES), ((2, 5, 5),), 0.06),
        Subject(ReduceMax((1, 2)), ((2, 2, 3),), 0.06),
        Subject(AveragePool(SQUARES), ((2, 5, 5),)),
        Subject(AveragePool(SQUARES, include_pad=True), ((2, 5, 5),)),
        Subject(Add((1.0, -1.0)), ((3, 4), (3, 1))),
        Subject(Mul(), ((3, 4), (3, 4))),
        Subject(Affine(RANDOM.normal(size=(3, 1)), RANDOM.normal(size=(4,))), ((3, 4),)),
        Subject(Concat(1, (4, 2)), ((3, 4), (3, 2))),
        Subject(Reshape((2, 6)), ((3, 4),)),
        Subject(Transpose((1, 0)), ((3, 4),)),
        Subject(Slice((slice(None), slice(1, None, 2))), ((3, 5),)),
        Subject(Gather(1, np.array([2, 0, 0, 1])), ((3, 4),)),
        Subject(Pad(((1, 0), (2, 1)), 0.5), ((3, 4),)),
        Subject(ReduceSum((0,)), ((2, 3),)),
        Subject(ReduceMean((1,)), ((2, 3),)),
    )


class TestNormalizations(OperatorContract):
    """No closed form: their Gaussian rule averages over the tangents it is given, so only maps are tested."""

    subjects = (
        Subject(Softmax((0,)), ((4, 3),), None),
        Subject(LogSoftmax((1,)), ((4, 3),), None),
        Subject(Standardize((0, 1), 1e-3, RANDOM.normal(size=(3, 4)), RANDOM.normal(size=(3, 4))), ((3, 4),), None),
        Subject(LRN(3, 0.2, 0.75, 1.0), ((5, 2),), None),
    )


def test_every_registered_law_is_under_contract() -> None:
    tested = {type(law) for test in CellLawContract.__subclasses__() for law in test.laws}
    assert set(PROGRAMMING_LAWS.values()) <= tested
    assert set(READ_LAWS.values()) == {type(law) for test in ReadLawContract.__subclasses__() if test.registered for law in test.laws}
    elsewhere = {PiecewiseDrift, OneOverF, PiecewiseOneOverF}  # subclasses of other files count where those were imported
    assert {*AGEING_LAWS.values(), *LOW_FREQUENCY_LAWS.values()} - tested <= elsewhere


# Negative controls: laws and operators that are wrong, each in one way.


@dataclass(frozen=True, slots=True, kw_only=True)
class Unclipped(StateIndependentError):
    """Samples clip, moments do not know."""

    def moments(self, target_siemens: Values, g_max_siemens: float) -> CellMoments:
        std = StateIndependentError.std_siemens(self, target_siemens, g_max_siemens)
        return CellMoments(mean_siemens=target_siemens, variance_siemens2=std**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoPercentTooSmall(StateIndependentError):
    """The variance is 2 % low: 6 standard errors of 2e5 samples."""

    def moments(self, target_siemens: Values, g_max_siemens: float) -> CellMoments:
        right = StateIndependentError.moments(self, target_siemens, g_max_siemens)
        return CellMoments(mean_siemens=right.mean_siemens, variance_siemens2=0.98 * right.variance_siemens2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scribbler(StateIndependentError):
    """Writes into the targets it is given."""

    def sample(self, target_siemens: Values, g_max_siemens: float, *, normals: Values) -> Values:
        target_siemens += self.error_rel * g_max_siemens * normals
        return np.maximum(target_siemens, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearReadNoise(ReadLaw):
    """A variance proportional to the conductance: not a straight line in its square."""

    kind: ClassVar[str] = "shot"
    cause: ClassVar[str] = "read_noise"
    error_rel: float

    def scaled(self, factor: float) -> "LinearReadNoise":
        return LinearReadNoise(error_rel=factor * self.error_rel)

    def variance_siemens2(self, stored_siemens: Values, g_max_siemens: float) -> Values:
        return self.error_rel**2 * g_max_siemens * np.abs(stored_siemens)


class HardStep(Relu):
    """A ReLU whose Gaussian moments forget the spread."""

    __slots__ = ()

    def moments(self, mean: Array, variance: Array) -> tuple[Array, Array, Array]:
        on = (mean > 0).astype(mean.dtype)
        return np.maximum(mean, 0), variance * on, on


class PulledWrong(Relu):
    """A ReLU whose Gaussian gain is of half the slope backwards."""

    __slots__ = ()

    def over_gaussian(self, means: tuple[Array, ...], variances: tuple[Array, ...], tangents: tuple[Array, ...]) -> GaussianStep:
        mean, variance, gain = self.moments(means[0], variances[0])
        return GaussianStep(mean=mean, variance=variance, gain=_Halved(gain))


class _Halved(Slopes):
    __slots__ = ()

    def pull(self, delta: Array) -> tuple[Array | None, ...]:
        (pulled,) = Slopes.pull(self, delta)
        return (0.5 * pulled,)  # type: ignore[operator]


class SteepRelu(Relu):
    """A ReLU whose slope is a tenth too large."""

    __slots__ = ()

    def linearize(self, inputs: tuple[Array, ...], output: Array) -> LocalMap:
        return Slopes(1.1 * self.slope(inputs[0]))


def contract_of(law: StateIndependentError) -> CellLawContract:
    contract = CellLawContract()
    contract.laws = (law,)  # type: ignore[misc]
    contract.registered = False  # type: ignore[misc]
    return contract


def operator_contract(operator: Elementwise) -> OperatorContract:
    contract = OperatorContract()
    contract.subjects = (Subject(operator, ((3, 4),)),)  # type: ignore[misc]
    return contract


@pytest.mark.parametrize("law", [Unclipped(error_rel=0.03), TwoPercentTooSmall(error_rel=0.03)], ids=lambda law: type(law).__name__)
def test_a_law_with_wrong_moments_fails(law: StateIndependentError) -> None:
    with pytest.raises(AssertionError, match="is off by z"):
        contract_of(law).test_the_moments_are_those_of_samples()


def test_a_law_that_writes_into_its_arguments_fails() -> None:
    with pytest.raises(AssertionError):
        contract_of(Scribbler(error_rel=0.03)).test_arguments_are_left_as_they_are()


def test_a_law_that_does_not_precompensate_fails() -> None:
    with pytest.raises(AssertionError, match="Uncompensated"):
        contract_of(Uncompensated(error_rel=0.03)).test_a_precompensated_pair_has_the_mean_that_was_wanted()


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncompensated(StateIndependentError):
    """Asks for what is wanted, whatever clipping makes of it."""

    def precompensated(self, target_siemens: Values, g_max_siemens: float) -> Values:
        return target_siemens


def test_a_read_law_that_predictors_cannot_average_fails() -> None:
    contract = ReadLawContract()
    contract.laws = (LinearReadNoise(error_rel=0.01),)  # type: ignore[misc]
    with pytest.raises(AssertionError):
        contract.test_the_variance_is_a_straight_line_in_the_square_of_the_stored_value()


def test_operators_with_a_wrong_rule_fail() -> None:
    with pytest.raises(AssertionError, match="is off by z"):
        operator_contract(HardStep()).test_gaussian_moments_and_gain_are_those_of_samples()
    with pytest.raises(AssertionError, match="PulledWrong"):
        operator_contract(PulledWrong()).test_the_gain_over_a_gaussian_is_adjoint_too()
    with pytest.raises(AssertionError, match="SteepRelu"):
        operator_contract(SteepRelu()).test_the_push_is_the_finite_difference()
