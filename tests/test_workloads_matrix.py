"""Matrix operators: gradients and activity against what linearity says, weight by weight."""

import numpy as np
import pytest

from workloads.kernels import ConvGeometry
from workloads.operators.matrix import Conv, ConvTranspose, MatrixOperator

N_IMAGES, N_CARRIED = 3, 2
RNG = np.random.default_rng(8)


def conv(groups: int, stride: int) -> Conv:
    geometry = ConvGeometry(in_shape=(4, 5, 6), n_out=4, kernel=(3, 2), stride=(stride, 1), pads=(1, 0, 1, 1), groups=groups)
    return Conv(RNG.normal(size=geometry.weight_shape).astype(np.float32), None, geometry)


def transposed(groups: int, stride: int) -> ConvTranspose:
    """From 4 channels of 3x4 up to 6 channels: the adjoint of a convolution from those to these."""
    geometry = ConvGeometry(in_shape=(6, 3 * stride, 4), n_out=4, kernel=(stride, 1), stride=(stride, 1), groups=groups)
    return ConvTranspose(RNG.normal(size=(6, 4 // groups, stride, 1)).astype(np.float32), None, geometry)


OPERATORS = [conv(1, 1), conv(2, 2), conv(4, 1), transposed(1, 2), transposed(2, 2)]
IDS = ["conv", "grouped strided conv", "depthwise conv", "transposed conv", "grouped transposed conv"]


def in_shape(operator: MatrixOperator) -> tuple[int, ...]:
    assert isinstance(operator, Conv | ConvTranspose)
    return operator.geometry.in_shape if isinstance(operator, Conv) else operator.geometry.out_shape


def gradients(operator: MatrixOperator, x: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Return `d <delta, W x> / dW` by weight and lane: the product is linear in the weights, so unit weights give it."""
    out = []
    for index in range(operator.weights.size):
        unit = np.zeros(operator.weights.size, np.float32)
        unit[index] = 1.0
        y = operator.multiply(unit.reshape(operator.weights.shape), x)
        out.append((np.tile(y, N_CARRIED) * delta).reshape(-1, N_CARRIED * N_IMAGES).sum(axis=0))
    return np.array(out)


@pytest.mark.parametrize("operator", OPERATORS, ids=IDS)
def test_gradient_moments_are_those_of_the_gradient_of_each_weight(operator: MatrixOperator) -> None:
    x = RNG.normal(size=(*in_shape(operator), N_IMAGES)).astype(np.float32)
    y_shape = operator.multiply(operator.weights, x).shape[:-1]
    delta = RNG.normal(size=(*y_shape, N_CARRIED * N_IMAGES)).astype(np.float32)
    variance = RNG.uniform(0.1, 1.0, operator.weights.shape).astype(np.float32)
    errors = RNG.normal(size=(2, operator.weights.size)).astype(np.float32)
    found = operator.gradient_moments(delta, x, variance, covariance=True, directions=errors)
    g, v = gradients(operator, x, delta), variance.ravel()
    split = g.reshape(len(g), N_CARRIED, N_IMAGES)
    np.testing.assert_allclose(found.power.ravel(), (g**2).sum(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.lane_power, v @ g**2, rtol=1e-4)
    np.testing.assert_allclose(found.covariance, np.einsum("w,wrb,wsb->rsb", v, split, split), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(found.sketch, errors @ g, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("operator", OPERATORS[:3], ids=IDS[:3])
def test_activity_is_the_squared_input_under_each_weight_summed_over_positions(operator: MatrixOperator) -> None:
    x = RNG.normal(size=(*in_shape(operator), N_IMAGES)).astype(np.float32)
    expected = []
    for index in range(operator.weights.size):
        unit = np.zeros(operator.weights.size, np.float32)
        unit[index] = 1.0
        expected.append(operator.multiply(unit.reshape(operator.weights.shape), x * x).sum() / N_IMAGES)
    np.testing.assert_allclose(operator.row_activity(x).ravel(), expected, rtol=1e-5)


def test_a_transposed_convolution_drives_each_row_once_an_input_position() -> None:
    operator = transposed(2, 2)
    x = RNG.normal(size=(*in_shape(operator), N_IMAGES)).astype(np.float32)
    by_channel = (x.astype(np.float64) ** 2).sum(axis=(1, 2)).mean(axis=-1)
    activity = operator.row_activity(x)
    for o in range(6):
        channels = slice(0, 2) if o < 3 else slice(2, 4)
        np.testing.assert_allclose(activity[o, :, 0, 0], by_channel[channels], rtol=1e-6)


@pytest.mark.parametrize("operator", OPERATORS, ids=IDS)
def test_products_are_each_others_transpose(operator: MatrixOperator) -> None:
    x = RNG.normal(size=(*in_shape(operator), N_IMAGES)).astype(np.float64)
    y = operator.multiply(operator.weights, x)
    delta = RNG.normal(size=y.shape)
    assert np.sum(y * delta) == pytest.approx(np.sum(x * operator.multiply_transposed(operator.weights, delta)), rel=1e-10)
