"""Code: does the function in the answer pass the tests?"""

import math
from collections.abc import Sequence

from lsp_lightning.checks.code import FunctionTests, code_block, read_tests, same_value
from lsp_lightning.rewards.verdict import Group, Verdict
from lsp_lightning.rewards.verifiable import RoundVerifier
from lsp_lightning.sandbox import MontySandbox, Outcome, Program, Sandbox


class CodeVerifier(RoundVerifier):
    """1 if the function in the answer returns the expected value in every test, else 0.

    The code runs in a sandbox that never sees the expected values. The returned values are compared
    outside of the sandbox: types must be equal, except that a tuple equals a list, an integer
    equals a float, and floats may differ by 1e-9 relative. An exit, a crash, a timeout or a forged
    report line gives 0. If the sandbox itself failed, the score is NaN.

    Args:
        sandbox: where the code runs; by default Monty, which supports a subset of Python.
    """

    needs_solution = True

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        self._sandbox = sandbox if sandbox is not None else MontySandbox()

    def prepare(self) -> None:
        """Raise ConfigError unless the sandbox works."""
        self._sandbox.prepare()

    def close(self) -> None:
        """Stop the sandbox's processes."""
        self._sandbox.close()

    def require(self, solution: object | None) -> None:
        """Raise ValueError unless :func:`lsp_lightning.checks.code.read_tests` can read it."""
        read_tests(solution)

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        """Start to run the code in the answer."""
        if answer is not None:
            self._sandbox.prefetch(_program(answer, read_tests(solution)))

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """Run all programs of the round and compare the returned values with the expected ones."""
        tests = [read_tests(group.solution) for group in groups]
        programs = [
            _program(answer, test)
            for group, test in zip(groups, tests, strict=True)
            for answer in group.answers
        ]
        outcomes = iter(self._sandbox.run_all(programs))
        return [
            Verdict.of([_score(next(outcomes), test) for _ in group.answers])
            for group, test in zip(groups, tests, strict=True)
        ]


def _program(answer: str, tests: FunctionTests) -> Program:
    """The program that runs an answer's function on the tests' arguments."""
    return Program(
        code_block(answer, defines=tests.function),
        tests.function,
        tuple(case.arguments for case in tests.cases),
    )


def _score(outcome: Outcome | None, tests: FunctionTests) -> float:
    """1 if every call returned the expected value, else 0; NaN if the sandbox itself failed."""
    if outcome is None:
        return math.nan
    return float(
        outcome.status == "ok"
        and len(outcome.values) == len(tests.cases)
        and all(
            same_value(value, case.expected)
            for value, case in zip(outcome.values, tests.cases, strict=True)
        )
    )
