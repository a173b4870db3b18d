"""This package's side of the comparison with TRL: GRPO on a prompt file by Lightning's Trainer."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from benchmarks.speed_work import ALPHA, BETA, MAX_NORM, RANK, RATE, Stopwatch, Work
from lsp_lightning import (
    FunctionReward,
    Learnability,
    LocalRollouts,
    Lora,
    Player,
    Policy,
    PromptFile,
    Sampling,
    SelfPlayDataModule,
    SelfPlayModule,
)
from lsp_lightning.generation import Engine, LocalEngine
from lsp_lightning.generation.served.adapters import TrainedPolicy
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.training.update import RoundUpdate
from lsp_lightning.types import SelfPlayRound

#: Tokens of a micro-batch, as in the presets for the tiny world.
MICRO_BATCH = 4096


class Endless(LocalRollouts):
    """Rollouts of full length: no token ends a completion."""

    def build(self, policy: TrainedPolicy, budget: TokenBudget) -> Engine:
        """An engine without stop tokens."""
        return LocalEngine(policy.causal_lm, [], policy.pad_id, budget=budget)


def run(work: Work, watch: Stopwatch) -> None:
    """Train for ``work.steps`` rounds; each one waits for the stopwatch."""
    module = SelfPlayModule(
        work.folder,
        [FunctionReward(alternating)],
        lora=Lora(rank=RANK, alpha=ALPHA),
        dtype=work.dtype,
        beta=BETA,
        kl="k3_loss",
        objective=Learnability(advantage_scale="std"),
        optimizer=lambda params: torch.optim.AdamW(params, lr=RATE),
        max_grad_norm=MAX_NORM,
        micro_batch_tokens=MICRO_BATCH,
        rollouts=Endless(),
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "queries.jsonl"
        path.write_text("".join(json.dumps({"query": text}) + "\n" for text in work.queries))
        data = SelfPlayDataModule(
            PromptFile(str(path)),
            num_queries=len(work.queries),
            group_size=work.group_size,
            solver=Sampling(max_new_tokens=work.new_tokens),
        )
    trainer = Trainer(
        accelerator="cpu",
        max_steps=work.steps,
        callbacks=[OnCommand(watch)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with (
        phase(watch, "generation", Player, "respond"),
        phase(watch, "policy", RoundUpdate, "gradient"),
        phase(watch, "reference", Policy, "reference_logprobs"),
    ):
        trainer.fit(module, datamodule=data)


def phase(watch: Stopwatch, name: str, owner: type, method: str) -> Any:
    """A context in which the method's time counts for ``name``."""
    return patch.object(owner, method, watch.timed(name, getattr(owner, method)))


def alternating(query: str, answers: Sequence[str], solution: object) -> list[float]:
    """A reward that costs no time: 0, 1, 0, 1, ... within a group."""
    return [float(j % 2) for j in range(len(answers))]


class OnCommand(Callback):
    """Lets each round wait for the command. The loader plays a round after the last batch ends."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait before the first round."""
        self._watch.wait()

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: SelfPlayRound,
        batch_idx: int,
    ) -> None:
        """Report this round and wait before the next one."""
        answers = batch.playout.answers
        self._watch.report(
            rows(answers.prompt_ids, answers.prompt_mask),
            rows(answers.completion_ids, answers.completion_mask),
        )
        self._watch.wait()


def rows(ids: Tensor, mask: Tensor) -> list[list[int]]:
    """Rows without their padding."""
    return [row[kept].tolist() for row, kept in zip(ids, mask, strict=True)]
