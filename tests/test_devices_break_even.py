"""When codes pay: closed forms against roots, scans, enumerated words of the code, and decoded samples."""

from itertools import combinations

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from devices.base.errors import SpecError
from devices.break_even import Protected, indifferent_rate, quarter_scale_words, scanned, weight_four
from devices.ecc import Ecc, ParityZero, Secded, SeparateBits, TripledBits, columns_of
from devices.reliability import Exponential, ExponentialPublished, FixedPoint, GaussianThreshold, Sram14nm
from devices.reliability_law import ReliabilityLaw
from devices.word_format import WordFormat
from validation.ecc import MEASURED, sampled_left

WORD = WordFormat(coding="twos_complement", n_bits=8)
GAUSSIANS = [Sram14nm(), Sram14nm(fit="poster")]


def contest(law: ReliabilityLaw, ecc: Ecc, *, logic_rel: float = 0.0) -> Protected:
    return Protected(law=law, ecc=ecc, word=WORD, logic_rel=logic_rel)


def ends(protected: Protected) -> tuple[float | None, float | None]:
    (span,) = protected.spans()
    return span.from_p, span.to_p


@pytest.mark.parametrize("data_bits", [8, 16])
def test_words_of_weight_four_are_those_that_are_counted_one_by_one(data_bits: int) -> None:
    columns = columns_of(data_bits)
    counted = np.zeros(columns.size, int)
    for four in combinations(range(columns.size), 4):
        if np.bitwise_xor.reduce(columns[list(four)]) == 0:
            counted[list(four)] += 1
    np.testing.assert_array_equal(weight_four(data_bits), counted[:data_bits])


@pytest.mark.parametrize("data_bits", [8, 16, 32, 64])
def test_what_is_left_of_rare_errors_has_these_first_two_terms(data_bits: int) -> None:
    """r/(c p^2) - 1 = -s p + O(p^2): halving p halves the first term and quarters what is beyond it."""
    code = contest(Exponential(), Secded(data_bits=data_bits))
    rare = code.rare
    assert rare is not None
    assert rare.c == data_bits + Secded(data_bits=data_bits).n_check - 1
    beyond = [code.left_rate(p) / (rare.c * p**2) - 1.0 + rare.s * p for p in (1e-3, 5e-4)]
    assert abs(beyond[0]) < 2.0 * (rare.s * 1e-3) ** 2
    assert beyond[0] / beyond[1] == pytest.approx(4.0, rel=0.05)
    off = [abs(code.left_rate(p) / ((rare.c + 1.0) * p**2) - 1.0) for p in (1e-4, 1e-5)]
    assert min(off) > 0.01, "the negative control: n is not n - 1"


@pytest.mark.parametrize(("data_bits", "root"), [(64, 1.0647e-2), (32, 1.1864e-2), (16, 8.534e-3), (8, 1.3448e-3)])
def test_secded_pays_below_its_closed_form_under_the_exponential_law(data_bits: int, root: float) -> None:
    protected = contest(Exponential(), Secded(data_bits=data_bits))
    assert ends(protected) == (None, pytest.approx(root, rel=1e-3))
    assert protected.closed_form() == pytest.approx(root, rel=0.02)
    assert protected.ratio(0.9 * root) < 1.0 < protected.ratio(1.1 * root)
    rare = protected.rare
    assert rare is not None
    pairs_alone = rare.c ** (-1.0 / (2.0 - protected.slope_bits))
    if data_bits == 64:
        assert abs(pairs_alone / root - 1.0) > 0.2, "the negative control: pairs alone, s = 0, miss it"


def test_the_closed_form_comes_to_the_root_as_errors_get_rarer() -> None:
    """Logic moves the crossing to rarer errors, where what (2) leaves out goes as (n p)^2."""
    off = []
    for logic_rel in (0.0, 0.05, 0.1, 0.2):
        protected = contest(Exponential(), Secded(), logic_rel=logic_rel)
        root, closed = ends(protected)[1], protected.closed_form()
        assert root is not None
        assert closed is not None
        off.append(abs(closed / root - 1.0) / (72.0 * root) ** 2)
        assert off[-1] < 0.05


def test_the_published_law_has_a_second_end_where_full_energy_is_free_of_errors() -> None:
    """Below p = exp(-a/w) the code takes more than full energy."""
    low, high = ends(contest(ExponentialPublished(), Secded()))
    assert low == pytest.approx(np.exp(-12.8 / 1.125), rel=1e-9)
    assert high == pytest.approx(1.0647e-2, rel=1e-3)


@pytest.mark.parametrize("law", GAUSSIANS, ids=["figure", "poster"])
def test_secded_pays_for_rare_errors_only_on_measured_cells(law: Sram14nm) -> None:
    protected = contest(law, Secded())
    root = ends(protected)[1]
    assert root is not None
    assert 1.9e-4 < root < 2.7e-4
    assert protected.closed_form() == pytest.approx(root, rel=0.02)
    assert contest(law, Secded(data_bits=32)).spans() == (), "a third more bits cost more than they save"
    mean, std = law.threshold
    own = GaussianThreshold(threshold_mean_rel=mean, threshold_std_rel=std, energy_reference="energy 1.0 is x", source="x")
    assert ends(contest(own, Secded()))[1] == pytest.approx(root, rel=1e-9)


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.08), (0.4, 0.1), (0.6, 0.06), (0.3, 0.12), (0.6, 0.09)])
@pytest.mark.parametrize("logic_rel", [0.0, 0.01])
def test_the_quadratic_is_the_root_for_other_thresholds(mean: float, std: float, logic_rel: float) -> None:
    law = GaussianThreshold(threshold_mean_rel=mean, threshold_std_rel=std, energy_reference="energy 1.0 is x", source="x")
    protected = contest(law, Secded(), logic_rel=logic_rel)
    root = ends(protected)[1]
    assert root is not None
    assert protected.closed_form() == pytest.approx(root, rel=0.04)


