"""Verifiers of whole rounds: majorities, programs in several worlds, and early errors."""

import json
from dataclasses import replace
from math import isnan
from pathlib import Path

import pytest
import torch
import transformers
from boxes import require_bubblewrap
from handmade import playout

from lsp_lightning import (
    BubblewrapSandbox,
    ConfigError,
    MathVerifier,
    MontySandbox,
    ProgramOutputVerifier,
    VerifiableReward,
)
from lsp_lightning.checks.maths import MathChecker
from lsp_lightning.cli.main import main
from lsp_lightning.rewards import Group, RoundVerifier, Verdict
from lsp_lightning.sandbox import Limits

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def maths():
    verifier = MathVerifier()
    verifier._checker = MathChecker(processes=1, seconds=1.0)  # a worker takes a second to start
    yield verifier
    verifier.close()


def boxed(*answers):
    return tuple(rf"So it is \boxed{{{answer}}}." for answer in answers)


# -- mathematics -----------------------------------------------------------------------------------


def test_answers_are_compared_with_the_solution_or_else_with_the_majority(maths):
    known, unknown = maths.judge(
        [Group("q", boxed("2", "1/2", "0.5"), "2"), Group("q", boxed("2", "1/2", "0.5"))]
    )
    assert known.scores == (1.0, 0.0, 0.0)
    assert unknown.scores == (0.0, 1.0, 1.0)
    assert unknown.info["agreement"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "answers",
    [
        boxed("1", "2", "3", "4"),  # all differ
        boxed("1", "1", "2", "2"),  # a tie
        boxed("1"),  # one answer is no majority
        boxed("1", "1", "2", "3", "4"),  # less than half
    ],
)
def test_without_a_majority_a_group_is_undecided(maths, answers):
    [verdict] = maths.judge([Group("q", answers)])
    assert all(map(isnan, verdict.scores))
    assert verdict.kind == "undecided"


@pytest.mark.parametrize(("least", "found"), [(0.25, True), (0.5, True), (0.6, False)])
def test_how_many_must_agree_is_a_setting(maths, least, found, monkeypatch):
    monkeypatch.setattr(maths, "_min_agreement", least)
    [verdict] = maths.judge([Group("q", boxed("1", "1", "2", "3"))])
    assert verdict.info["agreement"] == 0.5
    assert verdict.kind == ("scored" if found else "undecided")


def test_a_query_that_nobody_finds_an_answer_to_is_malformed(maths):
    [verdict] = maths.judge([Group("q", ("I do not know.", "Neither do I."))])
    assert verdict == Verdict.malformed(2)


#: No answer of these groups may be paid: without a solution only stated answers vote.
UNSTATED = [
    ("1. Take x.\n\n2. How to map b to", "Step 1: no\nStep 2: Now remove the blank", "hello there"),
    ("First 3 and then 2", "Second 1 and then 2", "There are 2 of them left to see"),
    ("1. Add.\n2.", "1. Multiply.\n2.", "1. Divide.\n2."),
    ("Answer: 1. Take x and move on", "Answer: 1. Take y and move on"),
    ("The answer is not 5.", "The answer is not 5."),
    ("I do not know the answer to 5", "I do not know the answer to 5"),
    ("Let x = 2 be\ngiven", "Let x = 2 be\ntaken"),
    *(
        tuple(f"{first}\n\n{label}" for first in ("First", "We add.", "Take x.", "1. hello"))
        for label in ("2.", "2)", "(2)", "2:", "**2.**", "a.", "(b)", "### 2", "## 2", "## 2.")
    ),
    ("Answer:\n1.", "Answer:\n1.", "The answer is\n1)", "Final answer:\n\n1."),
    ("1:", "(1)", "1.", "1)"),
    ("The answer is 2-fold: first", "The answer is 2-step", "The answer is 2-part"),
    ("Answer: $x = 2 +", "Answer: $x = 2 +", "The answer is 2 -"),
    ("It is not 5.", "x is not 5", "The answer isn't $5$.", "The answer can't be 5."),
    ("The answer is at least 5.", "The answer is under 5.", "The answer is twice 5."),
    (r"So \boxed{5", r"So \boxed{5", r"\boxed{"),
    ("The answer is 5 or 6.", "The answer is 5 or 6."),
    *(
        boxed(content, content, content)
        for content in (
            *("?", "...", "___", r"\square", "\U0001f389", r"\frac{}{}", "!", r"\text{answer}"),
            *("your answer", "[insert answer]", "TODO", "I don't know", "N/A", "unknown"),
            r"\text{not } 3",
        )
    ),
]


