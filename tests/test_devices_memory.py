"""Memories: one operating point, prices by their law, errors after protection, presets with their numbers and sources."""

from dataclasses import replace

import numpy as np
import pytest

from devices import catalog
from devices.base import stream
from devices.base.errors import SpecError
from devices.ecc import Ecc, ParityZero, Secded, SeparateBits, TripledBits
from devices.memory import Memory, technology
from devices.memory_faults import PersistentFlips, StuckBits, TransientFlips, WeakColumns
from devices.reliability import ExponentialPublished, FixedPoint, Sram14nm
from devices.word_format import WordFormat, mean_square_damage
from validation.statistics import z_of_means

EIGHT = WordFormat(coding="twos_complement", n_bits=8)
SRAM = Memory(
    law=Sram14nm(), word=EIGHT, faults=PersistentFlips(), read_energy_j=1e-13, write_energy_j=2e-13, v_rel=0.875, read_time_s=1e-9
)


def test_a_memory_has_one_operating_point_however_it_is_told() -> None:
    p = float(Sram14nm().error_rate_at(0.875))
    for point in ({"error_rate_p": p}, {"energy_rel": 0.875**2}, {"bit_error_rates_p": (p,) * 8}):
        same = replace(SRAM, v_rel=None, **point)
        np.testing.assert_allclose(same.error_rates, SRAM.error_rates, rtol=1e-9)
        np.testing.assert_allclose(same.energies_rel, 0.875**2, rtol=1e-9)
        assert same.cost("read").energy_j == pytest.approx(8e-13 * 0.875**2, rel=1e-9)
    for points in ({}, {"error_rate_p": p, "energy_rel": 0.7}):
        with pytest.raises(SpecError, match="give one of"):
            replace(SRAM, v_rel=None, **points)


def test_reading_costs_what_the_law_says_of_the_bits_that_are_read() -> None:
    cost = SRAM.cost("read", n_values=1000.0)
    assert cost.energy_j == pytest.approx(1000 * 8 * 1e-13 * 0.875**2)
    assert cost.time_s == pytest.approx(1e-6)
    assert SRAM.cost("write").energy_j == pytest.approx(2.0 * SRAM.cost("read").energy_j)
    guarded = replace(SRAM, ecc=Secded(), decode_energy_j=1e-14)
    assert guarded.stored_bits == 9.0
    assert guarded.cost("read").energy_j == pytest.approx(1.125 * SRAM.cost("read").energy_j + 1e-14)
    safe = replace(SRAM, ecc=SeparateBits(protected_error_p=0.0, protected_energy_rel=1.0))
    assert safe.cost("read").energy_j == pytest.approx(1e-13 * (7 * 0.875**2 + 1))
    published = replace(SRAM, law=ExponentialPublished(), v_rel=None, energy_rel=0.0)
    assert published.cost("read").energy_j == 0.0
    np.testing.assert_array_equal(published.error_rates, 0.5)
    with pytest.raises(ValueError, match="'read' and 'write'"):
        SRAM.cost("refresh")


def test_moments_are_of_what_is_left_after_protection() -> None:
    words = np.arange(256, dtype=np.uint16)
    bare = SRAM.moments(words)
    assert (bare.variance + bare.mean_error**2).mean() == pytest.approx(mean_square_damage(EIGHT, SRAM.error_rates))
    guarded = replace(SRAM, ecc=Secded()).moments(words)
    assert guarded.variance.mean() < 0.1 * bare.variance.mean()
    with pytest.raises(SpecError, match=r"to_one_share = 0\.5"):
        replace(SRAM, ecc=Secded(), faults=PersistentFlips(to_one_share=0.8)).moments(words)


GUARDS: list[Ecc | None] = [
    None, Secded(data_bits=32), ParityZero(), TripledBits(n_protected=2), SeparateBits(protected_error_p=1e-3, protected_energy_rel=1.0),
]  # fmt: skip


def sampled(memory: Memory, words: np.ndarray, *, trial: int = 0) -> np.ndarray:
    draws = stream.words(np.empty((words.size, memory.word.n_bits), np.uint32), seed=3, site=1, trial=trial)
    checks = stream.words(np.empty(memory.check_shape(words.size), np.uint32), seed=3, site=2, trial=trial)
    columns = stream.words(np.empty(getattr(memory.faults, "n_columns", 1), np.uint32), seed=3, site=3, trial=trial)
    return memory.read(words, draws=draws, check_draws=checks, column_draws=columns)


