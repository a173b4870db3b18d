"""The LightningModule: the shared policy, its reference, and one optimiser step a round."""

import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from lsp_lightning.collate import pack
from lsp_lightning.datamodule import SelfPlayDataModule
from lsp_lightning.errors import ConfigError
from lsp_lightning.evaluation.heldout import score_tasks
from lsp_lightning.functional import (
    UNIT_RANGE_OBJECTIVES,
    AdvantageScale,
    ChallengerObjective,
    KLForm,
)
from lsp_lightning.metrics import Means, pass_at_k, round_metrics, sampled_tokens
from lsp_lightning.player import Player
from lsp_lightning.policy import Dtype, Lora, Policy, ReferenceChoice
from lsp_lightning.pretrained import check_adapter, check_base
from lsp_lightning.queries import Query
from lsp_lightning.rewards import Reward, check_rewards, in_unit_range, is_binary
from lsp_lightning.seeding import derive_seed
from lsp_lightning.selfplay import (
    Advantages,
    InvalidQuery,
    play_round,
    round_advantages,
)
from lsp_lightning.types import SelfPlayRound
from lsp_lightning.update import LossSettings, UpdateFacts, accumulate_gradients

_DECISIVE = ("base", "lora", "init_adapter", "reference")


class SelfPlayModule(LightningModule):
    """Language Self-Play as a LightningModule: one batch is one round, one round is one step.

    Args:
        base: folder or hub id of any causal LM with safetensors weights; ``pkg:`` for a package's.
        rewards: what judges the answers; at least one must enter for the task.
        lora: low-rank adapters, or null to fine-tune all weights.
        init_adapter: folder of an adapter to start from (its rank and alpha hold).
        reference: what the policy is held near, and judged by: the model as this training found it
            (start), or the bare base.
        dtype: compute type; auto is bfloat16 where the GPU has it, else float32.
        chat_template_kwargs: fixed arguments of the chat template, such as enable_thinking: false.
        activation_checkpointing: compute activations again in the backward pass to save memory.
        beta: weight of the KL term, for both roles.
        kl: form of the KL term; k1_loss is the printed one, whose pull is zero.
        alpha_ch: weight of the Challenger's loss beside the Solver's.
        challenger_objective: what the Challenger plays for; minimax is the paper's -V.
        advantage_scale: none as in the paper, or std as in GRPO.
        invalid_query: what a query that breaks the form rules earns its Challenger.
        optimizer: of the trained weights.
        lr_scheduler: stepped once a round, or null for a constant rate.
        max_grad_norm: the gradient is clipped to this norm; null leaves it.
        micro_batch_tokens: tokens of one forward and backward pass at most, padding included.
    """

    def __init__(
        self,
        base: str,
        rewards: list[Reward],
        lora: Lora | None = Lora(),  # noqa: B008 - frozen
        init_adapter: str | None = None,
        reference: ReferenceChoice = "start",
        dtype: Dtype = "auto",
        chat_template_kwargs: dict[str, Any] | None = None,
        activation_checkpointing: bool = False,
        beta: float = 0.05,
        kl: KLForm = "k1_in_reward",
        alpha_ch: float = 1.0,
        challenger_objective: ChallengerObjective = "learnability",
        advantage_scale: AdvantageScale = "none",
        invalid_query: InvalidQuery = "lowest",
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(
            params, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
        max_grad_norm: float | None = 1.0,
        micro_batch_tokens: int = 8192,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # a checkpoint holds what is trained, not the base
        self.base = base
        self.rewards = rewards
        self.lora = lora
        self.init_adapter = init_adapter
        self.reference_choice: ReferenceChoice = reference
        self.dtype_choice: Dtype = dtype
        self.chat_template_kwargs = chat_template_kwargs or {}
        self.activation_checkpointing = activation_checkpointing
        self.loss_settings = LossSettings(beta, kl, alpha_ch)
        self.challenger_objective: ChallengerObjective = challenger_objective
        self.advantage_scale: AdvantageScale = advantage_scale
        self.invalid_query: InvalidQuery = invalid_query
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.max_grad_norm = max_grad_norm
        self.micro_batch_tokens = micro_batch_tokens
        self.check()
        self.policy: Policy | None = None
        self.round_means = Means()
        self.heldout_means = Means()
        self.heldout_scores: dict[str, Tensor] = {}
        # the scale of learnability: 1/4 is the largest variance in [0, 1]; others are found by
        # looking
        largest = 0.25 if is_binary(rewards) else 0.0
        self.register_buffer("max_variance", torch.tensor(largest))
        self.max_variance: Tensor

    def check(self) -> None:
        """What can be wrong with the settings, found before any model is loaded.

        Raises:
            ConfigError: names the key and the remedy.
        """
        check_rewards(self.rewards)
        check_base(self.base)
        check_adapter(self.init_adapter, "model.init_adapter")
        if self.lora is None and self.init_adapter is not None:
            raise ConfigError("model.init_adapter", "needs LoRA", "leave model.lora at its default")
        if self.loss_settings.beta < 0:
            raise ConfigError("model.beta", f"is {self.loss_settings.beta}", "set 0 or more")
        if self.loss_settings.alpha_ch < 0:
            raise ConfigError(
                "model.alpha_ch", f"is {self.loss_settings.alpha_ch}", "set 0 or more"
            )
        if self.micro_batch_tokens < 1:
            raise ConfigError("model.micro_batch_tokens", "is below 1", "set the tokens that fit")
        if self.challenger_objective in UNIT_RANGE_OBJECTIVES and not in_unit_range(self.rewards):
            raise ConfigError(
                "model.challenger_objective",
                f"{self.challenger_objective!r} needs task rewards in [0, 1]",
                "use learnability or minimax, or rewards with that range",
            )
        if self.loss_settings.kl == "k1_loss":
            warnings.warn(
                "model.kl: k1_loss is the KL term as printed; its expected gradient is zero: beta "
                "restrains nothing and adds noise. k1_in_reward has the intended gradient.",
                stacklevel=2,
            )

    # -- set-up ------------------------------------------------------------------------------------

    def configure_callbacks(self) -> Sequence[Callback]:
        """The rewards: each is a callback and gets every hook."""
        return list(self.rewards)

    def configure_model(self) -> None:
        """Load the policy, once, and show the rewards their judge."""
        if self.policy is not None:
            return
        self.policy = Policy(
            self.base,
            self.lora,
            self.init_adapter,
            self.reference_choice,
            self.dtype_choice,
            self.chat_template_kwargs,
            self.activation_checkpointing,
            device=self.trainer.strategy.root_device if self._trainer else "cpu",
        )
        for reward in self.rewards:
            reward.connect(self.policy)

    def configure_optimizers(self) -> Any:
        """The user's optimiser over what is trained, and its schedule."""
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": self.lr_scheduler(optimizer)}

    @property
    def loaded_policy(self) -> Policy:
        """The policy, loaded on first use."""
        self.configure_model()
        assert self.policy is not None
        return self.policy

    @property
    def data(self) -> SelfPlayDataModule:
        """The DataModule of this run.

        Raises:
            ConfigError: it is another kind of data.
        """
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, SelfPlayDataModule):
            raise ConfigError(
                "data", "is not a SelfPlayDataModule", "give trainer.fit one as datamodule"
            )
        return data

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Nothing moves: a round is text and small tensors; its micro-batches are moved one by
        one."""
        return batch

    # -- one round -------------------------------------------------------------------------------

    def play(self, index: int) -> SelfPlayRound:
        """Play round ``index`` with the weights as they are now."""
        data = self.data
        return play_round(
            Player.local(self.loaded_policy),
            data.queries,
            self.rewards,
            num_queries=data.num_queries,
            group_size=data.group_size,
            sampling=data.solver,
            solver_prompt=data.solver_prompt,
            index=index,
            seed=derive_seed(data.seed, "rank", self.global_rank),
        )

    def training_step(self, played: SelfPlayRound, batch_idx: int) -> None:
        """Learn from one round: all its micro-batches, then one optimiser step."""
        start = time.perf_counter()
        policy = self.loaded_policy
        advantages = self._advantages(played)
        batches = [b.to(self.device) for b in pack(played, policy.pad_id, self.micro_batch_tokens)]
        optimizer = self.optimizers()
        assert not isinstance(optimizer, list)
        optimizer.zero_grad()
        with self._seeded(played.index):
            facts = accumulate_gradients(
                policy, played, advantages, batches, self.loss_settings, self.manual_backward
            )
        norm = self._clip()
        if torch.isfinite(norm):
            optimizer.step()
        else:
            optimizer.zero_grad()
            rank_zero_warn(
                f"round {played.index}: the gradient is not finite; the round is skipped"
            )
        self._step_schedule()
        self._log_round(played, advantages, facts, norm, time.perf_counter() - start)
        if played.index + 1 >= self.trainer.max_steps:  # also where rounds were skipped
            self.trainer.should_stop = True

    def _advantages(self, played: SelfPlayRound) -> Advantages:
        variance = played.rewards_NG.var(dim=1, unbiased=False).max()
        self.max_variance.copy_(torch.maximum(self.max_variance, variance.to(self.max_variance)))
        return round_advantages(
            played,
            self.challenger_objective,
            self.advantage_scale,
            self.invalid_query,
            float(self.max_variance),
        )

    def _clip(self) -> Tensor:
        """The gradient's norm, after clipping it if asked to. -> ()."""
        trained = [p for p in self.parameters() if p.grad is not None]
        largest = self.max_grad_norm if self.max_grad_norm is not None else float("inf")
        return torch.nn.utils.clip_grad_norm_(trained, largest)

    def _step_schedule(self) -> None:
        scheduler: Any = self.lr_schedulers()
        if scheduler is not None:
            scheduler.step()

    @contextmanager
    def _seeded(self, index: int) -> Iterator[None]:
        """Dropout of a round depends on the round alone."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(derive_seed(self.data.seed, index, "dropout", self.global_rank))
            yield

    def _log_round(
        self,
        played: SelfPlayRound,
        advantages: Advantages,
        facts: UpdateFacts,
        norm: Tensor,
        update_seconds: float,
    ) -> None:
        seconds = {**played.seconds, "update": update_seconds}
        self.round_means.update(round_metrics(played, advantages, facts))
        self.round_means.update({f"seconds/{phase}": s for phase, s in seconds.items()})
        self.round_means.update({"gradient_norm": norm, "skipped": float(not torch.isfinite(norm))})
        means = self.round_means.compute()
        means["tokens_per_second"] = torch.tensor(sampled_tokens(played) / sum(seconds.values()))
        self.log_dict(means, batch_size=1)

    # -- held-out tasks --------------------------------------------------------------------------

    def heldout_reward(self) -> Reward | None:
        """The reward that decides held-out tasks: the first task reward of 0 or 1, if there is
        one."""
        return next((r for r in self.rewards if r.enters == "task" and r.binary), None)

    def score_heldout(self, tasks: list[Query], batch_idx: int) -> None:
        """Add some tasks to the held-out means."""
        reward = self.heldout_reward()
        if reward is None:
            return
        data = self.data
        score = score_tasks(
            Player.local(self.loaded_policy),
            tasks,
            reward,
            data.solver,
            data.solver_prompt,
            data.heldout_draws,
            seed=derive_seed(data.seed, "heldout", batch_idx),
        )
        found = {"heldout/sampled": score.sampled, "heldout/greedy": score.greedy}
        if data.heldout_draws > 1:
            found[f"heldout/pass@{data.heldout_draws}"] = pass_at_k(
                score.sampled, data.heldout_draws
            )
        self.heldout_means.update(found)

    def validation_step(self, tasks: list[Query], batch_idx: int) -> None:
        """Score some held-out tasks."""
        self.score_heldout(tasks, batch_idx)

    def test_step(self, tasks: list[Query], batch_idx: int) -> None:
        """Score some tasks kept for reporting."""
        self.score_heldout(tasks, batch_idx)

    def close_heldout(self) -> None:
        """Turn what was scored since the last call into :attr:`heldout_scores`."""
        self.heldout_scores = self.heldout_means.compute()

    def on_validation_epoch_end(self) -> None:
        """Log the held-out means."""
        self.close_heldout()
        self.log_dict(self.heldout_scores, batch_size=1)

    def on_test_epoch_end(self) -> None:
        """Log the means over the tasks kept for reporting."""
        self.close_heldout()
        self.log_dict(self.heldout_scores, batch_size=1)

    def predict_step(self, tasks: list[Query], batch_idx: int) -> list[dict[str, str]]:
        """Answer some queries greedily."""
        data = self.data
        player = Player.local(self.loaded_policy)
        prompts = [player.codec.encode(data.solver_prompt, {"query": task.text}) for task in tasks]
        greedy = type(data.solver)(temperature=0.0, max_new_tokens=data.solver.max_new_tokens)
        answers = player.respond(prompts, 1, greedy, seed=0)
        return [
            {"query": task.text, "answer": text}
            for task, text in zip(tasks, answers.texts, strict=True)
        ]

    # -- checkpoints -----------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """The settings that a resumed run is compared by: plain values only."""
        data = self.data
        settings = self.loss_settings
        return {
            "base": self.base,
            "lora": vars(self.lora) if self.lora else None,
            "init_adapter": self.init_adapter,
            "reference": self.reference_choice,
            "beta": settings.beta,
            "kl": settings.kl,
            "alpha_ch": settings.alpha_ch,
            "challenger_objective": self.challenger_objective,
            "advantage_scale": self.advantage_scale,
            "invalid_query": self.invalid_query,
            "rewards": [[r.name, r.enters, r.weight] for r in self.rewards],
            "num_queries": data.num_queries,
            "group_size": data.group_size,
            "seed": data.seed,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is trained (every adapter by name), not the base."""
        policy = self.loaded_policy
        trained = {f"policy.{name}" for name in policy.trained_state()}
        checkpoint["state_dict"] = {
            name: tensor
            for name, tensor in checkpoint["state_dict"].items()
            if name in trained or not name.startswith("policy.")
        }
        checkpoint["lsp_lightning"] = self.facts()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model; say which settings of this run differ from its own.

        Raises:
            ConfigError: it is of another base, adapter or reference.
        """
        before, now = checkpoint.get("lsp_lightning", {}), self.facts()
        for key in (k for k, value in before.items() if now.get(k) != value):
            was = f"{before[key]!r} in the checkpoint, {now.get(key)!r} now"
            if key in _DECISIVE:
                raise ConfigError(f"model.{key}", was, "resume with the setting of the checkpoint")
            rank_zero_info(f"resuming with another {key}: {was}")
        expected = {f"policy.{name}" for name in self.loaded_policy.trained_state()}
        missing = expected - set(checkpoint["state_dict"])
        if missing:
            raise ConfigError(
                "ckpt_path",
                f"lacks {len(missing)} trained tensors",
                "give a checkpoint of this run",
            )
