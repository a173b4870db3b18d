"""Scores on held-out tasks: share solved, win rate against the reference, or mean reward."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.evaluation.exam import Exam, Opponent
from lsp_lightning.functional.evaluation import mean_and_error, pass_at_k, task_means
from lsp_lightning.game.known_queries import Query
from lsp_lightning.game.player import FrozenPlayer, Player
from lsp_lightning.rewards import Reward, RewardError
from lsp_lightning.types import Sampling

_KEY = "data.heldout_reward"

#: What a held-out score means: the share of tasks solved, the win rate against the reference, or
#: the mean reward of the answers.
Kind = Literal["solved", "win_rate", "mean"]


@dataclass(frozen=True)
class HeldOutScore:
    """Scores of some tasks."""

    sampled: Tensor
    """(tasks, draws) scores of sampled answers; NaN for an answer that could not be judged."""
    greedy: Tensor
    """(tasks,) scores of the greedy answers; NaN as above."""
    kind: Kind = "solved"
    """What the scores mean, see :data:`Kind`."""
    undecided: bool = False
    """Whether NaN is a finding of the reward, such as "no majority", and not a failure."""

    def by_task(self) -> dict[str, Tensor]:
        """One score for each task, (tasks,), by the names they are logged under.

        With k > 1 draws to each task and kind "solved" there is also pass@k, over the same tasks as
        the mean of the draws.
        """
        draws = self.sampled.shape[1]
        found = {"heldout/sampled": task_means(self.sampled), "heldout/greedy": self.greedy}
        if draws > 1 and self.kind == "solved":
            found[f"heldout/pass@{draws}"] = pass_at_k(self.sampled, draws)
        return found

    @property
    def judged(self) -> int:
        """How many of the tasks have a score."""
        return int((~(self.sampled.isnan().all(dim=1) & self.greedy.isnan())).sum())

    def require_judged(self, reward: Reward) -> None:
        """Raise RewardError if the reward failed at every answer."""
        if not self.judged and not self.undecided:
            raise RewardError(
                f"reward {reward.name!r} could not judge any held-out answer; check its "
                "warnings, or set data.heldout_reward to another reward"
            )


class HeldOutBoard:
    """Collects the held-out scores of one pass over the tasks and keeps those of the last pass."""

    def __init__(self) -> None:
        self._pass: list[HeldOutScore] = []
        self._reward: Reward | None = None
        #: Scores of the last finished pass, by the names they are logged under: means over tasks,
        #: the standard error of each as ``NAME_se``, and the number of judged tasks.
        self.scores: dict[str, Tensor] = {}
        #: What the scores mean.
        self.kind: Kind = "solved"
        #: Remembers the reference's answers, for win rates.
        self.opponent = Opponent()

    def score(self, player: Player, exam: Exam, kind: Kind, reference: FrozenPlayer) -> None:
        """Let the player take an exam and add its scores to this pass.

        Args:
            player: the policy.
            exam: some tasks.
            kind: what the scores mean.
            reference: the opponent of a win rate.
        """
        self._reward = exam.reward
        if kind == "win_rate":
            self.add(score_wins(player, exam, reference, self.opponent))
        else:
            self.add(score_answers(player, exam, kind))

    def add(self, score: HeldOutScore) -> None:
        """Add the scores of some tasks to this pass."""
        self._pass.append(score)
        self.kind = score.kind

    def drop(self) -> None:
        """End the pass without a result: it failed."""
        self._pass, self.scores = [], {}

    def close(self) -> None:
        """End the pass: :attr:`scores` becomes its result; empty if nothing was scored.

        A score is NaN if no task could be judged.

        Raises:
            RewardError: the reward failed at all answers of the pass.
        """
        parts = self._pass
        self.drop()
        if not parts:
            return
        whole = HeldOutScore(
            torch.cat([part.sampled for part in parts]),
            torch.cat([part.greedy for part in parts]),
            self.kind,
            any(part.undecided for part in parts),
        )
        if self._reward is not None:
            whole.require_judged(self._reward)
        for name, values in whole.by_task().items():
            self.scores[name], self.scores[f"{name}_se"] = mean_and_error(values)
        self.scores["heldout/tasks"] = torch.tensor(float(whole.judged))


def heldout_reward(
    rewards: Sequence[Reward], name: str | None = None
) -> tuple[Reward, Kind] | None:
    """The reward that scores held-out answers, and what its scores mean.

    A binary reward gives the share of tasks solved, a comparable one the win rate against the
    reference, any other one the mean of its scores.

    Args:
        rewards: all rewards of the run.
        name: name of the reward to use, even one with weight 0. None takes the first binary task
            reward, or else the first comparable one, or else the first task reward that can score a
            single answer.

    Returns:
        The reward and the kind of its scores. None if ``name`` is None and no task reward can score
        a single answer.

    Raises:
        ConfigError: there is no reward of this name, or it cannot score a single answer.
    """
    if name is not None:
        chosen = _named(rewards, name)
        return chosen, _kind(chosen)
    task = [reward for reward in rewards if reward.enters == "task" and not reward.needs_group]
    for kind in get_args(Kind):
        for reward in task:
            if _kind(reward) == kind:
                return reward, kind
    return None


def _kind(reward: Reward) -> Kind:
    if reward.binary:
        return "solved"
    return "win_rate" if reward.comparable else "mean"


def _named(rewards: Sequence[Reward], name: str) -> Reward:
    """The reward of this name; raise ConfigError unless it can score a single answer."""
    usable = [r.name for r in rewards if r.enters != "challenger" and not r.needs_group]
    choices = f"set one of {', '.join(usable)}" if usable else "add a reward that scores answers"
    found = next((reward for reward in rewards if reward.name == name), None)
    if found is None:
        raise ConfigError(_KEY, f"no reward is named {name!r}", choices)
    if found.enters == "challenger":
        raise ConfigError(_KEY, f"{name!r} scores queries, not answers", choices)
    if found.needs_group:
        problem = f"{name!r} compares the answers of a group, so it cannot score a single answer"
        raise ConfigError(_KEY, problem, choices)
    return found


def score_tasks(
    player: Player,
    tasks: Sequence[Query],
    reward: Reward,
    sampling: Sampling,
    solver_prompt: str,
    draws: int = 1,
    seed: int = 0,
) -> HeldOutScore:
    """Sample ``draws`` answers and one greedy answer to each task, and score them.

    Args:
        player: the policy.
        tasks: queries with their solutions.
        reward: a binary reward, see :func:`heldout_reward`.
        sampling: how the sampled answers are drawn.
        solver_prompt: the Solver's prompt; slot {query}.
        draws: sampled answers to each task.
        seed: fixes the sampled answers.

    Raises:
        RewardError: the reward failed at every answer.
    """
    score = score_answers(
        player, Exam.of(player.codec, tasks, reward, sampling, solver_prompt, draws, seed)
    )
    score.require_judged(reward)
    return score


def score_answers(player: Player, exam: Exam, kind: Kind = "solved") -> HeldOutScore:
    """The reward's scores of sampled and of greedy answers, see :func:`score_tasks`."""
    exam = exam.drawn_from("heldout")
    sampled, greedy = (e.take(player) for e in (exam, exam.greedy))
    undecided = sampled.undecided or greedy.undecided
    return HeldOutScore(sampled.scores, greedy.scores.squeeze(1), kind, undecided)


def score_wins(
    player: Player, exam: Exam, reference: FrozenPlayer, opponent: Opponent
) -> HeldOutScore:
    """Wins of the policy's answers over the reference's: sampled vs sampled, greedy vs greedy.

    Args:
        player: the policy.
        exam: what both answer; they draw from different seeds.
        reference: the reference.
        opponent: remembers the reference's answers.
    """
    mine, theirs = exam.drawn_from("heldout"), exam.drawn_from("reference")
    sampled, greedy = (
        my.take(player).wins_against(opponent.take(their, reference))
        for my, their in ((mine, theirs), (mine.greedy, theirs.greedy))
    )
    return HeldOutScore(sampled, greedy.squeeze(1), "win_rate")


def answer_greedily(
    player: Player, tasks: Sequence[Query], sampling: Sampling, solver_prompt: str
) -> list[dict[str, str]]:
    """The greedy answer to each task, without thinking, as rows with ``query`` and ``answer``."""
    prompts = [player.codec.encode(solver_prompt, {"query": task.text}) for task in tasks]
    answers = player.respond(prompts, 1, replace(sampling, temperature=0.0), seed=0)
    return [
        {"query": task.text, "answer": text}
        for task, text in zip(tasks, answers.spoken, strict=True)
    ]
