"""The agreement table: predicted over sampled MSE on trained networks and real images, held to its bars."""

from functools import cache

import pytest

from validation.networks import DataMissingError, network_and_samples
from validation.tables import NETWORKS, Row, Study, agreement_table, bar_of, judged


def made(name: str, levels: tuple[float, ...], rel_error: float) -> list[Row]:
    try:
        network_and_samples(name, 1)
    except DataMissingError as error:
        pytest.skip(str(error))
    return list(agreement_table(studies=[Study(network=name, levels=levels, rel_error=rel_error)]))


@pytest.mark.parametrize("name", ["fashion_cnn", "fashion_resnet"])
def test_closures_agree_with_monte_carlo_on_the_embedded_networks(name: str) -> None:
    verdict = judged(made(name, levels=(0.002, 0.01), rel_error=0.03))
    assert verdict["beyond_bar"] == []
    assert verdict["wrongly_valid"] == []


@cache
def whole(name: str) -> list[Row]:
    return made(name, levels=(0.002, 0.01, 0.03, 0.1), rel_error=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_sketches_are_within_their_bars(name: str) -> None:
    assert judged(whole(name))["beyond_bar"] == []


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_no_prediction_is_wrongly_called_valid(name: str) -> None:
    assert judged(whole(name))["wrongly_valid"] == []


def test_bars_widen_with_the_error_and_end() -> None:
    assert [bar_of(v) for v in (0.01, 0.05, 0.2, 0.5)] == [0.02, 0.04, 0.06, None]


def row(**changes: object) -> Row:
    plain = {"cell": "net 0.01 clipped", "method": "sketched", "mse_rel": "0.01", "ratio": "1.001", "mc_se_rel": "0.001",
             "ci_low": "0.999", "ci_high": "1.003", "valid": True}
    return {**plain, **changes}


def test_the_judge_finds_a_closure_beyond_its_bar_a_wrong_flag_and_a_needless_alarm() -> None:
    verdict = judged([row(ratio="1.05"), row(ratio="0.9"), row(valid=False)])
    assert verdict["beyond_bar"] == ["net 0.01 clipped"] * 2
    assert verdict["wrongly_valid"] == ["net 0.01 clipped sketched"]
    assert verdict["needless_alarms"] == ["net 0.01 clipped sketched"]