def test_codes_of_single_bits_pay_above_their_closed_form() -> None:
    parity = Protected(law=Exponential(), ecc=ParityZero(), word=WORD, words=quarter_scale_words(WORD))
    tripled = contest(Exponential(), TripledBits())
    for protected, tolerance in ((parity, 0.002), (tripled, 0.01)):
        low, _ = ends(protected)
        assert low is not None
        assert protected.closed_form() == pytest.approx(low, rel=tolerance)
        assert protected.ratio(0.8 * low) > 1.0 > protected.ratio(1.2 * low)
    low, _ = ends(contest(Exponential(), ParityZero()))
    assert low is not None
    assert low > 0.3, "of words that are all as likely, a zero does more damage than a wrong bit"
    for law in GAUSSIANS:
        assert contest(law, TripledBits()).spans() == ()


def test_a_separate_sign_bit_pays_up_to_its_closed_form() -> None:
    law = Exponential()
    protected = contest(law, SeparateBits(protected_error_p=law.bounds[0], protected_energy_rel=1.0))
    assert ends(protected) == (None, pytest.approx(protected.closed_form(), rel=1e-3))


@pytest.mark.parametrize("law", [Exponential(), ExponentialPublished(), Sram14nm(), MEASURED], ids=lambda law: law.kind)
def test_energies_are_those_of_a_scan_of_all_operating_points(law: ReliabilityLaw) -> None:
    for left_p in (1e-2, 1e-4):
        found, tried = contest(law, Secded()).compared(left_p), scanned(contest(law, Secded()), left_p, n_points=500)
        assert found.with_rel == pytest.approx(tried.with_rel, rel=5e-3)
        assert found.without_rel == pytest.approx(tried.without_rel, rel=5e-3)
        other = contest(law, Secded()).compared(0.5 * left_p)
        assert other.with_rel != pytest.approx(tried.with_rel, rel=5e-3), "the negative control: half as many left take more"


@pytest.mark.parametrize("ecc", [Secded(), Secded(data_bits=16), TripledBits(), ParityZero()], ids=lambda ecc: ecc.kind)
def test_decoded_samples_have_what_is_left_at_the_crossing(ecc: Ecc) -> None:
    words = quarter_scale_words(WORD) if isinstance(ecc, ParityZero) else None
    protected = Protected(law=Exponential(), ecc=ecc, word=WORD, words=words)
    end = next(p for p in (*ends(protected)[::-1],) if p is not None) if not isinstance(ecc, ParityZero) else ends(protected)[0]
    assert end is not None
    mean, se = sampled_left(protected, end, n=200_000, seed=3)
    left = protected.left_rate(end)
    assert abs(mean - left) < 4.0 * se
    if isinstance(ecc, Secded) and ecc.data_bits == 64:
        uncorrected = end * (1.0 - (1.0 - end) ** 71)
        assert abs(mean - uncorrected) > 4.0 * se, "the negative control: without miscorrection it is less"


def test_a_code_is_indifferent_at_one_price_where_the_closed_form_says() -> None:
    """Both costs, minimized by SciPy, at a bare rate T = 1/(a S)."""
    for data_bits, logic_rel, off in ((64, 0.0, 0.08), (16, 0.0, 0.02), (64, 0.05, 0.03)):
        protected = contest(Exponential(), Secded(data_bits=data_bits), logic_rel=logic_rel)
        rate = indifferent_rate(protected)
        assert rate is not None

        def gain(t: float, protected: Protected = protected) -> float:
            damage = 1.0 / (12.8 * t)
            coded, bare = (
                minimize_scalar(cost, bounds=np.log((3e-6, 0.2)), method="bounded", options={"xatol": 1e-9}).fun
                for cost in (
                    lambda x: protected.with_rel(np.exp(x)) + damage * protected.left_rate(np.exp(x)),
                    lambda x: Exponential().energy_rel(float(np.exp(x))) + damage * np.exp(x),
                )
            )
            return float(bare - coded)

        assert gain((1.0 - off) * rate) > 0.0 > gain((1.0 + off) * rate)
    assert indifferent_rate(contest(Sram14nm(), Secded())) is None


def test_what_is_no_contest_is_refused() -> None:
    with pytest.raises(SpecError, match="one error rate and one energy"):
        contest(FixedPoint(error_rate_p=1e-3, energy_reference="energy 1.0 is x", source="x"), Secded())
    with pytest.raises(SpecError, match="logic_rel: -1"):
        contest(Exponential(), Secded(), logic_rel=-1.0)
    assert contest(Exponential(), Secded()).compared(1e-12).with_rel is None
    assert contest(MEASURED, Secded()).closed_form() is None
