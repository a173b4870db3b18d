"""Held-out tasks, and the scored answers of a player to them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from lsp_lightning.game.known_queries import Query
from lsp_lightning.game.player import FrozenPlayer, Player
from lsp_lightning.rewards import Reward, judge_playout
from lsp_lightning.seeding import derive_seed
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.types import Playout, Sampling

#: Number of held-out tasks that are answered together. It does not change what is drawn.
HELDOUT_BATCH = 128


@dataclass(frozen=True)
class Answered:
    """Answers to some tasks, with their scores."""

    texts: tuple[tuple[str, ...], ...]
    """The answers to each task, without a model's thinking."""
    scores: Tensor
    """(tasks, draws); NaN for an answer that could not be judged."""
    undecided: bool = False
    """Whether NaN is a finding of the reward, such as "no majority", and not a failure."""

    def wins_against(self, other: "Answered") -> Tensor:
        """Draw by draw, 1 for a higher score, 1/2 for a tie, 0 for a lower score. (tasks, draws).

        Equal texts tie whatever their scores: the last digits of a reward model's score depend on
        the rest of the batch. NaN if either answer could not be judged.
        """
        ahead = self.scores - other.scores
        won = torch.where(ahead.isnan(), ahead, (ahead.sign() + 1) / 2)  # sign(NaN) is 0
        equal = torch.tensor(
            [
                [a == b for a, b in zip(mine, theirs, strict=True)]
                for mine, theirs in zip(self.texts, other.texts, strict=True)
            ]
        )
        return torch.where(equal & ~won.isnan(), 0.5, won)


@dataclass(frozen=True)
class Exam:
    """Some tasks, how a player answers them, and the reward that scores the answers."""

    tasks: tuple[Query, ...]
    """The tasks."""
    prompts: tuple[tuple[int, ...], ...]
    """Their prompts in tokens."""
    reward: Reward
    """The reward that scores the answers."""
    sampling: Sampling
    """How answers are drawn."""
    draws: int
    """Answers to each task."""
    seed: int
    """The seed that the seeds of the tasks are derived from."""

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
        """The exam with each task in the slot {query} of ``solver_prompt``."""
        ids = [codec.encode(solver_prompt, {"query": task.text}) for task in tasks]
        return cls(tuple(tasks), tuple(map(tuple, ids)), reward, sampling, draws, seed)

    @property
    def greedy(self) -> Self:
        """The same exam with one greedy answer to each task."""
        return replace(self, sampling=replace(self.sampling, temperature=0.0), draws=1)

    def drawn_from(self, purpose: str) -> Self:
        """The same exam with a seed derived for ``purpose``."""
        return replace(self, seed=derive_seed(self.seed, purpose))

    @property
    def task_seeds(self) -> list[int]:
        """A seed for each task, derived from its text.

        So the answers to a task do not depend on the other tasks.
        """
        return [derive_seed(self.seed, task.text) for task in self.tasks]

    def answered_by(self, player: Player | FrozenPlayer) -> Playout:
        """The answers of ``player``, not scored yet."""
        return Playout(
            query_texts=tuple(task.text for task in self.tasks),
            answers=player.respond(self.prompts, self.draws, self.sampling, self.task_seeds),
            group_size=self.draws,
            solutions=tuple(task.solution for task in self.tasks),
        )

    def take(self, player: Player | FrozenPlayer) -> Answered:
        """Let ``player`` answer, and score the answers."""
        playout = self.answered_by(player)
        judgement = judge_playout(self.reward, playout)
        return Answered(tuple(playout.spoken_groups()), judgement.scores, judgement.undecided)


class Opponent:
    """The reference as opponent. It does not change, so its answers to each exam are cached."""

    def __init__(self) -> None:
        self._answered: dict[object, Answered] = {}

    def take(self, exam: Exam, reference: FrozenPlayer) -> Answered:
        """Like :meth:`Exam.take`, but the reference answers each exam only once."""
        key = (exam.prompts, exam.reward.name, exam.sampling, exam.draws, exam.seed)
        if key not in self._answered:
            self._answered[key] = exam.take(reference)
        return self._answered[key]
