"""Held-out tasks: how often a policy solves them, or where nobody can tell, wins by its answers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor, nn

from lsp_lightning.functional.evaluation import pass_at_k
from lsp_lightning.game.player import FrozenPlayer, Player
from lsp_lightning.game.queries import Query
from lsp_lightning.rewards import Reward, RewardError, judge_playout
from lsp_lightning.runtime.means import Means
from lsp_lightning.seeding import derive_seed
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.types import Playout, Sampling

#: What a score means: the share of tasks solved, or the rate of wins against the reference.
Kind = Literal["solved", "win_rate"]


@dataclass(frozen=True)
class HeldOutScore:
    """Scores of some tasks."""

    sampled: Tensor
    """(tasks, draws) scores of sampled answers; NaN where one could not be judged."""
    greedy: Tensor
    """(tasks,) scores of the greedy answers."""
    kind: Kind = "solved"
    """What the scores are."""

    def means(self) -> dict[str, Tensor]:
        """The scores under the names they are logged by; pass@k where k > 1 answers were drawn.

        That is for tasks that are solved or not: the best of k has no rate of wins.
        """
        draws = self.sampled.shape[1]
        found = {"heldout/sampled": self.sampled, "heldout/greedy": self.greedy}
        if draws > 1 and self.kind == "solved":
            found[f"heldout/pass@{draws}"] = pass_at_k(self.sampled, draws)
        return found

    @property
    def judged(self) -> int:
        """How many of the tasks have any score."""
        return int((~(self.sampled.isnan().all(dim=1) & self.greedy.isnan())).sum())


@dataclass(frozen=True)
class Answered:
    """Answers to some tasks and what the judge makes of them."""

    texts: tuple[tuple[str, ...], ...]
    """As their reader sees them: so many draws to each task."""
    scores: Tensor
    """(tasks, draws); NaN where one could not be judged."""

    def wins_against(self, other: "Answered") -> Tensor:
        """Draw by draw: 1 for the higher score, 1/2 for a tie, 0 for the lower. (tasks, draws).

        Like texts are a tie whatever their scores are: a reward model's last digits change with
        what else it judges. NaN where either could not be judged.
        """
        ahead = self.scores - other.scores
        won = torch.where(ahead.isnan(), ahead, (ahead.sign() + 1) / 2)  # the sign of NaN is 0
        alike = torch.tensor(
            [
                [a == b for a, b in zip(mine, theirs, strict=True)]
                for mine, theirs in zip(self.texts, other.texts, strict=True)
            ]
        )
        return torch.where(alike & ~won.isnan(), 0.5, won)


@dataclass(frozen=True)
class Exam:
    """Some tasks as they are put to a player, and who judges the answers."""

    tasks: tuple[Query, ...]
    """What is asked."""
    prompts: tuple[tuple[int, ...], ...]
    """The same in tokens."""
    reward: Reward
    """The judge, one that needs no round around it."""
    sampling: Sampling
    """How answers are drawn."""
    draws: int
    """Answers to each task."""
    seed: int
    """What they are drawn from."""

    @classmethod
    def of(
        cls,
        codec: ChatCodec,
        tasks: Sequence[Query],
        reward: Reward,
        sampling: Sampling,
        solver_prompt: str,
        draws: int,
        seed: int,
    ) -> Self:
        """The exam whose tasks stand in the slot {query} of ``solver_prompt``."""
        ids = [codec.encode(solver_prompt, {"query": task.text}) for task in tasks]
        return cls(tuple(tasks), tuple(map(tuple, ids)), reward, sampling, draws, seed)

    @property
    def greedy(self) -> Self:
        """The same with one greedy answer to each task."""
        return replace(self, sampling=replace(self.sampling, temperature=0.0), draws=1)

    def drawn_from(self, purpose: str) -> Self:
        """The same with other draws."""
        return replace(self, seed=derive_seed(self.seed, purpose))

    def take(self, player: Player | FrozenPlayer) -> Answered:
        """Let ``player`` answer and the judge score the answers.

        Raises:
            RewardError: no answer could be judged.
        """
        playout = Playout(
            query_texts=tuple(task.text for task in self.tasks),
            answers=player.respond(self.prompts, self.draws, self.sampling, self.seed),
            group_size=self.draws,
            solutions=tuple(task.solution for task in self.tasks),
        )
        scores = judge_playout(self.reward, playout).scores
        if scores.isnan().all():
            raise RewardError(f"reward {self.reward.name!r} could judge no held-out answer")
        return Answered(tuple(playout.spoken_groups()), scores)


class Opponent:
    """The reference as opponent: it does not change, so it takes each exam once.

    What it said is kept for as long as this lives, which is a run.
    """

    def __init__(self) -> None:
        self._answered: dict[object, Answered] = {}

    def take(self, exam: Exam, reference: FrozenPlayer) -> Answered:
        """See :meth:`Exam.take`; a second time from memory."""
        key = (exam.prompts, exam.reward.name, exam.sampling, exam.draws, exam.seed)
        if key not in self._answered:
            self._answered[key] = exam.take(reference)
        return self._answered[key]


class HeldOutBoard(nn.Module):
    """Held-out scores of one pass over the tasks, and those of the pass before."""

    def __init__(self) -> None:
        super().__init__()
        self._means = Means()
        self._count = 0
        #: Of the last finished pass, by the names they are logged by.
        self.scores: dict[str, Tensor] = {}
        #: What they mean.
        self.kind: Kind = "solved"
        #: What the reference said, where answers are compared with its own.
        self.opponent = Opponent()

    def score(self, player: Player, exam: Exam, kind: Kind, reference: FrozenPlayer) -> None:
        """Take in the player's scores in one exam.

        Args:
            player: the policy.
            exam: some tasks.
            kind: whether tasks are solved or won.
            reference: whom they are won against.
        """
        if kind == "solved":
            self.add(score_solved(player, exam))
        else:
            self.add(score_wins(player, exam, reference, self.opponent))

    def add(self, score: HeldOutScore) -> None:
        """Take in the scores of some tasks."""
        self._means.update(score.means())
        self._count += score.judged
        self.kind = score.kind

    def close(self) -> None:
        """End the pass: its means become :attr:`scores`, with the number of its tasks."""
        self.scores = self._means.compute()
        if self.scores:
            self.scores["heldout/tasks"] = torch.tensor(float(self._count))
        self._count = 0


def heldout_reward(rewards: Sequence[Reward]) -> tuple[Reward, Kind] | None:
    """The reward that decides held-out tasks, and what its scores come to; None without any.

    It is the first task reward of 0 or 1. Where there is none, it is the first task reward by whose
    scores two answers can be compared.
    """
    task = [reward for reward in rewards if reward.enters == "task"]
    solved = next((reward for reward in task if reward.binary), None)
    if solved is not None:
        return solved, "solved"
    comparing = next((reward for reward in task if reward.comparable), None)
    return None if comparing is None else (comparing, "win_rate")


def score_tasks(
    player: Player,
    tasks: Sequence[Query],
    reward: Reward,
    sampling: Sampling,
    solver_prompt: str,
    draws: int = 1,
    seed: int = 0,
) -> HeldOutScore:
    """Sample ``draws`` answers and one greedy answer to each task and let ``reward`` judge them.

    Args:
        player: the policy.
        tasks: queries with what is known of them.
        reward: the judge, one that needs no round around it.
        sampling: how the sampled answers are drawn.
        solver_prompt: what the Solver is told; slot {query}.
        draws: sampled answers to each task.
        seed: fixes the sampled answers.

    Raises:
        RewardError: no answer could be judged; single ones that could not be are NaN.
    """
    return score_solved(
        player, Exam.of(player.codec, tasks, reward, sampling, solver_prompt, draws, seed)
    )


def score_solved(player: Player, exam: Exam) -> HeldOutScore:
    """The judge's scores of sampled and of greedy answers; see :func:`score_tasks`."""
    exam = exam.drawn_from("heldout")
    sampled, greedy = (e.take(player).scores for e in (exam, exam.greedy))
    return HeldOutScore(sampled, greedy.squeeze(1))


def score_wins(
    player: Player, exam: Exam, reference: FrozenPlayer, opponent: Opponent
) -> HeldOutScore:
    """The policy's answers against the reference's: sampled against sampled, greedy against greedy.

    Args:
        player: the policy.
        exam: what both are asked; they draw from different seeds.
        reference: the reference.
        opponent: remembers what the reference said.

    Raises:
        RewardError: no answer of one of them could be judged; single ones that could not are NaN.
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
    """The greedy answer to each task, as rows with ``query`` and ``answer``."""
    prompts = [player.codec.encode(solver_prompt, {"query": task.text}) for task in tasks]
    answers = player.respond(prompts, 1, replace(sampling, temperature=0.0), seed=0)
    return [
        {"query": task.text, "answer": text}
        for task, text in zip(tasks, answers.texts, strict=True)
    ]
