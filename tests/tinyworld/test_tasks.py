"""Grammar, answers and generators of the tiny world; values were worked out by hand."""

import random
import time

import pytest

from lsp_lightning.tinyworld.tasks import (
    ALPHABET,
    FAMILIES,
    LEVELS,
    MAX_ANSWER,
    MAX_QUERY,
    Task,
    make_malformed,
    make_query,
    parse,
    split,
)

WELL_FORMED = [
    ("7+5=?", "add", 1, "12"),
    ("7+58=?", "add", 2, "65"),
    ("99+99=?", "add", 3, "198"),
    ("7-9=?", "sub", 1, "2"),  # the absolute difference
    ("12-7=?", "sub", 2, "5"),
    ("15-27=?", "sub", 3, "12"),
    ("reverse ab", "rev", 1, "ba"),
    ("reverse abcd", "rev", 2, "dcba"),
    ("reverse abcdefg", "rev", 3, "gfedcba"),
    ("sort 310", "sort", 1, "013"),
    ("sort 5162", "sort", 2, "1256"),
    ("sort 9988770", "sort", 3, "0778899"),
    ("max 37 12", "max", 1, "37"),
    ("max 37 12 73", "max", 2, "73"),
    ("max 10 11 12 13 14 15", "max", 3, "15"),
    ("count a in ba", "cnt", 1, "1"),
    ("count c in abab", "cnt", 2, "0"),
    ("count b in bbbbbbbbb", "cnt", 3, "9"),
    ("a=7;print(a+4)", "prog", 1, "11"),
    ("a=3;b=a+4;print(b-2)", "prog", 2, "5"),  # b = 7, 7 - 2
    ("a=2;print(3-9)", "prog", 1, "-6"),
    ("a=9;b=a*9;c=b*9;print(c*9)", "prog", 3, "6561"),  # 9^4
    ("a=4;b=0-a;c=b*2;print(a-c)", "prog", 3, "12"),  # b = -4, c = -8, 4 + 8
]

MALFORMED = [
    *("", " ", "\n", "7+5=", "7+5=?\n", " 7+5=?", "07+5=?", "100+5=?", "7++5=?", "7*5=?"),
    *("reverse a", "reverse abcdefgh", "reverse abi", "reverse ab1", "reverse  ab", "Reverse ab"),
    *(
        "sort 1",
        "sort 12345678",
        "sort 12a",
        "sort",
        "max 37",
        "max 37 5",
        "max 37 100",
        "max 07 12",
    ),
    *("max 10 11 12 13 14 15 16", "count d in abc", "count a in abd", "count a in a", "count a"),
    "a=3",
    "print(1+2)",  # a program assigns at least one variable
    "a=3;print(a)",  # and prints the result of one operation
    "a=3;print(b+1)",  # b is not known
    "a=3;b=b+1;print(a+b)",  # b is not known here either
    "a=3;a=a+1;print(a+1)",  # variables come in order, each once
    "a=10;print(a+1)",
    "a=3;print(a*a)",  # the right side of a product is a digit
    "a=3;print(a+1);",
    "a=3;print(a+1)\n",
    "a=1;b=a+1;c=b+1;d=c+1;print(d+1)",  # four variables, and too long
    "\u0667+\u0665=?",  # digits of another script
    "reverse \uff41b",
]


@pytest.mark.parametrize(("query", "family", "level", "answer"), WELL_FORMED)
def test_parse_knows_family_level_and_answer(query, family, level, answer):
    assert parse(query) == Task(query, family, level, answer)


@pytest.mark.parametrize("query", MALFORMED)
def test_parse_refuses(query):
    assert parse(query) is None


def test_parse_is_total_and_quick_on_any_string():
    rng = random.Random(0)
    nasty = [
        "\x00",
        "\ud800",
        "🙂" * 5,
        "((((",
        "a=" * 10**6,
        "9" * 10**6 + "+1=?",
        "sort " * 10**5,
    ]
    nasty += ["".join(chr(rng.randrange(0x10FFFF)) for _ in range(20)) for _ in range(200)]
    started = time.perf_counter()
    for text in nasty:
        assert parse(text) is None
        assert split(text) in ("train", "dev", "test")
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("level", LEVELS)
def test_generated_queries_are_what_was_asked_for(family, level):
    rng = random.Random(f"{family}{level}")
    for _ in range(300):
        query = make_query(family, level, rng)
        task = parse(query)
        assert task is not None
        assert (task.family, task.level) == (family, level)
        assert len(query) <= MAX_QUERY
        assert 1 <= len(task.answer) <= MAX_ANSWER
        assert set(query + task.answer) <= set(ALPHABET)


def test_the_longest_accepted_answer_is_within_the_limit():
    # Products need a digit on the right, so the largest value is 9 after three products: 9^4.
    assert len(parse("a=9;b=a*9;c=b*9;print(c*9)").answer) <= MAX_ANSWER
    assert len(parse("a=9;b=a*9;c=b*9;print(0-c)").answer) <= MAX_ANSWER


def test_malformed_texts_are_always_malformed_and_varied():
    rng = random.Random(0)
    texts = [make_malformed(rng) for _ in range(3000)]
    assert all(parse(text) is None for text in texts)
    assert all(1 <= len(text) <= MAX_QUERY and set(text) <= set(ALPHABET) for text in texts)
    assert len(set(texts)) > 2000


def test_split_gives_a_tenth_to_each_held_out_part():
    rng = random.Random(0)
    parts = [split(make_query("rev", 3, rng)) for _ in range(20_000)]
    # 26 of the 256 first bytes leave 0 (or 1) when divided by 10: a share of .1016, s.e. .002.
    assert parts.count("dev") / 20_000 == pytest.approx(26 / 256, abs=0.01)
    assert parts.count("test") / 20_000 == pytest.approx(26 / 256, abs=0.01)


@pytest.mark.parametrize(
    ("query", "part"),
    [
        ("0+1=?", "dev"),  # md5 begins a0: 160 % 10 = 0
        ("0+7=?", "test"),  # 79: 121 % 10 = 1
        ("7+5=?", "train"),  # 58: 88 % 10 = 8
    ],
)
def test_split_follows_the_written_rule(query, part):
    assert split(query) == part
