"""The settings that decide how much memory and time a run takes, read from module and data."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from lsp_lightning.models.precision import compute_type
from lsp_lightning.planning.inputs import PlannedData, PlannedModule
from lsp_lightning.planning.lengths import PlannedRollout, codec_of, judge_prompt, rollouts_of
from lsp_lightning.planning.models import CLASSIFIER, ModelSpec
from lsp_lightning.planning.published import planned_config
from lsp_lightning.rewards import Reward, SelfReward
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.prompts import SCORE_PREFIX

#: Size of the parameter on which an optimiser is tried: bitsandbytes keeps 32-bit states of
#: parameters below 4096 numbers.
_SAMPLE_SIZE = 16_384


@dataclass(frozen=True)
class RewardModel:
    """A model that a reward loads beside the policy."""

    name: str
    """The reward's name."""
    spec: ModelSpec
    """The model."""
    placement: str
    """resident, offload or exclusive, see :class:`lsp_lightning.rewards.PreferenceReward`."""
    max_tokens: int
    """Most tokens of a judged pair."""


@dataclass(frozen=True)
class Optimizer:
    """The state of an optimiser."""

    name: str
    """Name of the class."""
    bytes_each: float
    """Bytes of state per trained number."""
    paged: bool
    """Whether its state may be moved to CPU memory."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides how much memory and time a run takes."""

    policy: ModelSpec
    """The policy."""
    device: str
    """cuda or cpu."""
    rollouts: tuple[PlannedRollout, ...]
    """What the policy or its reference writes: queries, answers, held-out answers, judgements."""
    trained: tuple[str, ...]
    """Names of the rollouts that are trained on."""
    judge_prompt: int
    """Tokens of the longest prompt whose next token the reference judges by; 0 if there is none."""
    reward_models: tuple[RewardModel, ...]
    """Models of rewards."""
    optimizer: Optimizer
    """The optimiser."""
    micro_batch_tokens: int
    """Most tokens of a forward and backward pass."""
    pass_tokens: int
    """Most tokens of a pass without gradients."""
    rollout_tokens: int
    """Most tokens of the completions sampled together."""
    assumptions: tuple[str, ...] = ()
    """What the plan assumes or leaves out, one sentence each."""

    def rollout(self, name: str) -> PlannedRollout | None:
        """The rollout of this name, or None."""
        return next((r for r in self.rollouts if r.name == name), None)


def read_settings(model: PlannedModule, datamodule: PlannedData, device: str) -> Settings:
    """The settings of a run, with the lengths of its prompts.

    Args:
        model: the module; only configs and tokenizers are loaded.
        datamodule: its data.
        device: cuda or cpu.

    Raises:
        ConfigError: the config of a model could not be loaded.
    """
    codec = codec_of(model)
    rollouts = rollouts_of(model, datamodule, codec)
    answers = next(r for r in rollouts if r.name == "answers")
    return Settings(
        policy=_policy_spec(model, device),
        device=device,
        rollouts=(*rollouts, *_judgements(model.rewards, datamodule, codec, answers)),
        trained=tuple(r.name for r in rollouts if r.name in ("queries", "answers")),
        judge_prompt=max(
            (
                judge_prompt(r, datamodule, codec, answers, SCORE_PREFIX)
                for r in model.rewards
                if isinstance(r, SelfReward) and r.reading == "expected"
            ),
            default=0,
        ),
        reward_models=_reward_models(model.rewards),
        optimizer=optimizer_of(model),
        micro_batch_tokens=model.budgets.micro_batches.tokens,
        pass_tokens=model.budgets.passes.tokens,
        rollout_tokens=model.budgets.rollouts.tokens,
        assumptions=_assumptions(datamodule, codec, rollouts),
    )


def _assumptions(
    data: PlannedData, codec: ChatCodec | None, rollouts: Sequence[PlannedRollout]
) -> tuple[str, ...]:
    """What the plan assumes or leaves out, one sentence each."""
    if codec is None:
        return ("prompt lengths are assumed: the tokenizer could not be loaded",)
    source = type(data.queries).__name__
    reason = f"{source} does not report their length"
    found = [f"{r.assumption}: {reason}" for r in rollouts if r.assumption]
    if data.queries.selfplay and data.queries.sampling is None:
        found.append(f"writing queries is not included: {source} does not report its sampling")
    return tuple(found)


def _policy_spec(model: PlannedModule, device: str) -> ModelSpec:
    policy = model.policy_settings
    with_lora = policy.lora is not None
    dtype, config = policy.dtype, planned_config(policy.base)
    if dtype == "auto" and device == "cuda" and with_lora and not torch.cuda.is_available():
        dtype = "bfloat16"  # the planned GPU supports it, unless it is an old one
    return ModelSpec(
        source=policy.base,
        dtype=compute_type(dtype, torch.device(device), with_lora, config),
        packed=policy.quantization is not None,
        lora=policy.lora,
        init_adapter=policy.init_adapter,
        reference=policy.reference,
        checkpointing=policy.activation_checkpointing,
    )


def _judgements(
    rewards: Sequence[Reward],
    data: PlannedData,
    codec: ChatCodec | None,
    answers: PlannedRollout,
) -> list[PlannedRollout]:
    """The replies that judges write, as rollouts."""
    return [
        PlannedRollout(
            name="judgements",
            prompts=answers.prompts * answers.draws,
            draws=1,
            prompt=judge_prompt(r, data, codec, answers),
            sampling=r.sampling,
            key="model.rewards.SelfReward.sampling.max_new_tokens",
        )
        for r in rewards
        if isinstance(r, SelfReward) and r.reading == "sampled"
    ]


def _reward_models(rewards: Sequence[Reward]) -> tuple[RewardModel, ...]:
    """The models that rewards load; they are planned as classifiers."""
    loaded = [(reward, reward.loads()) for reward in rewards]
    return tuple(
        RewardModel(
            name=reward.name,
            spec=ModelSpec(
                source=model.source,
                dtype=None,
                packed=model.quantization is not None,
                kind=CLASSIFIER,
                key=f"model.rewards.{type(reward).__name__}.model",
            ),
            placement=model.placement,
            max_tokens=model.max_tokens,
        )
        for reward, model in loaded
        if model is not None
    )


def optimizer_of(model: PlannedModule) -> Optimizer:
    """The run's optimiser, measured by one step on a small parameter."""
    sample = torch.nn.Parameter(torch.zeros(_SAMPLE_SIZE))
    sample.grad = torch.zeros_like(sample)
    optimizer = model.optimizer([sample])
    name = type(optimizer).__name__
    with warnings.catch_warnings():  # a paged optimiser warns that a CPU does not page
        warnings.simplefilter("ignore")
        optimizer.step()
    state = [t for entry in optimizer.state.values() for t in entry.values()]
    size = sum(t.numel() * t.element_size() for t in state if isinstance(t, torch.Tensor))
    return Optimizer(name, size / _SAMPLE_SIZE, name.startswith("Paged"))
