"""Maths answers: which are right, which are equal, and hostile ones that do no harm."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import isnan

import pint
import pytest
from fast import assert_fast

from benchmarks.maths_answers import answers
from lsp_lightning.checks import unit_names
from lsp_lightning.checks.final_answers import boxed_solution, final_answer, last_box
from lsp_lightning.checks.maths import MathChecker
from lsp_lightning.checks.units import quantity

TOWER = r"\boxed{9^{9^{9^{9}}}}"
#: They look harmless, but sympy hangs.
SLOW = (r"\boxed{\binom{99999999}{44444444}}", r"\boxed{\Gamma(99999999)}")


def grade(checker: MathChecker, gold: str, *texts: str) -> list[float]:
    (row,) = checker.grade([(gold, texts)])
    return row


def known(scores: list[float]) -> list[float | None]:
    """The scores with None for NaN, because NaN is unequal to itself."""
    return [None if isnan(score) else score for score in scores]


def test_importing_checks_loads_neither_torch_nor_math_verify():
    code = (
        "import sys, lsp_lightning.checks.maths, lsp_lightning.checks.constraints\n"
        "assert not {'torch', 'lightning', 'math_verify', 'sympy'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_worker_never_loads_torch():
    """Torch would add seconds to the start of every worker, and hundreds of MB to its memory."""
    code = (
        "import sys\nfrom lsp_lightning.checks.maths_worker import handle\n"
        r"answers = [r'\boxed{\frac{1}{2}}', r'\boxed{0.5}']"
        "\n"
        "assert handle(['form', answers[0]]).startswith('value ')\n"
        "assert handle(['right', *answers]) is handle(['same', *answers]) is True\n"
        "assert not {'torch', 'lightning', 'transformers'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}}.", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed {3} and \fbox{4}", "4"),
        (r"\boxed{\boxed{5}}", "5"),  # the one that opens last
        (r"\boxed{6} \boxed{7", "6"),  # the last complete one
        (r"} { } \boxed{8} {", "8"),
        (r"\boxed{left \} open", None),
        ("42", None),
        ("", None),
    ],
)
def test_last_box_returns_the_last_complete_box(text, box):
    assert last_box(text) == box


def test_the_part_of_a_text_that_math_verify_reads():
    assert final_answer(r"so \boxed{ $42$ }!") == r"\boxed{42}"
    assert final_answer("the answer is 42\n") == r"\boxed{42}"
    assert final_answer("perhaps 5 cm or so\n") == r"\boxed{5 cm}"
    assert final_answer("the sum of 40 and 2\n") == ""  # two numbers, and the answer is neither
    assert final_answer(r"42 or \boxed{}") == ""  # an empty box is no answer
    assert final_answer(r"\boxed{" + "1+" * 1000 + "1}") == ""
    assert final_answer(r"\boxed{1}" + " " * 30_000 + "2") == r"\boxed{2}"
    assert final_answer("7 " * 3000) == ""
    assert final_answer("7. " * 20_000 + "8") == r"\boxed{8}"
    assert boxed_solution("$x=3$") == r"\boxed{x=3}"
    assert boxed_solution(r"hence \boxed{3}") == r"\boxed{3}"
    assert boxed_solution(" ") == ""


@pytest.mark.parametrize(
    "text", [r"\boxed{" * 200_000, "{" * 10**6, "}" * 10**6, r"\boxed{1}" * 10**5]
)
def test_finding_the_final_answer_takes_linear_time(text):
    start = time.perf_counter()
    final_answer(text)
    last_box(text[:20_000])
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("The answer is 42. I hope it is right.", "42"),
        ("The answer to question 7 is 42.", "42"),
        ("So the answer is **42 cm**.", "42 cm"),
        ("Answer:\n\n$x = 3$", "x = 3"),
        ("### Final answer\n73", "73"),
        ("The answer is 5.\n\nThat is it.", "5"),
        ("Six is the number of\n\n6 apples", "6 apples"),
        ("42.", "42"),
        ("1. Take x.\n2.", None),
        ("1. Take x.\n2. Add", None),
        ("Step 1: no\nStep 2: Now remove the blank", None),
        ("We find 5 of them there", None),
        ("The answer is 5? No, 6.", None),
        ("The answer is 5 or maybe 6", None),
    ],
)
def test_stated_answers(text, answer):
    stated = "" if answer is None else rf"\boxed{{{answer}}}"
    assert final_answer(text, "stated") == stated
    assert final_answer(text, "boxed") == ""
    assert final_answer(text + r" \boxed{1}", "stated") == r"\boxed{1}"


@pytest.mark.parametrize(
    "bit", ["*a", "~~", "1 000", "\u00b2", "\\text{a}", "{,}", "1_2", "answer is "]
)
def test_normalising_a_long_answer_is_fast(bit):
    assert_fast(partial(final_answer, (bit * 20_000)[:20_000]), 0.3, bit)
    assert_fast(partial(final_answer, rf"\boxed{{{(bit * 999)[:999]}}}"), 0.1, bit)
    assert_fast(partial(quantity, (bit * 999)[:999]), 0.2, bit)


@pytest.mark.parametrize(
    "bit",
    [
        *(
            "a",
            "- ",
            "$ ",
            "\\(",
            "(",
            "not ",
            "5 or ",
            "5, ",
            "x = 5 ",
            "5 apples and ",
            ". ",
            "5. ",
        ),
        *('"', "two ", "sqrt(", "5\n", r"\boxed{1}, ", r"\boxed ", "\u7b54\u6848", "of ", "5 if "),
        "\\ ",
    ],
)
def test_reading_a_long_sentence_is_fast(bit):
    final_answer("5 cm")  # loads the units
    for text in ((bit * 2000)[:2000], "The answer is 5 " + bit * 900, r"\boxed{5}" + bit * 500):
        assert_fast(partial(final_answer, text), 0.2, bit)
        assert_fast(partial(final_answer, text, "stated", word=True), 0.2, bit)


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("42", [r"\boxed{42}", "42", "x = 42", r"\boxed{42.0}", r"\boxed{42 \text{ cm}}"], ["43"]),
        ("1/2", [r"\boxed{0.5}", r"\boxed{\frac12}", r"$\dfrac{1}{2}$", r"\boxed{2/4}"], ["2"]),
        (r"\frac{1}{3}", [r"\boxed{0.333333}"], [r"\boxed{0.33}"]),
        ("$x=3$", [r"\boxed{3}", "x=3", r"\boxed{x = 3}"], [r"\boxed{x=4}", r"\boxed{y=3}"]),
        ("(1,2)", [r"\boxed{(1, 2)}"], [r"\boxed{(2, 1)}", r"\boxed{1}"]),
        ("[0,1)", [r"\boxed{[0, 1)}", r"\boxed{[0,\frac{2}{2})}"], [r"\boxed{[0,1]}"]),
        (r"\{1,2\}", [r"\boxed{\{2, 1\}}", r"\boxed{1, 2}"], [r"\boxed{\{1\}}"]),
        ("50\\%", [r"\boxed{50\%}", r"\boxed{50}", r"\boxed{0.5}"], [r"\boxed{5\%}"]),
        ("x^2+1", [r"\boxed{1+x^2}", r"\boxed{x \cdot x + 1}"], [r"\boxed{y^2+1}"]),
        ("3.14", [r"\boxed{3.140}", "about 3.14", r"\boxed{\pi}"], [r"\boxed{3.1}", r"\boxed{e}"]),
        ("1,000", [r"\boxed{1000}"], [r"\boxed{1}"]),
        ("-5", [r"\boxed{-5}", "\\boxed{\u22125}"], [r"\boxed{5}"]),
        (r"2\sqrt{2}", [r"\boxed{\sqrt{8}}"], [r"\boxed{2}"]),
        (r"\(7\)", [r"\boxed{\(7\)}", r"\(7\)"], ["8"]),
        (r"\text{yes}", [r"\boxed{\text{Yes}}", r"\boxed{yes}", "yes"], [r"\boxed{no}"]),
    ],
)
def test_right_and_wrong(checker, gold, right, wrong):
    assert grade(checker, gold, *right, *wrong) == [1.0] * len(right) + [0.0] * len(wrong)


def test_only_the_last_answer_counts(checker):
    texts = [
        r"\boxed{2} \boxed{1}",
        r"\boxed{1} \boxed{2}",
        r"$\boxed{2}$, $\boxed{1}$",
        r"\boxed{1, 2, 3}",
        r"\boxed{1} or \boxed{3} or \boxed{2, 3}",
        r"\boxed{1 \text{ or } 2}",
        r"$1$ or $2$ or $3$",
        r"The final answer is 2. \boxed{1}",
        r"\boxed{2} I mean \boxed{}",
    ]
    assert grade(checker, "2", *texts) == [0, 1, 0, 0, 0, 0, 0, 0, 0]


def test_a_text_without_an_answer_is_wrong(checker):
    assert grade(checker, "2", "", "   ", "I do not know.", r"\boxed{}", "\0") == [0.0] * 5


@pytest.mark.parametrize("gold", ["", " ", r"\frac{0}{0}", "1+" * 600, "\0\ud800"])
def test_with_an_unreadable_solution_all_texts_are_undecided(checker, gold):
    assert known(grade(checker, gold, "1", "", gold)) == [None] * 3


@pytest.mark.parametrize("gold", [r"A\cap B", r"v_{\text{max}}", "P(A|B)"])
def test_with_a_solution_that_cannot_be_read_the_same_text_is_right(checker, gold):
    assert known(grade(checker, gold, "1", "", rf"\boxed{{ {gold} }}")) == [None, None, 1]


def test_scores_keep_the_order_of_texts_with_duplicates(checker):
    pairs = [("1", ["1", "2", "1"]), ("2", []), ("2", ["1", "2", ""]), ("1", ["1"])]
    assert checker.grade(pairs) == [[1, 0, 1], [], [0, 1, 0], [1]]
    assert checker.grade([]) == []


@pytest.mark.parametrize(
    ("group", "numbers"),
    [
        (["1/2", "0.5", r"$\frac12$", "", "3", r"\boxed{x=3}"], [0, 0, 0, -1, 1, 1]),
        (["no idea", r"\boxed{}"], [-1, -1]),
        (["50%", "50", "0.5"], [0, 0, 1]),
        (["0.5", "50%", "50"], [0, 0, 1]),  # 50 and 0.5 never share a class
        ([r"\boxed{\frac{}", r"\boxed{\frac{0}{0}}", r"\boxed{\frac{0}{0}}"], [-1, 0, 0]),
        (["7", "8", "7", "9", "8"], [0, 1, 0, 2, 1]),
        ([r"\boxed{(1,2)}", r"\boxed{1,2}", r"\boxed{2,1}", r"\boxed{(2,1)}"], [0, 0, 0, 1]),
        (["0.0000001", "0.0000002", "1e-7", r"\boxed{10^{-7}}"], [0, 1, 0, 0]),
        ([r"\boxed{42 \text{ cm}}", r"\boxed{42 \text{ m}}", "42 cm"], [0, 1, 0]),
        ([r"\boxed{42 \text{ cm}}", "42", r"\boxed{42 \text{ m}}"], [0, 0, 1]),
        ([r"\boxed{101_2}", r"\boxed{101_3}", r"\boxed{101_{2}}"], [0, 1, 0]),
        (["2,5", "2.5", "It is 2.5 or so"], [0, 0, -1]),
        ([], []),
    ],
)
def test_classes_number_equal_answers(checker, group, numbers):
    assert checker.classes([group, group[:1]]) == [numbers, numbers[:1]]


def test_classes_of_two_texts_do_not_depend_on_their_order(checker):
    texts = ["1/2", r"\boxed{0.5}", "3", "x=3", "50%", r"\boxed{\{1,2\}}", r"\boxed{2,1}", "2"]
    pairs = [[a, b] for a in texts for b in texts]
    turned = [[b, a] for a, b in pairs]
    assert checker.classes(pairs) == checker.classes(turned)


@pytest.mark.slow
def test_answers_that_hang_are_undecided_and_do_not_affect_others():
    checker = MathChecker(processes=2, seconds=1.0)
    checker.grade([("1", ["2"])])
    start = time.monotonic()
    scores = grade(checker, "7", "7", SLOW[0], "8", SLOW[1], TOWER, "7")
    assert known(scores) == [1, None, 0, None, 0, 1]
    assert checker.classes([["7", SLOW[0], "8", TOWER], [SLOW[0], "7"]]) == [
        [0, None, 1, -1],
        [None, 0],
    ]
    assert known(grade(checker, TOWER, "7", "8")) == [None, None]
    assert time.monotonic() - start < 30
    checker.close()


@pytest.mark.parametrize(
    "text",
    [
        "9" * 10**6,
        r"\boxed{" + "9" * 5000 + "}",
        "\ud800\0\u202e" * 300_000,
        "$" * 20_000,
        r"\boxed{" * 3000,
        r"\boxed{4" + "\0" + "2}",
        "\u200f\\boxed{\ud8004}",
        r"\frac{" * 300,
        "\\(" * 1000,
        "answer: " * 2000,
        "__import__('os').system('exit')",
    ],
)
def test_odd_texts_are_wrong(checker, text):
    assert grade(checker, "41", text, "41") == [0.0, 1.0]
    ((number, other),) = checker.classes([[text, "41"]])
    assert number in (-1, 0)
    assert other == number + 1


def test_several_threads_can_share_a_checker(checker):
    rows = {}

    def work(i: int) -> None:
        rows[i] = grade(checker, str(i), *[rf"\boxed{{{j}}}" for j in range(8)])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert rows == {i: [float(i == j) for j in range(8)] for i in range(6)}


def test_a_killed_worker_is_replaced(checker):
    grade(checker, "1", "2")
    pid = checker._workers._places.queue[-1]._process.pid
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    assert grade(checker, "1", "1.0", "2") == [1.0, 0.0]


def test_copies_and_pickles_hold_the_settings(checker):
    for twin in (copy.deepcopy(checker), pickle.loads(pickle.dumps(checker))):
        assert twin.seconds == checker.seconds
        assert twin._workers.processes == 1


def test_generated_answers_never_raise(checker):
    # the first of 10,000 that were graded once, with exploding ones: 4325 right, 19 undecided
    pairs = answers(60, seed=0, monsters=0)
    assert pairs == answers(60, seed=0, monsters=0)
    scores = [row[0] for row in checker.grade([(gold, [text]) for gold, text in pairs])]
    assert {*known(scores)} <= {0.0, 1.0, None}
    assert sum(map(isnan, scores)) <= 2
    assert 20 < scores.count(1.0) < 40


def test_threads_that_meet_the_first_units_at_once_share_one_registry(monkeypatch):
    """Units of two registries cannot be multiplied."""
    built, registry = [], pint.UnitRegistry
    monkeypatch.setattr(pint, "UnitRegistry", lambda **kw: built.append(1) or registry(**kw))
    unit_names._registry.cache_clear()
    unit_names.unit.cache_clear()
    words = ["kg m2/s", "km/h", "N m", "square feet", "m s^{-1}"]
    with ThreadPoolExecutor(len(words)) as pool:
        assert all(pool.map(unit_names.unit, words))
    assert built == [1]
