"""Held-out tasks: how often a policy solves them, sampled and greedily."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lsp_lightning.metrics import pass_at_k
from lsp_lightning.player import Player
from lsp_lightning.queries import Query
from lsp_lightning.rewards import Reward, RewardError
from lsp_lightning.seeding import derive_seed
from lsp_lightning.types import Playout, Sampling


@dataclass(frozen=True)
class HeldOutScore:
    """Scores of some tasks."""

    sampled: Tensor
    """(tasks, draws) scores of sampled answers."""
    greedy: Tensor
    """(tasks,) scores of the greedy answers."""

    def means(self) -> dict[str, Tensor]:
        """The scores under the names they are logged by; pass@k where k > 1 answers were drawn."""
        draws = self.sampled.shape[1]
        found = {"heldout/sampled": self.sampled, "heldout/greedy": self.greedy}
        if draws > 1:
            found[f"heldout/pass@{draws}"] = pass_at_k(self.sampled, draws)
        return found


def heldout_reward(rewards: Sequence[Reward]) -> Reward | None:
    """The reward that decides held-out tasks: the first task reward of 0 or 1, if there is one."""
    return next((r for r in rewards if r.enters == "task" and r.binary), None)


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
    prompts = [player.codec.encode(solver_prompt, {"query": task.text}) for task in tasks]

    def judged(sampling: Sampling, draws: int) -> Tensor:
        playout = Playout(
            query_texts=tuple(task.text for task in tasks),
            answers=player.respond(prompts, draws, sampling, derive_seed(seed, "heldout")),
            group_size=draws,
            references=tuple(task.reference for task in tasks),
        )
        scores = reward.score(playout)
        if torch.isnan(scores).all():
            raise RewardError(f"reward {reward.name!r} could judge no held-out answer")
        return scores

    greedy = replace(sampling, temperature=0.0)
    return HeldOutScore(sampled=judged(sampling, draws), greedy=judged(greedy, 1).squeeze(1))


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
