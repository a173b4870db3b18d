"""What a plan is made from: the settings of a run that decide what it takes, read off its parts."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from lsp_lightning.models.loading import load_config
from lsp_lightning.models.policy import compute_type
from lsp_lightning.planning.inputs import PlannedData, PlannedModule
from lsp_lightning.planning.lengths import Rollout, codec_of, rollouts_of, template_length
from lsp_lightning.planning.models import CLASSIFIER, ModelSpec
from lsp_lightning.rewards import PreferenceReward, Reward, SelfReward
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.prompts import SCORE_PREFIX

#: Numbers of a parameter that tells how much an optimiser keeps of each: those of bitsandbytes keep
#: 32 bits of parameters below 4096.
_SAMPLE_SIZE = 16_384


@dataclass(frozen=True)
class RewardModel:
    """A reward model on the same machine."""

    name: str
    """The reward's."""
    spec: ModelSpec
    """Its model."""
    placement: str
    """resident, offload or exclusive, see :class:`lsp_lightning.rewards.PreferenceReward`."""
    max_tokens: int
    """Tokens of a pair at most."""
    batch_tokens: int
    """Tokens judged together at most."""


@dataclass(frozen=True)
class Optimizer:
    """What an optimiser keeps."""

    name: str
    """Its class."""
    bytes_each: float
    """Bytes of its state for each number that is trained."""
    paged: bool
    """Whether its state may wait in CPU memory."""


@dataclass(frozen=True)
class Settings:
    """All that decides what a run takes."""

    policy: ModelSpec
    """The policy."""
    device: str
    """cuda or cpu."""
    rollouts: tuple[Rollout, ...]
    """What the policy or its reference writes: queries, answers, held-out answers, judgements."""
    trained: tuple[str, ...]
    """Names of the rollouts that are learned from."""
    judge_prompt: int
    """Tokens of the judge's longest prompt, where its next token is read; 0 without one."""
    reward_models: tuple[RewardModel, ...]
    """Reward models beside the policy."""
    optimizer: Optimizer
    """The optimiser."""
    micro_batch_tokens: int
    """Of a forward and backward pass at most."""
    pass_tokens: int
    """Of a judging pass at most."""
    rollout_tokens: int
    """Of the completions drawn at once at most."""
    assumed: bool = False
    """Whether prompt lengths are assumed, for want of a tokenizer."""

    def rollout(self, name: str) -> Rollout | None:
        """The rollout of this name, if there is one."""
        return next((r for r in self.rollouts if r.name == name), None)


def read_settings(model: PlannedModule, datamodule: PlannedData, device: str) -> Settings:
    """The settings of a run, with the lengths of its prompts.

    Args:
        model: the module; nothing is loaded but tokenizers and configs.
        datamodule: its data.
        device: cuda or cpu.

    Raises:
        ConfigError: the model's config cannot be had.
    """
    policy = _policy_spec(model, device)
    codec = codec_of(model)
    rollouts = rollouts_of(model, datamodule, codec)
    trained = tuple(r.name for r in rollouts if r.name in ("queries", "answers"))
    longest = {r.name: r for r in rollouts}["answers"].length
    return Settings(
        policy=policy,
        device=device,
        rollouts=(*rollouts, *_written_grades(model.rewards, codec, longest, rollouts)),
        trained=trained,
        judge_prompt=max(
            (
                longest + template_length(codec, _template(r), SCORE_PREFIX)
                for r in model.rewards
                if isinstance(r, SelfReward) and r.reading == "expected"
            ),
            default=0,
        ),
        reward_models=tuple(
            _reward_model(r) for r in model.rewards if isinstance(r, PreferenceReward)
        ),
        optimizer=optimizer_of(model),
        micro_batch_tokens=model.budgets.micro_batches.tokens,
        pass_tokens=model.budgets.passes.tokens,
        rollout_tokens=model.budgets.rollouts.tokens,
        assumed=codec is None,
    )


def _policy_spec(model: PlannedModule, device: str) -> ModelSpec:
    own = model.policy_settings
    adapted = own.lora is not None
    asked, family = own.dtype, load_config(own.base).model_type
    if asked == "auto" and device == "cuda" and adapted and not torch.cuda.is_available():
        asked = "bfloat16"  # the card that is planned for has it, unless it is an old one
    return ModelSpec(
        source=own.base,
        dtype=compute_type(asked, torch.device(device), adapted, family),
        packed=own.quantization is not None,
        lora=own.lora,
        init_adapter=own.init_adapter,
        reference=own.reference,
        checkpointing=own.activation_checkpointing,
    )


def _template(reward: Any) -> str:
    text: str = reward.template.text
    return text


def _written_grades(
    rewards: Sequence[Reward], codec: ChatCodec | None, longest: int, rollouts: Sequence[Rollout]
) -> list[Rollout]:
    """What a judge writes whose replies are sampled."""
    answers = next(r for r in rollouts if r.name == "answers")
    return [
        Rollout(
            "judgements",
            answers.prompts * answers.draws,
            1,
            longest + template_length(codec, _template(r)),
            r.sampling,
            "model.rewards.SelfReward.sampling.max_new_tokens",
        )
        for r in rewards
        if isinstance(r, SelfReward) and r.reading == "sampled"
    ]


def _reward_model(reward: PreferenceReward) -> RewardModel:
    own: Any = reward

    def setting(name: str, default: Any) -> Any:
        return getattr(own, name, getattr(own, f"_{name}", default))

    return RewardModel(
        name=own.name,
        spec=ModelSpec(
            source=str(setting("source", "")),
            dtype=None,
            packed=setting("quantization", None) is not None,
            kind=CLASSIFIER,
            key="model.rewards.PreferenceReward.model",
        ),
        placement=str(setting("placement", "resident")),
        max_tokens=int(setting("max_tokens", 2048)),
        batch_tokens=int(setting("batch_tokens", 8192)),
    )


def optimizer_of(model: PlannedModule) -> Optimizer:
    """What the run's optimiser keeps of each number, found by one step over a few."""
    sample = torch.nn.Parameter(torch.zeros(_SAMPLE_SIZE))
    sample.grad = torch.zeros_like(sample)
    optimizer = model.optimizer([sample])
    name = type(optimizer).__name__
    with warnings.catch_warnings():  # a paged one says that it does not page these few on a CPU
        warnings.simplefilter("ignore")
        optimizer.step()
    kept = [t for state in optimizer.state.values() for t in state.values()]
    size = sum(t.numel() * t.element_size() for t in kept if isinstance(t, torch.Tensor))
    return Optimizer(name, size / _SAMPLE_SIZE, name.startswith("Paged"))
