"""How long prompts and completions get: asked of those who write the prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import torch

from lsp_lightning.errors import ConfigError
from lsp_lightning.models.loading import load_codec, load_config
from lsp_lightning.models.policy import compute_type
from lsp_lightning.planning.inputs import PlannedData, PlannedModule
from lsp_lightning.rewards import SelfReward
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.prompts import SCORE_PREFIX
from lsp_lightning.types import Rollouts, Sampling

#: Tokens that a prompt of ours takes around its slots, where no tokenizer tells: the longest
#: default prompt (the judge's) has about 330 in common vocabularies.
ASSUMED_TEMPLATE = 384


@dataclass(frozen=True)
class Rollout:
    """One kind of completion that the engine draws."""

    name: str
    """What is drawn."""
    prompts: int
    """How many prompts."""
    draws: int
    """Completions of each."""
    prompt: int
    """Tokens of the longest prompt."""
    sampling: Sampling
    """How they are drawn."""
    key: str
    """The config key of its length."""
    elsewhere: bool = False
    """Whether a server draws it, with memory and time of its own."""

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return self.prompt + self.sampling.max_new_tokens


def codec_of(model: PlannedModule) -> ChatCodec | None:
    """The tokenizer of the policy, or None where it cannot be had."""
    if model.policy is not None:
        return model.policy.codec
    own = model.policy_settings
    try:
        return load_codec(own.base, None, own.chat_template_kwargs or {})[0]
    except ConfigError:
        return None


def template_length(codec: ChatCodec | None, template: str, prefix: str = "") -> int:
    """Tokens of a template around its slots."""
    return ASSUMED_TEMPLATE if codec is None else len(codec.encode(template, {}, prefix))


def rollouts_of(
    model: PlannedModule, data: PlannedData, codec: ChatCodec | None
) -> tuple[Rollout, ...]:
    """What the policy writes: queries, answers, held-out answers."""
    queries = _asked_of(data, codec)
    known = [query.text for query in data.queries.known()]
    frame = template_length(codec, data.solver_prompt) if codec else 32
    longest = queries.sampling.max_new_tokens if queries else _longest(known, codec)
    key = "data.solver.max_new_tokens"
    n, g = data.num_queries, data.group_size
    answers = Rollout("answers", n, g, frame + longest, data.solver, key)
    found = [queries, answers] if queries else [answers]
    if data.heldout:
        texts = [query.text for query in data.heldout]
        prompt = frame + _longest(texts, codec)
        count = min(len(texts), data.heldout_batch)
        found.append(Rollout("held-out", count, data.heldout_draws, prompt, data.solver, key))
    return tuple(replace(rollout, elsewhere=model.rollouts.elsewhere) for rollout in found)


def _longest(texts: Sequence[str], codec: ChatCodec | None) -> int:
    """Tokens of the longest text; without a tokenizer a token is taken for three characters."""
    longest = sorted(texts, key=len)[-8:]
    if codec is None:
        return max((len(text) // 3 for text in longest), default=0)
    return max((len(codec.encode_plain(text)) for text in longest), default=0)


class _Asked(Exception):
    """What a source of queries asks of the player."""

    def __init__(self, prompt: Sequence[int], draws: int, sampling: Sampling) -> None:
        super().__init__()
        self.rollout = Rollout(
            "queries",
            1,
            draws,
            len(prompt),
            sampling,
            "data.queries.init_args.sampling.max_new_tokens",
        )


@dataclass(frozen=True)
class _Listener:
    """A player that writes nothing, but hears what it is asked for."""

    codec: Any

    def respond(
        self, prompts: Sequence[Sequence[int]], draws: int, sampling: Sampling, seed: int
    ) -> Rollouts:
        """See :class:`lsp_lightning.game.player.Player`."""
        raise _Asked(max(prompts, key=len), draws * len(prompts), sampling)


class _NoTokenizer:
    """Says that every prompt has the assumed length."""

    def encode(self, template: str, slots: Any, prefix: str = "") -> list[int]:
        """See :meth:`lsp_lightning.text.chat.ChatCodec.encode`."""
        return [0] * ASSUMED_TEMPLATE


def _asked_of(data: PlannedData, codec: ChatCodec | None) -> Rollout | None:
    """The rollout of the queries, if the policy writes them."""
    if not data.queries.selfplay:
        return None
    listener: Any = _Listener(codec or _NoTokenizer())
    try:
        data.queries.draw(listener, data.num_queries, 0, 0)
    except _Asked as asked:
        return asked.rollout
    return None


def check_model(model: PlannedModule, datamodule: PlannedData) -> None:
    """Whether a model computes in the type asked for, and its context holds the longest rows.

    Raises:
        ConfigError: one of them is not so; names the key.
    """
    own, config = model.policy_settings, load_config(model.policy_settings.base)
    compute_type(own.dtype, torch.device("cpu"), own.lora is not None, config.model_type)
    context, what = _context(config.get_text_config())
    codec = codec_of(model)
    if context is None or codec is None:
        return
    rollouts = rollouts_of(model, datamodule, codec)
    for rollout in rollouts:
        if rollout.length > context:
            _too_long(rollout, context, f"{what} of {own.base!r}")
    answers = next(rollout for rollout in rollouts if rollout.name == "answers")
    for reward in model.rewards:
        if isinstance(reward, SelfReward):
            frame = template_length(codec, reward.template.text, SCORE_PREFIX)
            reply = reward.sampling.max_new_tokens if reward.reading == "sampled" else 0
            length = answers.length + frame + reply
            if length > context:
                raise ConfigError(
                    answers.key,
                    f"is {answers.sampling.max_new_tokens}, and reward {reward.name!r} would judge "
                    f"up to {length} tokens in the {what} of {own.base!r}, which is {context}",
                    "shorten queries or answers, or use another model",
                )


def _context(config: Any) -> tuple[int | None, str]:
    """Tokens of the longest row that a model can take, and what they are called.

    Rotary embeddings that stretch with the longest row of a batch count to the length from which
    they do: further on a completion's log-probs depend on the rows beside it, and the keys that are
    cached while it is sampled are not those it is trained with.
    """
    context, what = getattr(config, "max_position_embeddings", None), "context"
    ropes = getattr(config, "rope_parameters", None) or {}
    nested = [rope for rope in ropes.values() if isinstance(rope, dict)]  # one for a kind of layer
    for rope in nested or [ropes]:
        if rope.get("rope_type") in ("dynamic", "longrope"):
            first = rope.get("original_max_position_embeddings") or context
            if first and (context is None or first < context):
                context, what = first, "context before its rotary embedding changes with a batch"
    return context, what


def _too_long(rollout: Rollout, context: int, what: str) -> NoReturn:
    new, room = rollout.sampling.max_new_tokens, context - rollout.prompt
    raise ConfigError(
        rollout.key,
        f"is {new}, after a prompt of up to {rollout.prompt} tokens ({rollout.name}), and the "
        f"{what} is {context}",
        f"set {room} or less" if room > 0 else "make queries shorter, or use another model",
    )
