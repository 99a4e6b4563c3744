"""The network that peers are compared on most: LeNet-5's layers on 28x28, random He weights. Its speed does not depend on training."""

import numpy as np

from workloads.kernels import ConvGeometry
from workloads.network import INPUT, Network, Node, digest_of
from workloads.operators.base import Operator
from workloads.operators.matrix import Conv
from workloads.operators.piecewise import Relu
from workloads.operators.pooling import MaxPool, Window
from workloads.operators.reshape import Reshape

INPUT_SHAPE = (1, 28, 28)
SEED = 5


def lenet() -> Network:
    """Return conv 6 5x5 - pool - conv 16 5x5 - pool - 120 - 84 - 10, with ReLUs: 61,470 weights, 0.4 M multiply-adds an image."""
    random = np.random.default_rng(SEED)
    steps = (
        ("conv1", _layer(random, (1, 28, 28), 6, kernel=5, pad=2)), ("relu1", Relu()), ("pool1", _halved(28)),
        ("conv2", _layer(random, (6, 14, 14), 16, kernel=5)), ("relu2", Relu()), ("pool2", _halved(10)), ("flatten", Reshape((400,))),
        ("fc1", _layer(random, (400, 1, 1), 120)), ("relu3", Relu()),
        ("fc2", _layer(random, (120, 1, 1), 84)), ("relu4", Relu()),
        ("fc3", _layer(random, (84, 1, 1), 10)),
    )  # fmt: skip
    nodes: list[Node] = []
    for i, (name, operator) in enumerate(steps):
        shape = operator.out_shape(nodes[-1].shape if nodes else INPUT_SHAPE)
        nodes.append(Node(name=name, operator=operator, inputs=(i - 1 if i else INPUT,), shape=shape))
    return Network(
        name="lenet", digest=digest_of("lenet", str(SEED)), input_shape=INPUT_SHAPE, nodes=tuple(nodes), output=len(nodes) - 1
    )


def _layer(random: np.random.Generator, in_shape: tuple[int, int, int], n_out: int, *, kernel: int | None = None, pad: int = 0) -> Operator:
    """Return a convolution, or without `kernel` a fully connected layer."""
    geometry = ConvGeometry(in_shape=in_shape, n_out=n_out, kernel=(kernel or 1, kernel or 1), pads=(pad, pad, pad, pad))
    weights = random.standard_normal(geometry.weight_shape) * np.sqrt(2.0 / geometry.n_rows)
    return Conv(weights.astype(np.float32), np.zeros(n_out, np.float32), geometry, 0 if kernel is None else 2)


def _halved(size: int) -> Operator:
    """Return a max-pool by 2."""
    return MaxPool(Window(in_size=(size, size), out_size=(size // 2, size // 2), kernel=(2, 2), stride=(2, 2)))
