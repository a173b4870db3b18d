"""pass@k of the policy and of its reference on tasks that a program can check."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lsp_lightning.evaluation.answers import Contestant, Told
from lsp_lightning.evaluation.exam import Exam
from lsp_lightning.evaluation.ledger import Ledger
from lsp_lightning.evaluation.result import Evaluation, numbers, share
from lsp_lightning.evaluation.scores import Case, Scorer
from lsp_lightning.functional.evaluation import (
    difference_interval,
    pass_at_k,
    proportion_interval,
)
from lsp_lightning.text.terminal import cut, escaped

#: Most draws: more take long, and say little about pass@1.
MOST_DRAWS = 64
_WIDEST = 24


@dataclass(frozen=True)
class TaskSet:
    """Tasks of one file."""

    name: str
    """What the table calls it."""
    exam: Exam
    """The tasks, and how they are answered."""


def solved(
    sets: Sequence[TaskSet],
    policy: Contestant,
    base: Contestant,
    scorer: Scorer,
    answers: Ledger,
    judgements: Ledger,
    told: Told,
    opponent: str,
) -> Evaluation:
    """The share of tasks solved by greedy and by sampled answers, and pass@k, k = 1, 2, 4 ...

    Args:
        sets: the tasks.
        policy: the policy.
        base: the reference.
        scorer: a binary reward.
        answers: keeps answers.
        judgements: keeps scores.
        told: is told what is done.
        opponent: the reference's name.

    Raises:
        RewardError: the reward failed.
    """
    rows: list[list[str]] = []
    results: dict[str, Any] = {}
    for part in sets:
        ours, theirs = (
            _by_task(part.exam, player, scorer, answers, judgements, told)
            for player in (policy, base)
        )
        results[part.name] = {}
        for name, mine in ours.items():
            estimates = [proportion_interval(mine), proportion_interval(theirs[name])]
            gain = difference_interval(mine - theirs[name])
            n = int((~(mine - theirs[name]).isnan()).sum())
            label = f"{cut(escaped(part.name), _WIDEST)}: {name}"
            rows.append([label, str(n), *map(share, (*estimates, gain))])
            results[part.name][name] = {
                "n": n,
                "policy": numbers(estimates[0]),
                "base": numbers(estimates[1]),
                "difference": numbers(gain),
            }
    name, judge = opponent.removeprefix("the "), escaped(repr(scorer.reward.name))
    return Evaluation(
        kind="pass_at_k",
        title=f"Tasks solved by the policy and by {opponent}, as {judge} decides",
        note=(
            "pass@k: the share of tasks that at least one of k sampled answers solves; greedy: "
            "that the most likely answer solves. The difference is paired: it compares both "
            "players on the same tasks. [95 % intervals over tasks.]"
        ),
        columns=("tasks", "n", "policy", name, f"policy - {name}"),
        rows=rows,
        results=results,
    )


def _by_task(
    exam: Exam,
    player: Contestant,
    scorer: Scorer,
    answers: Ledger,
    judgements: Ledger,
    told: Told,
) -> dict[str, Tensor]:
    """The estimates for each task, (tasks,), by the names of the table."""

    def scores(asked: Exam) -> Tensor:
        groups = player.answers(asked, answers, told)
        cases = [Case(*case) for case in zip(asked.tasks, asked.prompts, groups, strict=True)]
        return scorer.scores(cases, judgements, told)

    sampled = scores(exam.drawn_from("solved"))  # one seed for both, as they are paired
    found = {"greedy": scores(exam.greedy).squeeze(1)}
    k = 1
    while k <= exam.draws:
        found[f"pass@{k}"] = pass_at_k(sampled, k)
        k *= 2
    return found
