"""Memories: one operating point, prices by their law, errors after protection, presets with their numbers and sources."""

from dataclasses import replace

import numpy as np
import pytest

from devices import catalog
from devices.base.errors import SpecError
from devices.ecc import ParityZero, Secded, SeparateBits
from devices.memory import Memory, technology
from devices.memory_faults import PersistentFlips, StuckBits, TransientFlips
from devices.reliability import ExponentialPublished, FixedPoint, Sram14nm
from devices.word_format import WordFormat, mean_square_damage

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
    with pytest.raises(SpecError, match="symmetric faults"):
        replace(SRAM, ecc=Secded(), faults=PersistentFlips(to_one_share=0.8)).moments(words)


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
