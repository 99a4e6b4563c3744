"""Word formats: codings by their definitions, flips bit for bit, damages by enumeration of all masks and by closed forms."""

import numpy as np
import pytest

from devices.base.errors import SpecError
from devices.packing import pack, unpack
from devices.word_format import (
    WordFormat,
    bit_damage,
    flip,
    linear_mean_square_damage,
    mean_square_damage,
    moments_by_word,
    read_flipped,
    square_damage,
    values_of,
)
from validation.statistics import z_of_means

CODINGS = ("twos_complement", "offset_binary", "unsigned", "sign_magnitude")
FORMATS = [
    *(WordFormat(coding=coding, n_bits=n, gray=gray) for coding in CODINGS for n in (2, 4, 5) for gray in (False, True)),  # type: ignore[arg-type]
    WordFormat(coding="unsigned", n_bits=1),
    WordFormat(coding="binary", n_bits=1),
    WordFormat(coding="ternary", n_bits=2),
]


def name_of(word: WordFormat) -> str:
    return f"{word.coding}{word.n_bits}{'g' if word.gray else ''}"


def enumerated(word: WordFormat, stored: int, up: np.ndarray, down: np.ndarray) -> tuple[float, float]:
    """Mean error and mean square error of one word, mask by mask."""
    first = second = total = 0.0
    for mask in range(1 << word.n_bits):
        p = 1.0
        for j in range(word.n_bits):
            rate = down[j] if stored >> j & 1 else up[j]
            p *= rate if mask >> j & 1 else 1.0 - rate
        d = float(values_of(word)[stored ^ mask] - values_of(word)[stored])
        first, second, total = first + p * d, second + p * d * d, total + p
    assert total == pytest.approx(1.0)
    return first, second


@pytest.mark.parametrize("word", FORMATS, ids=name_of)
def test_every_number_comes_back_and_what_does_not_fit_is_refused(word: WordFormat) -> None:
    numbers = np.array([k for k in range(word.least, word.greatest + 1) if word.coding != "binary" or k])
    np.testing.assert_array_equal(word.decode(word.encode(numbers)), numbers)
    with pytest.raises(SpecError, match="clip or quantize"):
        word.encode(np.array([word.greatest + 1]))
    with pytest.raises(SpecError, match="whole numbers"):
        word.encode(np.array([0.5]))  # type: ignore[arg-type]


def test_codings_are_as_defined() -> None:
    assert WordFormat(coding="twos_complement", n_bits=8).decode(np.array([0x80, 0xFF, 0x7F], np.uint16)).tolist() == [-128, -1, 127]
    assert WordFormat(coding="offset_binary", n_bits=8).decode(np.array([0, 0x80, 0xFF], np.uint16)).tolist() == [-128, 0, 127]
    assert WordFormat(coding="sign_magnitude", n_bits=8).decode(np.array([0x80, 0xFF, 1], np.uint16)).tolist() == [0, -127, 1]
    assert WordFormat(coding="ternary", n_bits=2).decode(np.arange(4, dtype=np.uint16)).tolist() == [0, 1, -1, 0]
    sixteen = WordFormat(coding="twos_complement", n_bits=16)
    numbers = np.arange(-(2**15), 2**15)
    np.testing.assert_array_equal(sixteen.encode(numbers), numbers.astype(np.int16).view(np.uint16))


def test_in_gray_s_code_neighbours_differ_by_one_bit() -> None:
    words = WordFormat(coding="offset_binary", n_bits=6, gray=True).encode(np.arange(-32, 32))
    differences = words[1:] ^ words[:-1]
    assert np.all(differences & (differences - 1) == 0)


@pytest.mark.parametrize("word", FORMATS, ids=name_of)
def test_moments_of_every_word_are_those_of_all_masks(word: WordFormat) -> None:
    generator = np.random.default_rng(3)
    up, down = generator.uniform(0.0, 0.5, (2, word.n_bits))
    error, variance = moments_by_word(word, up, down)
    for stored in range(1 << word.n_bits):
        first, second = enumerated(word, stored, up, down)
        assert error[stored] == pytest.approx(first, rel=1e-12, abs=1e-13)
        assert variance[stored] == pytest.approx(second - first**2, rel=1e-9, abs=1e-12)


def test_rare_flips_keep_their_digits() -> None:
    """At p = 1e-12 the variance of 16 bits is p sum 4^j to first order; a difference of squares would have lost it."""
    word = WordFormat(coding="twos_complement", n_bits=16)
    _, variance = moments_by_word(word, 1e-12)
    np.testing.assert_allclose(variance, 1e-12 * (4.0**16 - 1) / 3, rtol=1e-11)