@pytest.mark.parametrize("ecc", GUARDS, ids=lambda ecc: "none" if ecc is None else ecc.kind)
def test_what_is_read_has_the_moments_whatever_protects_it(ecc: Ecc | None) -> None:
    rates = (0.03, 0.03, 0.02, 0.02, 0.01, 0.01, 0.005, 0.005)
    memory = replace(SRAM, v_rel=None, bit_error_rates_p=rates, ecc=ecc, word=WordFormat(coding="sign_magnitude", n_bits=8))
    words = np.random.default_rng(8).integers(0, 256, 400_000).astype(np.uint16)
    errors = (sampled(memory, words) - memory.word.decode(words)).astype(float)
    moments = memory.moments(words)
    expected = moments.variance + moments.mean_error**2
    batches = (errors**2 - expected).reshape(-1, 4).mean(axis=1)
    slack = 0.03 * expected.mean() if isinstance(ecc, Secded) else 0.0  # bits as if independent
    error = batches.std() / np.sqrt(batches.size)
    assert abs(batches.mean()) < 4 * error + slack
    assert abs(float(z_of_means(np.zeros(()), errors - moments.mean_error))) < 4.5
    assert abs((errors**2 - 1.3 * expected).mean()) > 4 * error + slack, "the negative control"


def test_lower_voltages_keep_the_faults_of_higher_ones_in_a_memory() -> None:
    words = np.zeros(20_000, np.uint16)
    memory = replace(SRAM, faults=WeakColumns(weak_share=0.1, weak_factor=5.0, n_columns=64))
    at = [sampled(replace(memory, v_rel=v), words).view(np.uint32) & 255 for v in (0.9, 0.85, 0.8)]
    assert np.all(at[0] & at[1] == at[0])
    assert np.all(at[1] & at[2] == at[1])
    assert 0 < np.count_nonzero(at[0]) < np.count_nonzero(at[1])


def test_what_a_code_cannot_answer_for_is_refused() -> None:
    words = np.zeros(8, np.uint16)
    for faults in (PersistentFlips(to_one_share=0.7), StuckBits()):
        with pytest.raises(SpecError, match=r"to_one_share = 0\.5"):
            sampled(replace(SRAM, ecc=Secded(), faults=faults), words)
    with pytest.raises(ValueError, match="check_draws"):
        replace(SRAM, ecc=Secded()).read(words, draws=np.zeros((8, 8), np.uint32))


def test_what_is_no_memory_is_refused() -> None:
    with pytest.raises(SpecError, match=r"error_rate: 0\.7"):
        replace(SRAM, v_rel=None, error_rate_p=0.7)
    with pytest.raises(SpecError, match="knows no voltage"):
        replace(SRAM, law=ExponentialPublished())
    with pytest.raises(SpecError, match="one for each of 8 bits"):
        replace(SRAM, v_rel=None, bit_error_rates_p=(0.1, 0.2))
    with pytest.raises(SpecError, match="no ecc"):
        replace(SRAM, decode_energy_j=1e-12)
    with pytest.raises(SpecError, match="binary"):
        replace(SRAM, ecc=ParityZero(), word=WordFormat(coding="binary", n_bits=1))


@pytest.mark.parametrize(
    "memory",
    [
        SRAM,
        replace(SRAM, ecc=Secded(data_bits=32), faults=StuckBits(to_one_share=0.4)),
        replace(SRAM, v_rel=None, bit_error_rates_p=(0.1, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-4, 1e-6), source="wafer 7"),
    ],
)
def test_memories_round_trip(memory: Memory) -> None:
    assert Memory.from_text(memory.to_toml()) == memory


def test_every_fault_of_a_spec_is_told() -> None:
    with pytest.raises(SpecError, match=r"(?s)law.fit.*word.n_bit: unknown key; nearest: n_bits"):
        Memory.from_text(SRAM.to_toml().replace('fit = "figure"', 'fit = "figures"').replace("n_bits", "n_bit"))


@pytest.mark.parametrize("name", catalog.names(catalog.MEMORY))
def test_presets_have_a_law_and_sources_and_make_memories(name: str) -> None:
    made = technology(name)
    assert len(catalog.summary(name, folder=catalog.MEMORY)) > 20
    assert f'name = "{name}"' in catalog.describe(name, folder=catalog.MEMORY)
    assert made.law.source
    assert (made.source is None) == (made.read_energy_j is None)
    point = {} if isinstance(made.law, FixedPoint) else {"error_rate_p": 1e-3}
    energies = {n: 1e-12 for n in ("read_energy_j", "write_energy_j") if getattr(made, n) is None}
    memory = Memory.preset(name, word=EIGHT, faults=TransientFlips(), **energies, **point)
    assert memory.cost("read").energy_j > 0.0
    if energies:
        with pytest.raises(SpecError, match=next(iter(energies))):
            Memory.preset(name, word=EIGHT, faults=TransientFlips(), **point)


def test_published_points_have_their_numbers() -> None:
    """NVMExplorer's 22 nm 2 MB arrays: 64-bit words of 4.4 pJ and 43.5 pJ; error rate 1e-6 of 22 nm chips."""
    memory = Memory.preset("stt_mram_22nm", word=WordFormat(coding="unsigned", n_bits=16), faults=TransientFlips())
    assert 4 * memory.cost("read").energy_j == pytest.approx(4.4e-12)
    assert 4 * memory.cost("write").energy_j == pytest.approx(43.5e-12)
    np.testing.assert_array_equal(memory.error_rates, 1e-6)
    with pytest.raises(SpecError, match="nearest: rram_22nm"):
        technology("rram_22n")
