"""Code: does the answer's function do what the tests say?"""

from collections.abc import Sequence
from math import nan

from lsp_lightning.checks.code import FunctionTests, code_block, read_tests, same_value
from lsp_lightning.rewards.verifiable import Group, RoundVerifier, Verdict
from lsp_lightning.sandbox import MontySandbox, Outcome, Program, Sandbox


class CodeVerifier(RoundVerifier):
    """1 for code whose function returns what every test expects, 0 for all else.

    The code runs in a sandbox that never sees what is expected; what it returns is compared here,
    as plain values of exact types. An exit, a crash, a time-out or a forged line is no pass.

    Args:
        sandbox: where it runs; by default Monty, which speaks a part of Python.
    """

    needs_solution = True

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        self._sandbox = sandbox if sandbox is not None else MontySandbox()

    def prepare(self) -> None:
        """Probe the sandbox."""
        self._sandbox.prepare()

    def close(self) -> None:
        """End the sandbox's processes."""
        self._sandbox.close()

    def require(self, solution: object | None) -> None:
        """References are tests, see :func:`lsp_lightning.checks.code.read_tests`."""
        read_tests(solution)

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        """Run the answer's code."""
        if answer is not None:
            self._sandbox.prefetch(_program(answer, read_tests(solution)))

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """All programs of the round, side by side."""
        tests = [read_tests(group.solution) for group in groups]
        programs = [
            _program(answer, test)
            for group, test in zip(groups, tests, strict=True)
            for answer in group.answers
        ]
        outcomes = iter(self._sandbox.run_all(programs))
        return [
            Verdict([_score(next(outcomes), test) for _ in group.answers])
            for group, test in zip(groups, tests, strict=True)
        ]


def _program(answer: str, tests: FunctionTests) -> Program:
    """What is run of an answer."""
    return Program(
        code_block(answer, defines=tests.function),
        tests.function,
        tuple(case.arguments for case in tests.cases),
    )


def _score(outcome: Outcome | None, tests: FunctionTests) -> float:
    """1 where every call returned what its test expects; NaN where the sandbox itself failed."""
    if outcome is None:
        return nan
    return float(
        outcome.status == "ok"
        and len(outcome.values) == len(tests.cases)
        and all(
            same_value(value, case.expected)
            for value, case in zip(outcome.values, tests.cases, strict=True)
        )
    )