@pytest.mark.parametrize("n_bits", [2, 4, 8, 12])
def test_the_closed_form_of_two_s_complement_holds(n_bits: int) -> None:
    """p (4^B - 1)/3 over equally likely words; 21,845 p for 8 bits; a quarter of it with the sign bit safe, a sixteenth with two."""
    word = WordFormat(coding="twos_complement", n_bits=n_bits)
    for p in (1e-6, 1e-3, 0.1, 0.5):
        assert mean_square_damage(word, p) == pytest.approx(p * (4.0**n_bits - 1) / 3, rel=1e-12)
    top = np.full(n_bits, 1e-3)
    top[-1] = 0.0
    assert mean_square_damage(word, top) == pytest.approx(mean_square_damage(word, 1e-3) * (4.0 ** (n_bits - 1) - 1) / (4.0**n_bits - 1))


@pytest.mark.parametrize("word", [w for w in FORMATS if w.coding not in ("sign_magnitude", "ternary") and not w.gray], ids=name_of)
def test_linear_codings_need_two_moments_of_the_numbers_only(word: WordFormat) -> None:
    numbers = np.random.default_rng(1).choice([k for k in range(word.least, word.greatest + 1) if word.coding != "binary" or k], 50)
    closed = linear_mean_square_damage(word, 0.2, mean=float(numbers.mean()), mean_square=float((numbers.astype(float) ** 2).mean()))
    assert closed == pytest.approx(mean_square_damage(word, 0.2, word.encode(numbers)), rel=1e-12)


def test_codings_differ_where_numbers_are_small() -> None:
    """Negative control of the closed form: sign-magnitude keeps small numbers, of which flips of the sign do little."""
    numbers = np.arange(-3, 4)
    damages = [
        mean_square_damage(word, 1e-3, word.encode(numbers))
        for word in (WordFormat(coding="sign_magnitude", n_bits=8), WordFormat(coding="twos_complement", n_bits=8))
    ]
    assert damages[0] < 0.3 * damages[1]
    with pytest.raises(SpecError, match="not linear"):
        linear_mean_square_damage(WordFormat(coding="sign_magnitude", n_bits=8), 1e-3, mean=0.0, mean_square=4.0)


def test_flips_are_exclusive_ors_and_damages_their_differences() -> None:
    generator = np.random.default_rng(5)
    for word in FORMATS:
        words, masks = generator.integers(0, 1 << word.n_bits, (2, 7, 11)).astype(np.uint16)
        np.testing.assert_array_equal(flip(words, masks), words ^ masks)
        np.testing.assert_array_equal(read_flipped(word, words, masks), word.decode(words ^ masks))
        for j in range(word.n_bits):
            np.testing.assert_array_equal(bit_damage(word)[words, j], word.decode(words ^ np.uint16(1 << j)) - word.decode(words))
    np.testing.assert_array_equal(square_damage(WordFormat(coding="twos_complement", n_bits=4)), 4.0 ** np.arange(4))


def test_samples_have_the_mean_square_damage() -> None:
    word, p = WordFormat(coding="sign_magnitude", n_bits=6), 0.03
    generator = np.random.default_rng(7)
    words = word.encode(generator.integers(-10, 11, 200_000))
    bits = generator.random((200_000, 6)) < p
    masks = (bits << np.arange(6)).sum(axis=1).astype(np.uint16)
    squares = (read_flipped(word, words, masks) - word.decode(words)).astype(float)[None, :] ** 2
    assert np.abs(z_of_means(np.array([mean_square_damage(word, p, words)]), squares)).max() < 4
    assert np.abs(z_of_means(np.array([mean_square_damage(word, p)]), squares)).max() > 5, "the negative control: other words, other damage"


@pytest.mark.parametrize(("n_bits", "memory_bits"), [(1, 64), (3, 64), (8, 32), (16, 64), (12, 39)])
def test_packed_words_come_back_and_flips_commute_with_packing(n_bits: int, memory_bits: int) -> None:
    generator = np.random.default_rng(2)
    words, masks = generator.integers(0, 1 << n_bits, (2, 1001)).astype(np.uint16)
    packed = pack(words, n_bits, memory_bits=memory_bits)
    assert packed.size == -(-1001 // (memory_bits // n_bits))
    np.testing.assert_array_equal(unpack(packed, 1001, n_bits, memory_bits=memory_bits), words)
    both = flip(packed, pack(masks, n_bits, memory_bits=memory_bits))
    np.testing.assert_array_equal(unpack(both, 1001, n_bits, memory_bits=memory_bits), words ^ masks)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="hold at most"):
        unpack(packed, 10_000, n_bits, memory_bits=memory_bits)


def test_what_is_no_format_is_refused() -> None:
    for kwargs in ({"coding": "binary", "n_bits": 2}, {"coding": "ternary", "n_bits": 3}, {"coding": "twos_complement", "n_bits": 17}):
        with pytest.raises(SpecError, match="n_bits"):
            WordFormat(**kwargs)  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="error rates"):
        mean_square_damage(FORMATS[0], [0.1, 0.2, 0.3])
    with pytest.raises(SpecError, match="error rates"):
        mean_square_damage(FORMATS[0], 1.5)
    with pytest.raises(SpecError, match="memory_bits"):
        pack(np.zeros(3, np.uint16), 8, memory_bits=4)
