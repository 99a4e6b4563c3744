"""A prepared network runs to the bits of the walk over its graph, whatever is fused, shared or left to the operators."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from tests.digits import digits_network
from validation.networks import DataMissingError, network_and_samples
from workloads.kernels import ConvGeometry, conv
from workloads.network import INPUT, Network, Node, NodeIndex, to_lanes
from workloads.operators.base import Array, Operator
from workloads.operators.matrix import Conv, MatrixOperator
from workloads.operators.merge import Add
from workloads.operators.piecewise import Abs, Clip, Relu
from workloads.operators.pooling import AveragePool, MaxPool, Window
from workloads.operators.reshape import Reshape
from workloads.program import Program
from workloads.walk import run

Weights = dict[NodeIndex, Array]


def renewed(network: Network, seed: int) -> tuple[Weights, Weights]:
    """Return other weights, and for every second layer other biases."""
    random = np.random.default_rng(seed)
    weights, biases = {}, {}
    for count, (i, node) in enumerate(network.matrix_layers()):
        assert isinstance(node.operator, MatrixOperator)
        noise = 0.1 * random.standard_normal(node.operator.weights.shape)
        weights[i] = (node.operator.weights * (1.0 + noise)).astype(np.float32)
        if count % 2:
            biases[i] = random.standard_normal(node.operator.n_columns).astype(np.float32)
    return weights, biases


def walked(network: Network, images: Array, weights: Weights, biases: Weights) -> Array:
    def apply(i: NodeIndex, inputs: tuple[Array, ...]) -> Array:
        operator = network.nodes[i].operator
        if not isinstance(operator, MatrixOperator):
            return operator.forward(*inputs)
        y = operator.multiply(weights[i], inputs[0])
        if i not in biases:
            return operator.with_bias(y)
        y += biases[i].reshape(-1, *(1,) * (y.ndim - 1))
        return y

    return run(network, images, apply=apply)


def check(network: Network, images: Array) -> None:
    program = Program(network, images.shape[-1])
    for seed in (1, 2):  # the second run finds the memory as the first one left it
        weights, biases = renewed(network, seed)
        np.testing.assert_array_equal(program.run(images, weights, biases), walked(network, images, weights, biases))


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet", "maxpool"])
@pytest.mark.parametrize("n_images", [1, 5, 64])
def test_the_digits_networks(name: str, n_images: int) -> None:
    network = digits_network(name)
    check(network, np.random.default_rng(0).standard_normal((*network.input_shape, n_images)).astype(np.float32))


@pytest.mark.parametrize("name", ["fashion_cnn", "fashion_resnet", "resnet8_cifar10", "resnet20_cifar10", "em_unet", "mobilenet_v2"])
def test_trained_networks(name: str) -> None:
    try:
        network, samples = network_and_samples(name, 2)
    except DataMissingError as error:
        pytest.skip(str(error))
    check(network, to_lanes(samples.x))


def graph(in_shape: tuple[int, ...], *steps: tuple[Operator, tuple[int, ...]]) -> Network:
    """Return the network of (operator, inputs), the last node being the output."""
    nodes: list[Node] = []
    for operator, inputs in steps:
        shapes = [in_shape if j == INPUT else nodes[j].shape for j in inputs]
        nodes.append(Node(name=f"n{len(nodes)}", operator=operator, inputs=inputs, shape=operator.out_shape(*shapes)))
    return Network(name="made", digest="", input_shape=in_shape, nodes=tuple(nodes), output=len(nodes) - 1)


def layer(n_in: int, n_out: int, size: int = 6, *, bias: bool = True) -> Conv:
    geometry = ConvGeometry(in_shape=(n_in, size, size), n_out=n_out, kernel=(3, 3), pads=(1, 1, 1, 1))
    random = np.random.default_rng(n_out)
    weights = random.standard_normal(geometry.weight_shape).astype(np.float32)
    return Conv(weights, random.standard_normal(n_out).astype(np.float32) if bias else None, geometry, 2)


POOLED = Window(in_size=(6, 6), out_size=(4, 3), kernel=(3, 2), stride=(2, 2), dilation=(1, 2), pads=(1, 1, 2, 1))
SHAPE = (3, 6, 6)
MADE = {
    "a value with two readers is not fused": graph(SHAPE, (layer(3, 5), (INPUT,)), (Relu(), (0,)), (Abs(), (0,)), (Add(), (1, 2))),
    "a sum of one value with itself": graph(SHAPE, (layer(3, 5), (INPUT,)), (Add(), (0, 0)), (Relu(), (1,))),
    "a difference": graph(SHAPE, (layer(3, 3), (INPUT,)), (Add((1.0, -1.0)), (0, INPUT)), (Relu(), (1,))),
    "a broadcast sum": graph(
        SHAPE, (layer(3, 5), (INPUT,)), (layer(3, 1, bias=False), (INPUT,)), (Add(), (0, 1)), (Clip(-0.5, None), (2,))
    ),
    "bounds of all kinds": graph(
        SHAPE, (layer(3, 5), (INPUT,)), (Clip(0.0, 6.0), (0,)), (layer(5, 4), (1,)), (Clip(None, 1.0), (2,)), (Clip(0.25, None), (3,))
    ),
    "pooling with padding and dilation": graph(SHAPE, (layer(3, 5), (INPUT,)), (MaxPool(POOLED), (0,)), (AveragePool(POOLED), (0,)),
                                               (Add(), (1, 2))),
    "a reshaped input, and a reshaped value that is read on": graph(
        (3, 36), (Reshape(SHAPE), (INPUT,)), (layer(3, 5), (0,)), (Reshape((180,)), (1,)), (Relu(), (1,)), (Reshape((180,)), (3,)),
        (Add(), (2, 4))
    ),
    "an output that others read, too": replace(
        graph(SHAPE, (layer(3, 3), (INPUT,)), (Relu(), (0,)), (layer(3, 2), (1,))), output=0
    ),
    "the input is the only source of a sum": graph(SHAPE, (Add(), (INPUT, INPUT)), (layer(3, 2), (0,))),
}  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_made_networks(name: str) -> None:
    network = MADE[name]
    check(network, np.random.default_rng(1).standard_normal((*network.input_shape, 17)).astype(np.float32))


def test_what_is_not_a_number_comes_through() -> None:
    """Through fused bounds, sums and pooling, as in the walk."""
    network = MADE["bounds of all kinds"]
    images = np.zeros((*SHAPE, 16), np.float32)
    images[1, 2, 3, 4] = np.nan
    check(network, images)
    pooled = MADE["pooling with padding and dilation"]
    check(pooled, images)
    assert np.isnan(Program(network, 16).run(images, *renewed(network, 1))).any()


def test_threads_do_not_share_memory() -> None:
    network = digits_network("resnet")
    images = np.random.default_rng(0).standard_normal((*network.input_shape, 32)).astype(np.float32)
    program = Program(network, 32)
    given = [renewed(network, seed) for seed in range(24)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda g: program.run(images, *g).copy(), given))
    for output, (weights, biases) in zip(found, given):
        np.testing.assert_array_equal(output, walked(network, images, weights, biases))


@pytest.mark.parametrize("n_out", [1, 3, 5, 6, 7, 13, 16])
@pytest.mark.parametrize("lanes", [7, 64])
def test_bias_and_bounds_in_the_kernel_are_those_after_it(n_out: int, lanes: int) -> None:
    g = ConvGeometry(in_shape=(2, 5, 6), n_out=n_out, kernel=(3, 3), pads=(4, 1, 1, 0))  # some places see no tap
    random = np.random.default_rng(n_out)
    x, w = (random.standard_normal((*s,)).astype(np.float32) for s in ((2, 5, 6, lanes), g.weight_shape))
    bias = random.standard_normal(n_out).astype(np.float32)
    expected = np.clip(conv(x, w, g) + bias[:, None, None, None], -0.5, 0.75)
    np.testing.assert_array_equal(conv(x, w, g, bias=bias, bounds=(-0.5, 0.75)), expected)