@pytest.mark.parametrize("answers", UNSTATED)
def test_what_is_not_stated_does_not_vote(maths, answers):
    [verdict] = maths.judge([Group("q", answers)])
    assert verdict == Verdict.malformed(len(answers))


def test_different_small_numbers_do_not_agree(maths):
    [verdict] = maths.judge([Group("q", boxed(*(f"0.000000{i}" for i in range(1, 5))))])
    assert verdict.kind == "undecided"
    assert verdict.info["agreement"] == 0.25


STATED = [
    r"So \boxed{5}.",
    "The answer is 5.",
    "**Answer:** $5$",
    "We add.\n\n5",
    "#### 5",
    "The final answer is clearly 5, as the sum shows",
]


#: Groups of four, of which the first three agree.
ALIKE = [
    (
        "\u6700\u7ec8\u7b54\u6848\u662f42\u3002",
        "\u6545\u7b54\u6848\u4e3a42",
        "\u6700\u7ec8\u7b54\u6848\u4e3a\uff1a42",
        "\u7b54\u6848\u662f43\u3002",
    ),
    ("The answer is 2\u221a3.", r"The answer is $2\sqrt3$.", r"\boxed{2\sqrt{3}}", r"\boxed{3}"),
    ("42", "42.", "So\n42", "43"),
    ("The answer is seven.", "7", r"\boxed{\text{seven}}", "8"),
    (r"\boxed{1}, \boxed{2}", r"\boxed{1,2}", r"\boxed{2, 1}", r"\boxed{2}"),
    ("Option C is correct.", r"\boxed{\text{Option C}}", r"\boxed{C}", "The answer is (B)."),
]


@pytest.mark.parametrize("answers", ALIKE)
def test_different_writing_of_one_answer_votes_alike(maths, answers):
    [verdict] = maths.judge([Group("q", answers)])
    assert verdict.scores == (1.0, 1.0, 1.0, 0.0)


def test_what_is_stated_votes(maths):
    [verdict] = maths.judge([Group("q", (*STATED, "perhaps 5 or so", "none"))])
    assert verdict.scores == (1.0,) * 6 + (0.0,) * 2


@pytest.mark.parametrize(
    ("final", "known", "unknown"),
    [
        ("auto", (1, 1, 1, 0), (1, 1, 0, 0)),
        ("last", (1, 1, 1, 0), (1, 1, 1, 0)),
        ("stated", (1, 1, 0, 0), (1, 1, 0, 0)),
        ("boxed", (1, 0, 0, 0), None),
    ],
)
def test_where_the_final_answer_may_be_is_a_setting(maths, final, known, unknown):
    verifier = MathVerifier(final=final)
    verifier._checker = maths._checker
    answers = (r"\boxed{5}", "The answer is 5.", "Two and 5 remain.", "The answer is 6.")
    with_solution, without = verifier.judge([Group("q", answers, "5"), Group("q", answers)])
    assert with_solution.scores == known
    assert without.scores == unknown if unknown else without.kind == "undecided"


def test_an_unknown_place_of_the_final_answer_is_refused():
    with pytest.raises(ConfigError, match=r"MathVerifier\.final: is 'first'; set one of auto, "):
        MathVerifier(final="first")


def test_a_truncated_answer_never_votes_and_is_right_only_by_its_box(maths):
    answers = (r"\boxed{5}, since", "The answer is 5", "5", r"\boxed{5}")
    cut = (True, True, True, False)
    known, unknown, last = maths.judge(
        [
            Group("q", answers, 5, cut),
            Group("q", answers, None, cut),
            Group("q", ("5", "5", "6"), None, (True, False, False)),
        ]
    )
    assert known.scores == (1.0, 0.0, 0.0, 1.0)
    assert unknown.kind == last.kind == "undecided"  # one vote, and a tie


def test_a_round_tells_the_verifier_which_answers_were_cut_off():
    class Sees(RoundVerifier):
        def judge(self, groups):
            self.truncated = [group.truncated for group in groups]
            return [Verdict.of([0.0, 0.0])] * len(groups)

    verifier = Sees()
    played = playout(["a", "b"], [["x", "y"], ["x", "y"]])
    cut = replace(played.answers, truncated=torch.tensor([False, True, True, False]))
    VerifiableReward(verifier).score(replace(played, answers=cut))
    assert verifier.truncated == [(False, True), (True, False)]
    assert Group("q", ("x", "y")).cut == (False, False)


ODD_SOLUTIONS = [10**10_000, -(10**10_000), float("nan"), float("inf"), "(" * 100_000, "\ud800"]


