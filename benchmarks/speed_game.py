"""Rounds of any size without a Trainer, for the sections scaling, sharing and bound."""

from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.speed_ours import alternating
from benchmarks.speed_work import ALPHA, BETA, CLOCKS, MAX_NORM, RANK, RATE, Clock, make_queries
from lsp_lightning import FunctionReward, Lora, Player, Policy, Sampling, play_round
from lsp_lightning.game.objectives import Advantages
from lsp_lightning.game.queries import QueryBatch, QuerySource
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.training.gradient import LossSettings
from lsp_lightning.training.update import RoundUpdate
from lsp_lightning.types import SelfPlayRound

#: Tokens of a micro-batch: the default of SelfPlayModule.
MICRO_BATCH = 8192


@dataclass(frozen=True)
class Size:
    """The size of a round."""

    queries: int = 8
    """N queries."""
    answers: int = 8
    """G answers to each query."""
    new_tokens: int = 64
    """Tokens of each answer, exactly."""
    prompt: int = 70
    """Tokens of each prompt, exactly."""

    @property
    def tokens(self) -> int:
        """New tokens of the round."""
        return self.queries * self.answers * self.new_tokens


class Game:
    """A policy that plays rounds and learns from them.

    Args:
        folder: folder of the model.
        clock: wall time or CPU time.
        micro_batch: most tokens in one forward and backward pass.
    """

    def __init__(self, folder: Path, clock: Clock = "wall", micro_batch: int = MICRO_BATCH) -> None:
        self._now = CLOCKS[clock]
        self.policy = Policy(str(folder), Lora(rank=RANK, alpha=ALPHA), dtype="float32")
        self.policy.codec.stop_ids = ()  # every completion has its full length
        self.player = Player.local(self.policy)
        settings = LossSettings(BETA, "k3_loss", alpha_ch=1.0, max_grad_norm=MAX_NORM)
        self._update = RoundUpdate(self.policy, settings, TokenBudget("tokens", micro_batch))
        trained = [p for p in self.policy.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=RATE)

    def play(self, size: Size) -> SelfPlayRound:
        """Play a round; its reward costs no time."""
        played = play_round(
            self.player,
            _Given(size),
            [FunctionReward(alternating)],
            num_queries=size.queries,
            group_size=size.answers,
            sampling=Sampling(max_new_tokens=size.new_tokens),
        )
        lengths = set(played.playout.answers.completion_mask.sum(1).tolist())
        assert lengths == {size.new_tokens}, lengths
        return played

    def learn(self, played: SelfPlayRound) -> None:
        """Take one optimiser step; every completion has an advantage, also in groups of one."""
        signs = torch.ones_like(played.rewards_NG).flatten()
        signs[1::2] = -1
        advantages = Advantages(signs.view_as(played.rewards_NG), None)
        self._update.gradient(played, advantages, self._optimizer, torch.autograd.backward, 0)
        self._optimizer.step()

    def seconds(self, size: Size) -> dict[str, float]:
        """Seconds of the rollouts and of the update of one round."""
        start = self._now()
        played = self.play(size)
        half = self._now()
        self.learn(played)
        return {"rollouts": half - start, "update": self._now() - half}


class _Given(QuerySource):
    """Queries of one length."""

    def __init__(self, size: Size) -> None:
        self._texts = make_queries(size.queries, size.prompt)

    def draw(self, player: Player, num_queries: int, index: int, seed: int) -> QueryBatch:
        return QueryBatch(self._texts)
