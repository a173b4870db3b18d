"""Judges the first round of a run: is there anything to learn?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import TextWrapper
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.callbacks.groups import (
    alike_groups,
    differing_groups,
    is_binary,
    malformed_queries,
)
from lsp_lightning.callbacks.remedies import Remedies, Stall
from lsp_lightning.callbacks.stalls import is_flat, known_scores, malformed, stalls, weighted
from lsp_lightning.callbacks.written import counts, remedy_of_refusals
from lsp_lightning.functional import group_std
from lsp_lightning.game.gate import WellFormed
from lsp_lightning.game.gate.gate import INVALID
from lsp_lightning.rewards import LengthReward, Reward
from lsp_lightning.training.query_metrics import refusals
from lsp_lightning.types import SelfPlayRound

#: A game can start if one in so many of its queries is well-formed, and R differs in one in so many
#: of its groups: see :func:`pilot_verdict`.
ONE_IN = 10
#: With smaller shares of well-formed queries and of groups a game is slow at first.
_WELL_FORMED, _GROUPS = 0.5, 0.25
#: What is wrong with a query without a right answer, also by the gate's check WellFormed.
MALFORMED = WellFormed.reason
#: Largest share of completions that may be cut off.
_CUT = 0.25
_LONG_HOURS = 24


@dataclass(frozen=True)
class Finding:
    """One line of a verdict."""

    subject: str
    """What was looked at: queries, R, Q, length or time."""
    word: str
    """ok, or what is wrong; "-" if there is nothing to look at."""
    figure: str
    """What was seen."""
    remedy: str = ""
    """What to change, with its config key; empty if nothing is wrong."""

    @property
    def text(self) -> str:
        """The figure and the remedy."""
        return f"{self.figure}; {self.remedy}" if self.remedy else self.figure


@dataclass(frozen=True)
class PilotVerdict:
    """What the first round of a run tells about the run."""

    findings: tuple[Finding, ...]
    """Its lines."""
    can_start: bool
    """Whether there is enough to learn from, see :func:`pilot_verdict`."""

    def lines(self, width: int) -> list[str]:
        """All findings as a table of ``width`` columns, and whether the game can start."""
        wrapper = TextWrapper(
            width, subsequent_indent=" " * 18, break_long_words=False, break_on_hyphens=False
        )
        rows = [f"{f.subject:<7}  {f.word:<7}  {f.text}" for f in self.findings]
        can = "can" if self.can_start else "cannot"
        return [line for row in [*rows, f"the game {can} start"] for line in wrapper.wrap(row)]

    def short(self) -> list[str]:
        """One line about queries and R if all is well, else the lines that are wrong."""
        wrong = [f"pilot: {f.subject} {f.word}: {f.text}" for f in self.findings if f.remedy]
        if not self.can_start:
            wrong.append("pilot: the game cannot start like this; the run goes on")
        seen = (f"{f.subject} {f.figure}" for f in self.findings[:2] if f.word != "-")
        return wrong or [f"pilot: {'; '.join(seen)}"]


def pilot_verdict(
    played: SelfPlayRound,
    rewards: Sequence[Reward],
    data: Any,
    seconds: Mapping[str, float] | None = None,
    rounds: int = 0,
) -> PilotVerdict:
    """Judge a round that was played before any training.

    The game can start if one in ten of the queries is well-formed and R differs in one in ten of
    the groups (rounded down, but at least one of each). Where all answers have the same R, the
    Solver learns nothing from R and ``Learnability`` pays the Challenger nothing, so without a
    group in which R differs there is nothing to improve on. Few are enough to begin with: games of
    a 135M model that began with 1 and with 2 well-formed queries of 12 learned, though it took 20
    to 30 rounds until most queries were well-formed. A share below one in ten cannot be told from
    none in a round of 8 to 16 queries.

    Args:
        played: the scored round.
        rewards: the rewards of the run.
        data: the run's DataModule, for the settings that a line names.
        seconds: wall time of the round by phase; None leaves out the line about time.
        rounds: rounds of the whole run, for its time.
    """
    remedies = Remedies(data, rewards)
    found = list(stalls(played, rewards, data))
    queries, enough_queries = _queries(played, rewards, remedies, found)
    of_R, enough_groups = _of_R(played, rewards, remedies, found, queries, enough_queries)
    findings = [queries, of_R, _of_Q(played, rewards, found), _length(played, rewards, remedies)]
    if seconds is not None:
        findings.append(_time(seconds, rounds))
    return PilotVerdict(tuple(findings), enough_queries and enough_groups)


def _queries(
    played: SelfPlayRound, rewards: Sequence[Reward], remedies: Remedies, found: Sequence[Stall]
) -> tuple[Finding, bool]:
    """How many queries are well-formed, of all that were written; and whether these are enough."""
    written = played.playout.written
    if written is None and not malformed(played, rewards):
        return Finding("queries", "-", "known before the run, and no verifier reads them"), True
    bad = _bad_queries(played, rewards)
    total = len(played.playout.query_texts if written is None else written.valid_C)
    good = total - sum(bad.values())
    only_form = set(bad) <= {INVALID, MALFORMED}
    figure = f"{good} of {total} {'well-formed' if only_form else 'usable'}{counts(bad)}"
    word = _word(good, total, _WELL_FORMED)
    if word == "ok":
        return Finding("queries", word, figure), True
    reason = max(bad, key=lambda name: (bad[name], name == MALFORMED))
    causes = ("queries", "malformed") if reason == MALFORMED else ("queries",)
    stall = next((s for s in found if s.cause.startswith(causes)), None)
    if stall is not None:
        return Finding("queries", word, f"{figure}: {stall.fact}", stall.remedy), False
    remedy = remedies.queries_in_form
    if written is not None:
        remedy = remedy_of_refusals(written, {reason: bad[reason]}, remedies)
    return Finding("queries", word, figure, remedy), _enough(good, total)


def _bad_queries(played: SelfPlayRound, rewards: Sequence[Reward]) -> dict[str, int]:
    """How many of the written queries are no good, by what is wrong with them.

    The gate names what it refused; a verifier may find others malformed.
    """
    malformed_N, written = malformed_queries(played, rewards), played.playout.written
    if written is None:
        return {INVALID: 0, MALFORMED: int(malformed_N.sum())}
    passed_C = torch.ones_like(written.valid_C)
    passed_C[list(written.refused)] = False
    # a source may leave some unanswered
    invalid_C = passed_C & (~written.valid_C | (written.answered_C < 0))
    malformed_C = passed_C & ~invalid_C & malformed_N[written.answered_C]
    found = {INVALID: int(invalid_C.sum()), MALFORMED: int(malformed_C.sum())}
    for reason, count in refusals(written).items():
        found[reason] = found.get(reason, 0) + count
    return found


def _of_R(
    played: SelfPlayRound,
    rewards: Sequence[Reward],
    remedies: Remedies,
    found: Sequence[Stall],
    queries: Finding,
    enough_queries: bool,
) -> tuple[Finding, bool]:
    """In how many groups R differs between answers; and whether these are enough."""
    differs_N = differing_groups(played, rewards)
    outside_N = differs_N & ~played.trained_N
    alike = {
        **alike_groups(played, rewards, ~differs_N),
        "outside of data.gate.solve_rate": int(outside_N.sum()),
    }
    total, count = len(differs_N), int((differs_N & ~outside_N).sum())
    figure = f"differs in {count} of {total} groups{counts(alike)}"
    if played.judged_NG.any():
        figure += f", mean {played.rewards_NG[played.judged_NG].mean():z.2f}"
    if not is_binary(rewards):
        figure += _spread(played.rewards_NG, played.judged_NG)
    word = _word(count, total, _GROUPS)
    if word == "ok":
        return Finding("R", word, figure), True
    enough, follows = _enough(count, total), "this follows from the queries"
    if not enough_queries:
        return Finding("R", word, figure, follows), enough
    if played.playout.group_size < 2:
        return Finding("R", word, figure, "raise data.group_size: answers are compared"), enough
    stall = next((s for s in found if not s.cause.startswith("Q constant")), None)
    if stall is not None:
        return Finding("R", word, f"{figure}: {stall.fact}", stall.remedy), enough
    of_kind = (
        follows,
        follows,
        remedies.easier_queries,
        remedies.harder_queries,
        "change the reward (model.rewards) or the queries (data.queries)",
        remedies.medium_queries,
        remedies.wider_range,
    )
    remedy_of = dict(zip(alike, of_kind, strict=True))
    # where the queries are well enough, the other groups tell what to change
    rest = [kind for kind, remedy in remedy_of.items() if remedy != follows]
    kinds = rest if queries.word == "ok" and any(alike[kind] for kind in rest) else list(alike)
    return Finding("R", word, figure, remedy_of[max(kinds, key=alike.__getitem__)]), enough


def _of_Q(played: SelfPlayRound, rewards: Sequence[Reward], found: Sequence[Stall]) -> Finding:
    """The range of each quality reward's scores, and whether they tell anything apart."""
    quality = [reward for reward in weighted(rewards) if reward.enters == "quality"]
    if not quality:
        return Finding("Q", "-", "no quality reward")
    figure = "; ".join(_range(played, reward) for reward in quality)
    stall = next((s for s in found if s.cause.startswith("Q constant")), None)
    if stall is not None:
        return Finding("Q", "flat", f"{figure}: {stall.fact}", stall.remedy)
    flat = any(is_flat(known_scores(played, reward), reward) for reward in quality)
    if flat:
        return Finding("Q", "-", f"{figure}, but there was nothing to judge")
    return Finding("Q", "ok", figure)


