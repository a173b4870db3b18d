"""Maths answers that count as none: they would hang sympy, or offer several candidates."""

import time
from functools import partial

import pytest
from fast import assert_fast

from lsp_lightning.checks.final_answers import explodes, final_answer, hedges
from lsp_lightning.checks.maths import MathChecker


def grade(checker: MathChecker, gold: str, *texts: str) -> list[float]:
    (row,) = checker.grade([(gold, texts)])
    return row


EXPLOSIVE = [
    "9^{9^9}",
    "9^{9^{9^{9}}}",
    "2**3**4",
    "9^{9^{9}+x}",
    r"9^{\left(9^9\right)}",
    r"9^{2 \cdot 9^{9}}",
    "{9}^{{9}^{9}}",
    "(9^{9999})^{9999}",
    "9^{9999*9999}",
    "x^{10000}",
    "x^{n + 12345}",
    "1000!",
    "(3!)!",
    "10!!",
    "9^{9!}",
    r"\sum_{i=1}^{10^9} i^i",
    r"\prod_{i=1}^{100000} i",
    r"\sum_{i=-100000}^{0} i",
    "(x+y+z+1)^{99}",
    "(1+x)^{9999}",
    "(" * 51 + "1" + ")" * 51,
]
HARMLESS = [
    "e^{x^2}",
    "e^{-(x+1)^{2}}",
    "2^{2^n}",
    "x^2+12345",
    r"5 \times 10^{12}",
    "2^{0.33333}",
    "2^{1000}-1",
    "n!",
    "100!",
    r"\frac{10!}{3!7!}",
    "1,000,000",
    "12345^2",
    "(1-p)^{100}",
    r"\left(\frac{5}{6}\right)^{100}",
    r"2^3 \cdot 3^4",
    r"\sum_{i=1}^{n} i^2",
    "(" * 50 + "1" + ")" * 50,
]


@pytest.mark.parametrize("content", EXPLOSIVE)
def test_explodes_finds_answers_that_would_keep_sympy_busy(content):
    assert explodes(rf"\boxed{{{content}}}")
    assert explodes(final_answer(f"The answer is below.\n$${content}$$\nI hope."))


@pytest.mark.parametrize("content", HARMLESS)
def test_explodes_accepts_ordinary_answers(content):
    assert not explodes(rf"\boxed{{{content}}}")
    text = f"Beware of 9^{{9^9}}!\nThe answer is ${content}$.\nI hope."
    assert not explodes(final_answer(text))


def test_an_exclamation_mark_after_a_word_is_no_factorial():
    assert not explodes(final_answer("The answer is 1234!!"))
    assert explodes(final_answer("The answer is $1234!$"))


def test_answers_may_explode_if_the_solution_does(checker):
    gold = "2^{3^2}"
    assert grade(checker, gold, rf"\boxed{{{gold}}}", r"\boxed{2^{(3^{2})}}", "512", "5") == [
        1.0,
        1.0,
        1.0,
        0.0,
    ]
    assert grade(checker, "512", rf"\boxed{{{gold}}}") == [0.0]
    assert checker.classes([[rf"\boxed{{{gold}}}", "512"]]) == [[-1, 0]]


def test_a_round_of_exploding_answers_is_graded_fast():
    checker = MathChecker()
    checker.grade([("1", ["2"])])
    monsters = [rf"\boxed{{{i}+{EXPLOSIVE[i % len(EXPLOSIVE)]}}}" for i in range(64)]
    start = time.monotonic()
    row = grade(checker, "7", *monsters, *["7"] * 64)
    assert time.monotonic() - start < 3
    assert row == [0.0] * 64 + [1.0] * 64
    checker.close()


@pytest.mark.parametrize(
    "text",
    [
        *(f"({c} " * 240 for c in "1a+^!"),
        "(" + "a" * 300 + "+-" * 300,
        "(a+" * 48 + "a+a" * 200,
        "(a" * 49 + "+" * 800,
        "9" * 900,
        "^(" * 49 + "1" * 800,
        "(a+a)^9" * 140,
        "|" * 990,
        "=1" * 490,
    ],
)
def test_explodes_and_hedges_take_linear_time(text):
    for answer in (text, rf"\boxed{{{text}}}", "answer " * 280, "1 or " * 390):
        assert_fast(partial(explodes, answer), 0.05, answer[:20])
        assert_fast(partial(hedges, answer), 0.05, answer[:20])


HEDGED = [
    r"\boxed{1=3}",
    r"\boxed{4=3}",
    r"\boxed{x=1=3}",
    r"\boxed{2 \to 3}",
    r"\boxed{4 \Rightarrow 3}",
    r"\boxed{4 \implies 3}",
    r"\boxed{4 \rightarrow 3}",
    r"\boxed{4 => 3}",
    r"\boxed{3 \lor 4}",
    r"\boxed{4 \lor 3}",
    r"\boxed{4 \vee 3}",
    r"\boxed{4 \mid 3}",
    r"\boxed{3|4}",
    r"\boxed{4|3}",
    "the answer is 3 or 4",
    "The answer is 3 | 4.",
    "It is 3 or 4.",
    "4 or 3",
]


def test_answers_that_offer_several_candidates_are_refused(checker):
    assert [text for text in HEDGED if "box" in text and not hedges(text)] == []
    either = [r"\boxed{3 or 4}", r"\boxed{4 \text{ or } 3}", "the answer is $3$ or $4$"]
    assert grade(checker, "3", *HEDGED, *either) == [0.0] * (len(HEDGED) + 3)
    assert checker.classes([[*HEDGED, "3"]]) == [[-1] * len(HEDGED) + [0]]
    assert grade(checker, r"\{3,4\}", *either) == [1.0] * 3
    assert grade(checker, "1=3", r"\boxed{1=3}") == [1.0]


@pytest.mark.parametrize(
    ("gold", "text"),
    [
        ("3", r"\boxed{x=3}"),
        ("3", r"\boxed{2+1=3}"),
        ("3", r"\boxed{3.0=3}"),
        ("3", r"\boxed{f(1)=3}"),
        ("3", r"\boxed{|-3|}"),
        ("3", "After 2 or 4 tries the answer is 3"),
        ("3", "It is 2 or 4.\nThe answer is 3"),
        ("3=x", r"\boxed{3=x}"),
        ("|x|", r"\boxed{\left|x\right|}"),
        (r"\{1,2\}", r"\boxed{x \in \{1,2\}}"),
        (r"\{1,2\}", r"\boxed{x=1 \text{ or } x=2}"),
        ("(1,2)", r"\boxed{(1,2)}"),
        (r"50\%", r"\boxed{50\%}"),
    ],
)
def test_answers_that_only_look_like_several_candidates_are_accepted(checker, gold, text):
    assert grade(checker, gold, text) == [1.0]


def test_bars_and_arrows_that_do_not_separate_answers():
    sets = [r"\{x | x > 3\}", r"\{x \mid x > 3\}"]
    for content in ["P(A|B) = 0.5", *sets, r"\|x\|", r"\lim_{x \to 0} f(x) = 3"]:
        assert not hedges(rf"\boxed{{{content}}}")