@pytest.mark.parametrize("solution", ODD_SOLUTIONS, ids=lambda s: type(s).__name__)
def test_a_solution_that_cannot_be_compared_leaves_the_group_unjudged(maths, solution):
    [verdict] = maths.judge([Group("q", (r"\boxed{5}", "\ud800", "9" * 10_000), solution)])
    assert verdict.kind == "unjudged"


def test_a_nested_solution_is_refused_or_leaves_the_group_unjudged(maths):
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(ValueError, match="must be a text or a number, not list"):
        maths.require(nested)
    [verdict] = maths.judge([Group("q", ("5",), nested)])
    assert verdict.kind == "unjudged"


@pytest.mark.parametrize("solution", ODD_SOLUTIONS[:4], ids=lambda s: type(s).__name__)
def test_a_number_that_cannot_be_compared_is_refused_at_the_start(maths, solution):
    with pytest.raises(ValueError, match="must be a finite number of at most 1,000 digits"):
        maths.require(solution)


def test_odd_answers_are_wrong(maths):
    odd = ("9" * 10_000, rf"\boxed{{{'9' * 10_000}}}", "\ud800", r"\boxed{\ud800}", "(" * 100_000)
    [known, unknown] = maths.judge([Group("q", odd, 5), Group("q", odd)])
    assert known.scores == (0.0,) * 5
    assert sum(unknown.scores) == 0 or unknown.kind == "undecided"


def test_numbers_are_solutions_too(maths):
    groups = [Group("q", boxed("0.00001", "1"), 1e-05), Group("q", boxed("100000", "1"), 1e5)]
    assert [list(v.scores) for v in maths.judge(groups)] == [[1.0, 0.0]] * 2
    with pytest.raises(ValueError, match="must be a text or a number, not bool"):
        maths.require(True)
    with pytest.raises(ValueError, match="must be a text or a number, not list"):
        maths.require([1])


def test_an_answer_that_cannot_be_compared_is_wrong_not_excused(maths, monkeypatch):
    nan = float("nan")
    monkeypatch.setattr(
        maths._checker, "grade", lambda pairs, final: [[1.0, nan, 0.0], [nan, nan, nan]]
    )
    monkeypatch.setattr(
        maths._checker, "classes", lambda groups, _: [[0, 0, None, 1]] * len(groups)
    )
    some, none, vote = maths.judge(
        [
            Group("q", boxed("7", "x", "8"), "7"),
            Group("q", boxed("7", "x", "8"), "?"),
            Group("q", boxed("7", "7", "x", "8")),
        ]
    )
    assert some.scores == (1.0, 0.0, 0.0)
    assert some.info["undecided"] == pytest.approx(1 / 3)
    assert all(map(isnan, none.scores))  # the solution itself cannot be read
    assert none.kind == "unjudged"
    assert vote.scores == (1.0, 1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    "settings", [{"seconds": 0.0}, {"min_agreement": 0.0}, {"min_agreement": 5}]
)
def test_settings_that_cannot_work_are_refused_at_once(settings):
    [name] = settings
    with pytest.raises(ConfigError, match=rf"MathVerifier\.{name}: is "):
        MathVerifier(**settings)


# -- program output --------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[MontySandbox, BubblewrapSandbox])
def programs(request):
    if request.param is BubblewrapSandbox:
        require_bubblewrap()
    verifier = ProgramOutputVerifier(request.param(Limits(seconds=0.5)))
    yield verifier
    verifier.close()


#: Programs whose output changes from run to run: they would maximise `learnability`.
COINS = [
    "import random\nprint(random.randint(0, 1))",
    "from random import random as r\nprint(r() < 0.5)",
    "import time\nprint(int(time.time()) // 30)",
    "import datetime\nprint(datetime.date.today())",
    "import os\nprint(os.urandom(1)[0] % 2)",
    "print(hash('a') % 2)",
    "print(id([]) % 7)",
    "print(object())",
    "m = __import__('random')\nprint(m.random())",
]


@pytest.mark.parametrize("coin", COINS)
def test_a_program_that_asks_for_chance_is_malformed(programs, coin):
    [verdict] = programs.judge([Group(coin, ("0", "1"))])
    assert verdict == Verdict.malformed(2)


def test_sets_of_texts_have_an_order_in_each_world_only():
    require_bubblewrap()
    verifier = ProgramOutputVerifier(BubblewrapSandbox(), worlds=4)
    source = "print(list({'a', 'b', 'c', 'd', 'e'}))"
    assert verifier.judge([Group(source, ("x",))]) == [Verdict.malformed(1)]
    [verdict] = verifier.judge([Group("print(sorted({'b', 'a'}))", ("['a', 'b']",))])
    assert verdict.scores == (1.0,)
    verifier.close()