def _range(played: SelfPlayRound, reward: Reward) -> str:
    known = known_scores(played, reward)
    if not known.numel():
        return f"{reward.name!r} judged nothing"
    scores_NG = played.components[reward.name]
    range_ = f"{reward.name!r} {float(known.min()):z.2f} to {float(known.max()):z.2f}"
    return range_ + _spread(scores_NG.nan_to_num(), ~scores_NG.isnan())


def _spread(scores_NG: Tensor, judged_NG: Tensor) -> str:
    std = group_std(scores_NG, judged_NG).nanmean()
    return "" if std.isnan() else f", standard deviation {std:.2f} in a group"


def _length(played: SelfPlayRound, rewards: Sequence[Reward], remedies: Remedies) -> Finding:
    """How many completions were cut off."""
    written, answers = played.playout.written, played.playout.answers.truncated
    parts = {"answers": (answers, remedies.longer_answers)}
    if written is not None:
        parts = {"queries": (written.rollouts.truncated, remedies.longer_queries), **parts}
    figure = ", ".join(f"{int(cut.sum())} of {len(cut)} {name}" for name, (cut, _) in parts.items())
    figure += " cut off"
    longest = int(played.playout.answers.completion_mask.sum(1).max())
    lengths = [r for r in weighted(rewards) if isinstance(r, LengthReward)]
    paid = [r.name for r in lengths if r.weight > 0 and r.shortens(longest)]
    if paid and answers.float().mean() > _CUT:
        figure += f", and {paid[0]!r} pays for shorter answers"
        del parts["answers"]
    high = [remedy for cut, remedy in parts.values() if cut.float().mean() > _CUT]
    return Finding("length", "cut off" if high else "ok", figure, " and ".join(high))


def _time(seconds: Mapping[str, float], rounds: int) -> Finding:
    """Seconds of a round by phase, and the time of the whole run."""
    total = sum(seconds.values())
    hours = total * rounds / 3600
    if hours >= 1:
        whole = f"about {hours:.1f} h"
    else:
        whole = f"about {60 * hours:.0f} min" if hours >= 1 / 60 else "less than a minute"
    phases = ", ".join(f"{phase} {s:.1f}" for phase, s in seconds.items())
    rounds_take = "1 round takes" if rounds == 1 else f"{rounds} rounds take"
    figure = f"{total:.1f} s a round ({phases}); {rounds_take} {whole}"
    if hours <= _LONG_HOURS:
        return Finding("time", "ok", figure)
    remedy = (
        "lower data.num_queries, data.group_size, data.solver.max_new_tokens or trainer.max_steps"
    )
    return Finding("time", "long", figure, remedy)


def _enough(count: int, total: int) -> bool:
    """Whether a game can start with so many, see :func:`pilot_verdict`."""
    return count >= max(1, total // ONE_IN)


def _word(count: int, total: int, ok: float) -> str:
    if not count:
        return "none"
    if not _enough(count, total):
        return "too few"
    return "ok" if count >= ok * total else "low"
