"""Main effects: additive numbers have shares that add to one, interactions are nobody's, and many values are taken in groups."""

from itertools import product

import numpy as np
import pytest

from accelsim.report.axis_effects import N_GROUPS, effects

A, B = [0.0, 1.0, 2.0], [-1.0, 1.0]


def _records(value: object) -> list[dict[str, float]]:
    return [{"a": a, "b": b, "y": value(a, b)} for a, b in product(A, B)]  # type: ignore[operator]


def test_shares_of_an_additive_number_are_its_variances() -> None:
    found = effects(_records(lambda a, b: 3.0 * a + 5.0 * b), ["a", "b"], "y")
    var_a, var_b = 9.0 * np.var(A), 25.0 * np.var(B)
    assert [effect.axis for effect in found] == ["b", "a"]
    assert [effect.share for effect in found] == pytest.approx([var_b / (var_a + var_b), var_a / (var_a + var_b)], rel=1e-12)
    assert [group.mean for group in found[1].groups] == pytest.approx([0.0, 3.0, 6.0], abs=1e-12)
    assert [group.n for group in found[1].groups] == [2, 2, 2]


def test_an_interaction_is_no_axis_alone() -> None:
    found = effects(_records(lambda a, b: (a - 1.0) * b), ["a", "b"], "y")
    assert [effect.share for effect in found] == pytest.approx([0.0, 0.0], abs=1e-12)


def test_what_is_the_same_everywhere_has_no_share() -> None:
    assert [effect.share for effect in effects(_records(lambda a, b: 2.0), ["a"], "y")] == [None]
    assert effects(_records(lambda a, b: a), ["c"], "y") == ()


def test_many_values_are_taken_in_groups_and_order_does_not_count() -> None:
    x = np.random.default_rng(5).permutation(np.linspace(0.0, 1.0, 80))
    (found,) = effects([{"x": float(v), "y": float(v)} for v in x], ["x"], "y")
    assert [group.n for group in found.groups] == [20] * N_GROUPS
    assert found.groups[0].low == 0.0
    assert found.groups[-1].high == 1.0
    assert found.share == pytest.approx(1.0 - 1.0 / N_GROUPS**2, rel=0.01)  # a uniform number, less what it varies within a quarter


def test_values_that_come_once_do_not_explain_all_by_themselves() -> None:
    random = np.random.default_rng(8)
    records = [{"x": float(x), "y": float(y)} for x, y in random.random((8, 2))]
    (found,) = effects(records, ["x"], "y")
    assert [group.n for group in found.groups] == [2] * 4
    assert found.share is not None
    assert found.share < 0.9
    noise = [{"x": float(x), "y": float(y)} for x, y in random.random((400, 2))]
    assert (effects(noise, ["x"], "y")[0].share or 0.0) < 0.05  # negative control: an axis that does nothing


def test_words_tables_and_missing_numbers_are_taken_as_they_are() -> None:
    records = [
        {"k": "sram", "y": 1.0}, {"k": "rram", "y": 3.0}, {"k": None, "y": 2.0}, {"k": "sram", "y": float("nan")}, {"k": "sram", "y": None},
        {"k": "rram"},
    ]  # fmt: skip
    (found,) = effects(records, ["k"], "y")
    assert [(group.low, group.n, group.mean) for group in found.groups] == [("sram", 1, 1.0), ("rram", 1, 3.0), (None, 1, 2.0)]
    assert found.share == pytest.approx(1.0)


def test_shares_do_not_depend_on_how_large_a_number_is() -> None:
    records = [{"a": a, "b": b, "x": scale * (a + 10 * b)} for scale in (1e-200, 1.0, 1e200) for a in (0, 1) for b in (0, 1)]
    shares = [[effect.share for effect in effects(records[i : i + 4], ("a", "b"), "x")] for i in (0, 4, 8)]
    assert shares[0] == pytest.approx(shares[1])
    assert shares[2] == pytest.approx(shares[1])