@pytest.mark.parametrize(
    "query",
    ["", "What is 2 + 2?", "print(", "1 / 0", "x = 1", "print()", "while True: pass",
     "print('x' * 5000)", "open('/etc/passwd')", "print(input())"],
)  # fmt: skip
def test_what_does_not_run_or_prints_nothing_or_too_much_is_malformed(programs, query):
    [verdict] = programs.judge([Group(query, ("", "4"))])
    assert verdict == Verdict.malformed(2)


def test_a_program_may_print_1000_characters(programs):
    verdicts = programs.judge([Group(f"print('x' * {n})", ("x" * n,)) for n in (1000, 1001)])
    well_formed = Verdict.of([1.0], {"statements": 1, "output_characters": 1000})
    assert verdicts == [well_formed, Verdict.malformed(1)]


def test_a_program_within_prose_runs_and_its_output_is_the_right_answer(programs):
    query = "Predict it.\n```python\ntime = [3, 1]\nfor t in sorted(time):\n    print(t)\n```\n"
    answers = ("1\n3", "Here:\n```\n1 \n3\n```", "1 3", "1\n3\n5")
    [verdict] = programs.judge([Group(query, answers)])
    assert verdict.scores == (1.0, 1.0, 0.0, 0.0)
    assert verdict.info["statements"] == 3


# -- by the command line ---------------------------------------------------------------------------


def fit(tmp_path, monkeypatch, rewards, *more):
    """The exit status of a run with these rewards, typed in ``tmp_path``."""
    overlay = tmp_path / "rewards.yaml"
    overlay.write_text(json.dumps({"model": {"rewards": rewards}}))
    command = ["fit", "--config", str(ROOT / "configs/tiny_lsp.yaml"), "--config", str(overlay)]
    command += ["--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.max_steps", "1"]
    command += ["--data.heldout", "null", "--data.num_queries", "2", "--data.group_size", "2"]
    command += ["--data.gate", "null", "--data.pool", "null"]
    monkeypatch.chdir(tmp_path)
    return main([*command, *more])


def verifiable(verifier, **init_args):
    arguments = {"verifier": {"class_path": verifier, "init_args": init_args}}
    return {"class_path": "lsp_lightning.VerifiableReward", "init_args": arguments}


EXACT = verifiable("lsp_lightning.tinyworld.verifier.TinyWorldVerifier")


@pytest.mark.usefixtures("untouched_process")
def test_rewards_in_a_module_beside_the_config_are_found(tmp_path, monkeypatch):
    (tmp_path / "rewards_beside_a_config.py").write_text(
        "def score(query, answers, solution):\n    return [float(len(a)) for a in answers]\n"
    )
    mine = {"class_path": "lsp_lightning.FunctionReward"}
    mine["init_args"] = {"function": "rewards_beside_a_config.score"}
    assert fit(tmp_path, monkeypatch, [mine]) == 0


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize(
    ("rewards", "more", "error"),
    [
        (
            [verifiable("lsp_lightning.CodeVerifier")],
            (),
            "data.queries: CodeVerifier needs solutions, but a Challenger writes none; ",
        ),
        (
            [EXACT, {"class_path": "lsp_lightning.NoveltyReward"}],
            ("--data.queries", "lsp_lightning.PromptFile", "--data.queries.path", "@FILE@"),
            "model.rewards: 'novelty' rewards the Challenger, but data.queries reads queries from "
            "a file; ",
        ),
        (
            [
                {
                    "class_path": "lsp_lightning.JudgeReward",
                    "init_args": {"url": "http://127.0.0.1:9/v1", "model": "m"},
                }
            ],
            (),
            "model.rewards.JudgeReward.url: no server at http://127.0.0.1:9/v1 (",
        ),
        (
            [EXACT, {"class_path": "lsp_lightning.LengthReward", "init_args": {"low": 1}}],
            (),
            "model.rewards.init_args.high: not set; ",
        ),
    ],
)
def test_what_cannot_work_is_said_in_a_line_before_a_model_is_loaded(
    tmp_path, monkeypatch, capsys, rewards, more, error
):
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda *args, **kwargs: pytest.fail("a model was loaded"),
    )
    file = ROOT / "lsp_lightning/tinyworld/data/dev.jsonl"
    more = [str(file) if word == "@FILE@" else word for word in more]
    assert fit(tmp_path, monkeypatch, rewards, *more) == 2
    said = capsys.readouterr().err
    assert said.strip().splitlines()[-1].startswith(f"error: {error}"), said
    assert "Traceback" not in said
