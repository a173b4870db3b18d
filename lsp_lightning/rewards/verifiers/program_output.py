"""Program output: the query is a program, the right answer is what it prints."""

import re
from collections.abc import Sequence

from lsp_lightning.checks.code import code_block
from lsp_lightning.errors import require_at_least
from lsp_lightning.rewards.verdict import Group, Verdict
from lsp_lightning.rewards.verifiable import RoundVerifier
from lsp_lightning.sandbox import MontySandbox, Outcome, Program, Sandbox

_KEY = "model.rewards.VerifiableReward.verifier.ProgramOutputVerifier"
#: Most characters that a program may print.
_MAX_OUTPUT = 1000
#: Finds randomness, time and addresses in a program. Running in several worlds finds most of what
#: this misses. It also refuses a few harmless programs; rewarding a random one would be worse.
_CHANCE = re.compile(
    r"^[^\n#]*\b(?:import|from)\b[^\n]*\b(?:random|secrets|time|datetime|uuid|os|importlib)\b"
    r"|\b(?:__import__|id|hash)\s*\(|\burandom\b|\bobject\s*\(\s*\)",
    re.MULTILINE,
)


class ProgramOutputVerifier(RoundVerifier):
    """Verifiable self-play without data: the Challenger writes programs, the Solver predicts them.

    The sandbox runs the last fenced block of the query, or the whole query if it has none. An
    answer is right if it equals what the program printed, except for white space at the ends of
    lines. If the answer has a fenced block, that block counts.

    A query is malformed if it does not run, prints nothing or more than 1,000 characters, uses
    randomness or the time, or prints something else in another world (with other random seeds).
    Otherwise a random program would maximise ``learnability``.

    Monty prints some things differently from CPython (sets in order of insertion, rounded halves).
    If that matters, use the BubblewrapSandbox.

    Args:
        sandbox: where programs run; by default Monty, which supports a subset of Python.
        worlds: number of worlds (runs with different seeds) in which a program must print the same.
    """

    def __init__(self, sandbox: Sandbox | None = None, worlds: int = 5) -> None:
        require_at_least(worlds, 2, f"{_KEY}.worlds", "outputs are compared")
        self._sandbox = sandbox if sandbox is not None else MontySandbox()
        self._worlds = worlds

    def prepare(self) -> None:
        """Raise ConfigError unless the sandbox works."""
        self._sandbox.prepare()

    def close(self) -> None:
        """Stop the sandbox's processes."""
        self._sandbox.close()

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        """Start to run the query in world 0, and in the others once world 0 has an output."""
        source = code_block(query)
        if answer is None:
            self._sandbox.prefetch(Program(source))
        elif self._printed(source, self._sandbox.prefetched(Program(source))):
            for world in range(1, self._worlds):
                self._sandbox.prefetch(Program(source, world=world))

    def well_formed(self, queries: Sequence[str]) -> list[bool]:
        """Whether each program prints the same in all worlds; True if the sandbox failed."""
        verdicts = self.judge([Group(query, ()) for query in queries])
        return [verdict.kind != "malformed" for verdict in verdicts]

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """Run each query in several worlds and compare the answers with its output."""
        sources = [code_block(group.query) for group in groups]
        firsts = self._sandbox.run_all([Program(source) for source in sources])
        sound = [i for i, first in enumerate(firsts) if self._printed(sources[i], first)]
        others = range(1, self._worlds)
        again = self._sandbox.run_all(
            [Program(sources[i], world=world) for i in sound for world in others]
        )
        prints: dict[int, list[Outcome | None]] = {i: [] for i in sound}
        for k, outcome in enumerate(again):
            prints[sound[k // len(others)]].append(outcome)
        return [
            self._verdict(group, source, first, prints.get(i))
            for i, (group, source, first) in enumerate(zip(groups, sources, firsts, strict=True))
        ]

    def _printed(self, source: str, outcome: Outcome | None) -> str:
        """What a program printed; "" if it is malformed already, or has no outcome."""
        if outcome is None or outcome.status != "ok" or _CHANCE.search(source):
            return ""
        printed = _lines(outcome.output)
        return printed if len(printed) <= _MAX_OUTPUT else ""

    def _verdict(
        self,
        group: Group,
        source: str,
        first: Outcome | None,
        others: Sequence[Outcome | None] | None,
    ) -> Verdict:
        if first is None or (others is not None and None in others):
            return Verdict.unjudged(len(group.answers))
        if others is None or any(other != first for other in others):
            return Verdict.malformed(len(group.answers))
        printed = _lines(first.output)
        scores = [float(_lines(code_block(answer)) == printed) for answer in group.answers]
        statements = re.split(r"[;\n]+", source.strip(" ;\n"))
        info = {"statements": len(statements), "output_characters": len(printed)}
        return Verdict.of(scores, info)


def _lines(text: str) -> str:
    """The text without white space at the ends of lines and without empty lines at both ends."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
