"""How varied texts are, against numbers worked out by hand."""

import math
import random
import string
import time
import zlib

import pytest

from lsp_lightning.text.breadth import (
    MOST_TEXTS,
    distinct_2,
    mean_similarity,
    share_near,
    spread_out,
    zlib_ratio,
)


def test_word_pairs_are_counted_over_all_texts_and_within_each():
    # (a b), (b c) and (a b), (b d): three different ones of four; case and space do not matter
    assert distinct_2(["a b c", "A  b\nd"]) == pytest.approx(3 / 4)
    assert distinct_2(["a b c"] * 3) == pytest.approx(2 / 6)


def test_a_text_of_one_word_counts_as_one_pair():
    assert distinct_2(["yes", "yes", "no"]) == pytest.approx(2 / 3)
    assert distinct_2(["yes", "yes no"]) == 1


def test_similarity_is_the_mean_over_all_pairs():
    # abc and abd: one letter to delete and one to insert, of six; abc and abc are equal
    assert mean_similarity(["abc", "abd", "ABC "]) == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)
    assert mean_similarity(["same"] * 5) == pytest.approx(1)
    assert mean_similarity(["ab", "xy"]) == 0


def test_a_near_copy_is_more_similar_than_four_fifths():
    # one letter of ten is another: 1 - 2 / 20; of five: 1 - 2 / 10, which is not above .8
    texts = ["abcdefghiX", "ABCDEFGHIJ", "vwxyX", "none of it"]
    assert share_near(texts, ["abcdefghij", "vwxyz", "vwxyz"]) == pytest.approx(2 / 4)


def test_without_texts_there_is_no_number():
    for found in (
        *(distinct_2([]), distinct_2([" "]), mean_similarity([]), mean_similarity(["a"])),
        *(share_near([], ["a"]), share_near(["a"], [])),
        *(zlib_ratio([]), zlib_ratio([" ", ""])),
    ):
        assert math.isnan(found)


def test_only_the_beginning_of_a_text_is_compared():
    same = "x" * 500
    assert mean_similarity([same + "a" * 500, same + "b" * 500]) == pytest.approx(1)


def test_of_many_texts_some_are_looked_at_at_equal_distances():
    assert spread_out(range(10), 5) == [0, 2, 4, 6, 8]
    assert spread_out("abc", 5) == list("abc")
    assert len(spread_out(range(1000))) == MOST_TEXTS


def test_a_large_round_of_long_texts_is_cheap():
    texts = [f"{i} " + f"word{i % 7} other{i % 11} " * 40 for i in range(800)]
    mean_similarity(texts[:2])  # imports
    start = time.perf_counter()
    distinct_2(texts), mean_similarity(texts), share_near(texts, texts)
    assert time.perf_counter() - start < 2


def test_the_compressed_size_is_that_of_the_lines_without_a_header():
    # zlib's format adds 2 bytes before and 4 after
    joined = "one line\nanother line"
    assert zlib_ratio(["one line", "another line"]) == pytest.approx(
        (len(zlib.compress(joined.encode())) - 6) / len(joined)
    )


def test_repetition_lowers_the_compressed_size_and_noise_raises_it():
    draw = random.Random(0)
    words = ["what", "is", "the", "sum", "of", "seven", "and", "how", "many", "apples", "are"]
    prose = [" ".join(draw.choices(words, k=8)) for _ in range(16)]
    noise = ["".join(draw.choices(string.printable[:90], k=40)) for _ in range(16)]
    alike = [prose[0]] * 16
    assert zlib_ratio(alike) < 0.2 < zlib_ratio(prose) < 0.6 < zlib_ratio(noise)


def test_half_a_surrogate_pair_has_a_size_too():
    assert zlib_ratio(["\ud800 a"]) > 0
