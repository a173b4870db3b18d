"""The LightningModule: the shared policy, its reference, and one optimiser step per round."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable

from lsp_lightning.callbacks.close_engine import ClosesEngine
from lsp_lightning.callbacks.stalls import StallWatch
from lsp_lightning.datamodule import SelfPlayDataModule, check_precision
from lsp_lightning.diagnosis.collapse import CollapseWatch
from lsp_lightning.errors import ConfigError
from lsp_lightning.evaluation.hooks import ScoresHeldOut
from lsp_lightning.functional import KLForm
from lsp_lightning.game.objectives import Learnability, Objective
from lsp_lightning.game.player import FrozenPlayer, Player
from lsp_lightning.game.round import play_round
from lsp_lightning.generation import LocalRollouts, RolloutSettings
from lsp_lightning.models.loading import check_policy
from lsp_lightning.models.policy import Policy
from lsp_lightning.models.quantization import Quantization
from lsp_lightning.models.settings import Dtype, Lora, PolicySettings, ReferenceChoice
from lsp_lightning.planning.lengths import check_model
from lsp_lightning.rewards import Reward, check_rewards
from lsp_lightning.runtime.means import Means
from lsp_lightning.runtime.memory import Budgets
from lsp_lightning.seeding import derive_seed
from lsp_lightning.training import resume
from lsp_lightning.training.divergence import require_finite
from lsp_lightning.training.gradient import LossSettings
from lsp_lightning.training.metrics import round_metrics
from lsp_lightning.training.seen_queries import SeenQueries
from lsp_lightning.training.update import RoundUpdate, by_round
from lsp_lightning.types import SelfPlayRound


class SelfPlayModule(ScoresHeldOut):
    """Language Self-Play as a LightningModule: one batch is one round, one round is one step.

    Args:
        base: folder or hub id of any causal LM with safetensors weights, or a GGUF file; ``pkg:``
            for a path inside a Python package.
        rewards: the rewards that judge a round; at least one must have enters: task.
        lora: low-rank adapters, or null to fine-tune all weights.
        init_adapter: folder of an adapter to start from; its rank and alpha override those of lora.
        reference: the frozen model that judges and that the KL term keeps the policy close to:
            the model as it was when this training began (start), or the model without any adapter
            (base).
        dtype: compute type. auto is bfloat16 on GPUs that have it, float16 with a scaled loss on
            older GPUs, and float32 on CPUs. On a CPU with AVX512-BF16 or AMX it is bfloat16 for
            models of 100M parameters or more.
        quantization: nf4 keeps the base in 4 bits; null leaves it in the compute type.
        chat_template_kwargs: fixed arguments of the chat template, such as enable_thinking: false.
        activation_checkpointing: recompute activations in the backward pass to save memory.
        beta: weight of the KL term, for both roles. Against the reward it acts as
            ``beta * n / (n - 1)``, n = G or N: see docs/paper-and-choices.md.
        kl: form of the KL term; k1_loss, as printed in the paper, has expected gradient 0.
        alpha_ch: weight of the Challenger's loss relative to the Solver's.
        objective: what the Challenger is paid for, and how advantages are scaled; null is
            Learnability. The paper's objective is Paper.
        optimizer: the optimiser of the trained weights.
        lr_scheduler: learning rate schedule, stepped once per round; null is a constant rate.
        max_grad_norm: clip the gradient to this norm; null does not clip.
        micro_batch_tokens: most tokens in one forward and backward pass, padding included; halved
            if memory runs out.
        rollouts: where completions are sampled: in this process (LocalRollouts) or by a vLLM server
            (ServedRollouts).
    """

    _player: Player | None = None

    logged: dict[str, torch.Tensor]
    """The metrics of the last round."""

    def __init__(
        self,
        base: str,
        rewards: list[Reward],
        lora: Lora | None = Lora(),  # noqa: B008 - frozen
        init_adapter: str | None = None,
        reference: ReferenceChoice = "start",
        dtype: Dtype = "auto",
        quantization: Quantization | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        activation_checkpointing: bool = False,
        beta: float = 0.05,
        kl: KLForm = "k1_in_reward",
        alpha_ch: float = 1.0,
        objective: Objective | None = None,
        optimizer: OptimizerCallable = lambda params: torch.optim.AdamW(
            params, lr=1e-5, betas=(0.9, 0.95), weight_decay=0.0
        ),
        lr_scheduler: LRSchedulerCallable | None = None,
        max_grad_norm: float | None = 1.0,
        micro_batch_tokens: int = 8192,
        rollouts: RolloutSettings = LocalRollouts(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # a checkpoint holds trained tensors, not the base
        self.rewards, self.rollouts = rewards, rollouts
        self.loss_settings = LossSettings(beta, kl, alpha_ch, max_grad_norm)
        self.objective = objective if objective is not None else Learnability()
        if not isinstance(self.objective, Objective):
            remedy = "pass an Objective, such as Paper()"
            raise ConfigError("model.objective", f"is {objective!r}", remedy)
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        check_rewards(rewards)
        self.objective.check(rewards)
        check_policy(base, lora is not None, init_adapter, quantization)
        rollouts.check(lora is not None or init_adapter is not None)
        self.budgets = Budgets(micro_batch_tokens, rollouts.tokens)
        self.policy: Policy | None = None
        self.policy_settings = PolicySettings(
            base,
            lora,
            init_adapter,
            reference,
            dtype,
            quantization,
            chat_template_kwargs,
            activation_checkpointing,
        )
        self.round_means, self._seen = Means(keep_nan=True), SeenQueries()

    def configure_callbacks(self) -> Sequence[Callback]:
        """The rewards, which are callbacks too; one that closes the engine; one that says why a
        run learns nothing, and one that warns of a collapse."""
        stalls = StallWatch()
        watches = (stalls, CollapseWatch(lambda: stalls.causes))
        return [*self.rewards, ClosesEngine(lambda: self._player), *watches]

    def setup(self, stage: str) -> None:
        """Raise ConfigError for settings that cannot work, before the model is loaded."""
        check_precision(self.trainer.precision)
        self.check_heldout(stage)
        if stage == "fit":
            self.data.check_rounds(self.trainer)
            self.data.selection.check_rewards(self.rewards)
            adapts = bool(self.policy_settings.lora or self.policy_settings.init_adapter)
            self.data.selection.check_policy(adapts, self.rollouts.served)
            if self.data.gate is not None:
                self.objective.check_gate(self.data.gate.solve_rate)
                self.data.gate.prepare()
                if self.policy is not None:  # loaded before this fit, perhaps with another gate
                    self.data.gate.connect(self.reference_player)
            check_model(self, self.data)
            resume.check_optimizer(self.optimizer)
            # log every round; Lightning's default is one step in 50 (0 logs nothing)
            trainer: Any = self.trainer
            trainer.log_every_n_steps = min(trainer.log_every_n_steps, 1)
        self.rollouts.check_reachable()
        self.data.announce(stage)

    def configure_model(self) -> None:
        """Load the policy once, and give the rewards the reference."""
        if self.policy is not None:
            return
        device = self.trainer.strategy.root_device if self._trainer else "cpu"
        self.policy = Policy.from_settings(self.policy_settings, device)
        budget, cap = self.budgets.micro_batches, self.rollouts.importance_cap
        self._update = RoundUpdate(self.policy, self.loss_settings, budget, cap)
        engine = self.rollouts.build(self.policy, self.budgets.rollouts)
        self._player = Player(engine, self.policy.codec, self.policy.pad_id)
        for reward in self.rewards:
            reward.connect(self.reference_player)
        data = self._trainer and getattr(self._trainer, "datamodule", None)
        if isinstance(data, SelfPlayDataModule) and data.gate is not None:
            data.gate.connect(self.reference_player)

    def configure_optimizers(self) -> Any:
        """The optimiser of the trained parameters, and its schedule."""
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": by_round(self.lr_scheduler(optimizer))}

    @property
    def loaded_policy(self) -> Policy:
        """The policy, loaded on first use."""
        self.configure_model()
        assert self.policy is not None
        return self.policy

    @property
    def player(self) -> Player:
        """The policy, in both roles."""
        self.configure_model()
        assert self._player is not None
        return self._player

    @property
    def reference_player(self) -> FrozenPlayer:
        """The frozen reference."""
        return FrozenPlayer(self.loaded_policy, self.budgets.rollouts, self.budgets.passes)

    @property
    def data(self) -> SelfPlayDataModule:
        """The DataModule of this run. Raise ConfigError if it is of another class."""
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, SelfPlayDataModule):
            raise ConfigError(
                "data", "is not a SelfPlayDataModule", "pass one: trainer.fit(model, datamodule)"
            )
        return data

    def play(self, index: int) -> SelfPlayRound:
        """Play round ``index`` with the weights as they are now."""
        data, past = self.data, self.data.selection.past
        if past is not None:
            past.prepare(index, self.loaded_policy)
        return play_round(
            self.player,
            data.queries,
            self.rewards,
            num_queries=data.num_queries,
            group_size=data.group_size,
            sampling=data.solver,
            solver_prompt=data.solver_prompt,
            passage_prompt=data.passage_prompt,
            gate=data.gate,
            pool=data.pool,
            past=past,
            index=index,
            seed=self._seed("play"),
        )

    def _seed(self, *purpose: int | str) -> int:
        return derive_seed(self.data.seed, self.global_rank, *purpose)

    def training_step(self, played: SelfPlayRound, batch_idx: int) -> None:
        """Train on one round: the gradient of all its micro-batches, then one optimiser step."""
        start = time.perf_counter()
        advantages = self.objective.advantages(played)
        self.objective.observe(played)
        self.data.selection.observe(played)
        optimizer, plain = self.optimizers(), self.optimizers(use_pl_optimizer=False)
        assert not isinstance(optimizer, list)
        assert isinstance(plain, torch.optim.Optimizer)
        stats, norm = self._update.gradient(
            played, advantages, plain, self.manual_backward, self._seed("dropout", played.index)
        )
        rate = float(plain.param_groups[0]["lr"])
        rounds = self.trainer.max_steps
        self._update.step(optimizer, played, advantages, stats, norm, rounds)
        scheduler: Any = self.lr_schedulers()
        if scheduler is not None:
            scheduler.step()
        seconds = {**played.seconds, "update": time.perf_counter() - start}
        metrics = round_metrics(played, advantages, stats, norm, seconds)
        metrics = self.data.selection.metrics(played) | metrics
        seen = self._seen.measure(played.playout)
        self.round_means.update({**metrics, **seen, "learning_rate": rate})
        self.logged = self.round_means.compute()
        self.log_dict(self.logged, batch_size=1)
        if played.index + 1 >= rounds:  # global_step does not count skipped rounds
            self.trainer.should_stop = True

    def resume_settings(self) -> dict[str, Any]:
        """The settings to compare when a run is resumed: plain values only."""
        data = self._trainer and getattr(self._trainer, "datamodule", None)
        return resume.run_settings(self, data if isinstance(data, SelfPlayDataModule) else None)

    def _objective_class(self) -> str:
        kind = type(self.objective)
        return f"{kind.__module__}.{kind.__qualname__}"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the adapters, or all weights if there are none; never the base of an adapter.

        Raises:
            Diverged: a trained weight is not finite, so the last good checkpoint has to stay.
        """
        require_finite(self.loaded_policy, "in the checkpoint")
        resume.keep_trained(checkpoint, set(self.loaded_policy.trained_state()))
        resume.stay_open(checkpoint)
        checkpoint["lsp_lightning"] = self.resume_settings()
        checkpoint["objective"] = [self._objective_class(), self.objective.state_dict()]
        checkpoint["seen_queries"] = self._seen.state_dict()
        checkpoint["found_out"] = self._update.state_dict() | self.budgets.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model; print the settings that differ.

        Raises:
            ConfigError: the checkpoint has another base, quantization, adapter, reference or
                optimiser class, or lacks trained tensors.
        """
        resume.compare_settings(checkpoint, self.resume_settings())
        resume.require_trained(checkpoint, self.loaded_policy.trained_state())
        found_out = checkpoint.get("found_out", {})
        self.budgets.load_state_dict(found_out)
        self._update.load_state_dict(found_out)
        self._seen.load_state_dict(checkpoint.get("seen_queries", {}))
        name, state = checkpoint.get("objective", [None, {}])
        if name == self._objective_class():  # another objective starts without a state
            self.objective.load_state_dict(state)
