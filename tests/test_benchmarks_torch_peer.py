"""The PyTorch peer computes our networks and programs their weights by the same law, or its times would compare nothing."""

import numpy as np
import pytest

from accelsim.response.target import graph_to_output
from benchmarks.samplers import known_network, placed
from benchmarks.torch_peer import FORMATS, TorchTrials
from validation.networks import DataMissingError
from workloads.network import Network
from workloads.samples import Samples
from workloads.walk import evaluate

pytest.importorskip("torch")
pytestmark = pytest.mark.extras
NETWORKS = ("lenet", "fashion_cnn", "fashion_resnet", "resnet8_cifar10", "resnet20_cifar10", "digit_cnn")
N_PROGRAMMINGS, ERROR_REL = 400, 0.02


def known(name: str, n_images: int) -> tuple[Network, Samples]:
    try:
        network, samples = known_network(name, n_images)
    except DataMissingError as error:
        pytest.skip(str(error))
    return graph_to_output(network, None), samples


@pytest.mark.parametrize("tuned", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_peer_has_our_outputs_in_every_memory_format(name: str, tuned: bool) -> None:
    network, samples = known(name, 8)
    wanted = evaluate(network, samples.x)
    peer = TorchTrials(network, samples.x, error_rel=ERROR_REL, clip=True, seed=1, tuned=tuned)
    for images_last, weights_last in FORMATS:
        peer.set_format(images_last, weights_last)
        assert np.abs(peer.clean.numpy() - wanted).max() <= 1e-4 * np.abs(wanted).max()
        again = peer.outputs(peer.weights)  # nothing that stays was overwritten in place
        assert np.abs(again.numpy() - wanted).max() <= 1e-4 * np.abs(wanted).max()


def moments_z(*, peer_clips: bool, ours_clips: bool) -> float:
    """Return the largest of two z-scores: mean and mean square of the peer's weights, summed over the network, against our law's."""
    plan, samples = placed("lenet", 2, error_rel=ERROR_REL, clip=ours_clips)
    peer = TorchTrials(plan.network, samples.x, error_rel=ERROR_REL, clip=peer_clips, seed=3, tuned=False)
    moments = [layer.site.moments() for layer in plan.layers]
    mean = np.concatenate([np.abs(m.mean).ravel() for m in moments])
    square = np.concatenate([(m.mean**2 + m.variance).ravel() for m in moments])
    sign = np.sign(np.concatenate([m.mean.ravel() for m in moments]))
    drawn = [peer.programmed().numpy() for _ in range(N_PROGRAMMINGS)]
    sums = [np.sum(sign * w) for w in drawn], [np.sum(w.astype(np.float64) ** 2) for w in drawn]
    errors = [np.std(found, ddof=1) / np.sqrt(N_PROGRAMMINGS) for found in sums]
    return max(float(abs(np.mean(s) - w) / e) for s, w, e in zip(sums, (mean.sum(), square.sum()), errors))


@pytest.mark.parametrize("clips", [False, True])
def test_the_peer_programs_by_our_law(clips: bool) -> None:
    assert moments_z(peer_clips=clips, ours_clips=clips) < 4.0


def test_a_peer_that_does_not_clip_is_found_out() -> None:
    assert moments_z(peer_clips=False, ours_clips=True) > 10.0
