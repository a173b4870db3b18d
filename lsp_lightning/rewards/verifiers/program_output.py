"""Program output: the query is a program, the answer is what it prints."""

import re
from collections.abc import Sequence
from math import nan

from lsp_lightning.checks.code import code_block
from lsp_lightning.errors import require_at_least
from lsp_lightning.rewards.verifiable import Group, RoundVerifier, Verdict
from lsp_lightning.sandbox import MontySandbox, Outcome, Program, Sandbox

_KEY = "model.rewards.VerifiableReward.verifier.ProgramOutputVerifier"
#: Where chance, clocks and addresses come from. A net with holes (running again finds most of the
#: rest) that also catches a few innocents: a program lost costs less than a coin that is paid.
_CHANCE = re.compile(
    r"^[^\n#]*\b(?:import|from)\b[^\n]*\b(?:random|secrets|time|datetime|uuid|os|importlib)\b"
    r"|\b(?:__import__|id|hash)\s*\(|\burandom\b|\bobject\s*\(\s*\)",
    re.MULTILINE,
)


class ProgramOutputVerifier(RoundVerifier):
    """Verifiable self-play without data: the Challenger writes programs, the Solver runs them.

    The truth is what the sandbox prints when it runs the query's last fenced block, or the whole
    query if it has none. A query that does not run, prints nothing, asks for chance or the time, or
    prints something else in another world (with other seeds) is malformed: a coin would be the best
    query that ``learnability`` knows. An answer is right if it is what was printed, up to white
    space at the ends of its lines; where it has a fenced block, that block counts.

    Monty prints some things otherwise than CPython (sets in order of insertion, rounded halves):
    where that matters, use the BubblewrapSandbox.

    Args:
        sandbox: where programs run; by default Monty, which speaks a part of Python.
        max_output: characters; programs that print more are malformed.
        worlds: in how many worlds a program must print the same.
    """

    def __init__(
        self, sandbox: Sandbox | None = None, max_output: int = 1000, worlds: int = 5
    ) -> None:
        require_at_least(worlds, 2, f"{_KEY}.worlds", "prints are compared")
        require_at_least(max_output, 1, f"{_KEY}.max_output", "a program must print something")
        self._sandbox = sandbox if sandbox is not None else MontySandbox()
        self._max_output = max_output
        self._worlds = worlds

    def prepare(self) -> None:
        """Probe the sandbox."""
        self._sandbox.prepare()

    def close(self) -> None:
        """End the sandbox's processes."""
        self._sandbox.close()

    def prefetch(self, query: str, answer: str | None, solution: object | None) -> None:
        """Run the query in its first world, and where it has printed something, in the others."""
        source = code_block(query)
        if answer is None:
            self._sandbox.prefetch(Program(source))
        elif self._printed(source, self._sandbox.prefetched(Program(source))):
            for world in range(1, self._worlds):
                self._sandbox.prefetch(Program(source, world=world))

    def judge(self, groups: Sequence[Group]) -> list[Verdict]:
        """Each query's program is run, in several worlds; what it prints decides its answers."""
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
        """What a program has printed; nothing where it is malformed by what is seen already."""
        if outcome is None or outcome.status != "ok" or _CHANCE.search(source):
            return ""
        printed = _lines(outcome.output)
        return printed if len(printed) <= self._max_output else ""

    def _verdict(
        self,
        group: Group,
        source: str,
        first: Outcome | None,
        others: Sequence[Outcome | None] | None,
    ) -> Verdict:
        if first is None or (others is not None and None in others):
            return Verdict([nan] * len(group.answers))
        if others is None or any(other != first for other in others):
            return Verdict([0.0] * len(group.answers), info=None)
        printed = _lines(first.output)
        scores = [float(_lines(code_block(answer)) == printed) for answer in group.answers]
        statements = re.split(r"[;\n]+", source.strip(" ;\n"))
        return Verdict(scores, {"statements": len(statements), "output_characters": len(printed)})


def _lines(text: str) -> str:
    """The text without white space at the ends of its lines and without empty ends."""
    return "\n".join(line.rstrip() for line in text.strip().splitlines())
