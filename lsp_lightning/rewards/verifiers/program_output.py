"""Program output: the query is a program, the answer is what it prints."""

import re
from collections.abc import Sequence
from math import nan

from lsp_lightning.checks.code import code_block
from lsp_lightning.rewards.verifiable import Group, RoundVerifier, Verdict
from lsp_lightning.sandbox import MontySandbox, Outcome, Program, Sandbox


class ProgramOutputVerifier(RoundVerifier):
    """Verifiable self-play without data: the Challenger writes programs, the Solver runs them.

    The truth is what the sandbox prints when it runs the query's last fenced block, or the whole
    query if it has none. A query that does not run, prints nothing, or prints something else the
    second time is malformed. An answer is right if it is what was printed, up to white space at
    the ends of its lines; where it has a fenced block, that block counts.

    Args:
        sandbox: where programs run; by default Monty, which speaks a part of Python.
        max_output: characters; programs that print more are malformed.
    """

    def __init__(self, sandbox: Sandbox | None = None, max_output: int = 1000) -> None:
        self._sandbox = sandbox if sandbox is not None else MontySandbox()
        self._max_output = max_output

    def prepare(self) -> None:
        """Probe the sandbox."""
        self._sandbox.prepare()

    def close(self) -> None:
        """End the sandbox's processes."""
        self._sandbox.close()

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """Each query's program is run twice; what it printed decides its answers."""
        programs = [Program(code_block(group.query)) for group in groups]
        outcomes = self._sandbox.run_all([*programs, *programs])
        firsts, seconds = outcomes[: len(groups)], outcomes[len(groups) :]
        return [
            self._verdict(group, first, second)
            for group, first, second in zip(groups, firsts, seconds, strict=True)
        ]

    def _verdict(self, group: Group, first: Outcome | None, second: Outcome | None) -> Verdict:
        if first is None or second is None:
            return Verdict([nan] * len(group.answers))
        printed = _lines(first.output)
        runs = first.status == second.status == "ok"
        if not (runs and printed and first.output == second.output) or (
            len(printed) > self._max_output
        ):
            return Verdict([0.0] * len(group.answers), facts=None)
        scores = [float(_lines(code_block(answer)) == printed) for answer in group.answers]
        statements = re.split(r"[;\n]+", code_block(group.query).strip(" ;\n"))
        return Verdict(scores, {"statements": len(statements), "output_characters": len(printed)})


def _lines(text: str) -> str:
    """The text without white space at the ends of its lines and without empty ends."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
