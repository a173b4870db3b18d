"""How many tokens prompts and completions have, and whether the model's context holds them."""

from dataclasses import dataclass, replace
from typing import Any

from lsp_lightning.errors import ConfigError
from lsp_lightning.evaluation.exam import HELDOUT_BATCH
from lsp_lightning.game.challenger import Challenger
from lsp_lightning.game.gate import Judged
from lsp_lightning.game.queries import longest_text
from lsp_lightning.models.loading import load_codec, load_config
from lsp_lightning.models.precision import check_dtype
from lsp_lightning.planning.inputs import PlannedData, PlannedModule
from lsp_lightning.rewards import Reward, SelfReward
from lsp_lightning.text.chat import ChatCodec
from lsp_lightning.text.prompts import SCORE_PREFIX
from lsp_lightning.text.rendering import ChatTemplateError
from lsp_lightning.types import Sampling

#: Tokens of a prompt around its slots, assumed if its length is unknown. The longest default prompt
#: (the judge's) has about 330 in common vocabularies.
ASSUMED_TEMPLATE = 384
#: Tokens around a query in the Solver's prompt, assumed without a tokenizer.
_ASSUMED_FRAME = 32
#: Tokens of a query, assumed if the query source does not say; the Challenger's default limit.
ASSUMED_QUERY = 256
#: Tokens of a passage, assumed if the query source does not say.
_ASSUMED_PASSAGE = 256
_PASSAGE_WORDS = "data.queries.init_args.passage_words"
_NUM_EXAMPLES = "data.queries.init_args.num_examples"


@dataclass(frozen=True)
class PlannedRollout:
    """One kind of completion that the engine samples in a round."""

    name: str
    """What is sampled: queries, answers ..."""
    prompts: int
    """Number of prompts."""
    draws: int
    """Completions of each prompt."""
    prompt: int
    """Tokens of the longest prompt."""
    sampling: Sampling
    """How completions are sampled."""
    key: str
    """The config key of their length limit."""
    served: bool = False
    """Whether a server samples them; they then take no memory of this process."""
    assumption: str | None = None
    """What was assumed because ``prompt`` is unknown; None if it is known."""
    has_passage: bool = False
    """Whether prompts contain a passage of the documents, whose length is a setting."""
    has_examples: bool = False
    """Whether prompts contain examples, whose number is a setting."""

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return self.prompt + self.sampling.max_new_tokens


def codec_of(model: PlannedModule) -> ChatCodec | None:
    """The policy's chat codec, or None if its tokenizer could not be loaded.

    Raises:
        ChatTemplateError: its chat template cannot be used.
    """
    if model.policy is not None:
        return model.policy.codec
    settings = model.policy_settings
    try:
        return load_codec(settings.base, None, settings.chat_template_kwargs or {})[0]
    except ChatTemplateError:
        raise
    except ConfigError:
        return None


def template_length(codec: ChatCodec | None, template: str, prefix: str = "") -> int:
    """Tokens of a template around its slots."""
    return ASSUMED_TEMPLATE if codec is None else len(codec.encode(template, {}, prefix))


def rollouts_of(
    model: PlannedModule, data: PlannedData, codec: ChatCodec | None
) -> tuple[PlannedRollout, ...]:
    """What the policy samples in a round: queries (in self-play), answers, held-out answers."""
    found = [*_queries(data, codec), _answers(data, codec)]
    if data.heldout:
        longest = longest_text([query.text for query in data.heldout], codec) or 0
        found.append(
            replace(
                _answers(data, codec),
                name="held-out",
                prompts=min(len(data.heldout), HELDOUT_BATCH),
                draws=data.heldout_draws,
                prompt=_frame(data, codec) + longest,
                assumption=None,
                has_passage=False,
            )
        )
    return tuple(replace(rollout, served=model.rollouts.served) for rollout in found)


def _queries(data: PlannedData, codec: ChatCodec | None) -> list[PlannedRollout]:
    """The queries of a round, if the policy writes them and the source says how."""
    source = data.queries
    if not source.selfplay or source.sampling is None:
        return []
    prompt, assumption = source.longest_prompt(codec), None
    if prompt is None:
        prompt = ASSUMED_TEMPLATE
        assumption = f"prompts of the Challenger are assumed to have {prompt} tokens"
    return [
        PlannedRollout(
            name="queries",
            prompts=(prompts := source.num_prompts(data.num_queries)),
            draws=data.num_queries // prompts,
            prompt=prompt,
            sampling=source.sampling,
            key="data.queries.init_args.sampling.max_new_tokens",
            assumption=assumption,
            has_passage=_has_documents(data),
            has_examples=_has_examples(data),
        )
    ]


def _answers(data: PlannedData, codec: ChatCodec | None) -> PlannedRollout:
    """The answers of a round."""
    query, assumption = data.queries.longest_query(codec), None
    if query is None:
        query = ASSUMED_QUERY
        assumption = f"queries are assumed to have {query} tokens"
    frame = _frame(data, codec)
    if data.passage_prompt is not None:
        passage = _passage(data, codec)
        if data.queries.longest_passage(codec) is None:
            assumption = assumption or f"passages are assumed to have {passage} tokens"
        frame = max(frame, template_length(codec, data.passage_prompt) + passage)
    return PlannedRollout(
        name="answers",
        prompts=data.num_queries,
        draws=data.group_size,
        prompt=frame + query,
        sampling=data.solver,
        key="data.solver.max_new_tokens",
        assumption=assumption,
        has_passage=data.passage_prompt is not None and _has_documents(data),
    )


def _has_documents(data: PlannedData) -> bool:
    """Whether the Challenger writes about passages of a file, whose length is a setting."""
    return getattr(data.queries, "documents", None) is not None


def _has_examples(data: PlannedData) -> bool:
    """Whether the Challenger sees examples, whose number is a setting."""
    source = data.queries
    return isinstance(source, Challenger) and bool(source.examples or source.examples_from_pool)


def _frame(data: PlannedData, codec: ChatCodec | None) -> int:
    """Tokens of the Solver's prompt around a query."""
    return _ASSUMED_FRAME if codec is None else template_length(codec, data.solver_prompt)


def _passage(data: PlannedData, codec: ChatCodec | None) -> int:
    """Tokens of the longest passage."""
    longest = data.queries.longest_passage(codec)
    return _ASSUMED_PASSAGE if longest is None else longest


def judge_prompt(
    reward: SelfReward,
    data: PlannedData,
    codec: ChatCodec | None,
    answers: PlannedRollout,
    prefix: str = "",
) -> int:
    """Tokens of a self-reward's longest prompt."""
    length = answers.length + template_length(codec, reward.template.text, prefix)
    shown = reward.template.shows_passage and data.passage_prompt is None  # else it is counted
    return length + (_passage(data, codec) if shown else 0)


def check_model(model: PlannedModule, datamodule: PlannedData) -> None:
    """Check that a model can compute in its dtype, and that its context holds the longest rows.

    Rows of unknown length are not checked: those of a query source that does not report its longest
    prompt or query, and all rows if there is no tokenizer.

    Raises:
        ConfigError: the dtype cannot be trained, or a row is too long; the message names the key.
    """
    policy, config = model.policy_settings, load_config(model.policy_settings.base)
    check_dtype(policy.dtype, policy.lora is not None, config.model_type)
    context, name = _context(config.get_text_config())
    codec = codec_of(model)
    if context is None or codec is None:
        return
    name = f"the {name} of {policy.base!r}"
    rollouts = [r for r in rollouts_of(model, datamodule, codec) if r.assumption is None]
    for rollout in rollouts:
        _check_rollout(rollout, context, name)
    _check_gate(datamodule, codec, context, name)
    for answers in rollouts:
        if answers.name == "answers":
            for reward in model.rewards:
                _check_judge(reward, datamodule, codec, answers, context, name)


def _context(config: Any) -> tuple[int | None, str]:
    """The longest row that a model can take, in tokens, and what that limit is called.

    Some rotary embeddings change with the longest row of a batch. Their limit is the length at
    which they start to change: beyond it a completion's log-probs would depend on the other rows,
    and training would not see the keys that were cached in sampling.
    """
    context, name = getattr(config, "max_position_embeddings", None), "context"
    ropes = getattr(config, "rope_parameters", None) or {}
    nested = [rope for rope in ropes.values() if isinstance(rope, dict)]  # one per kind of layer
    for rope in nested or [ropes]:
        if rope.get("rope_type") in ("dynamic", "longrope"):
            first = rope.get("original_max_position_embeddings") or context
            if first and (context is None or first < context):
                context, name = first, "context before RoPE scaling"
    return context, name


def _check_rollout(rollout: PlannedRollout, context: int, name: str) -> None:
    """Raise ConfigError unless the longest row of a rollout fits into the context."""
    if rollout.length <= context:
        return
    new, room = rollout.sampling.max_new_tokens, context - rollout.prompt
    settings = [_PASSAGE_WORDS] if rollout.has_passage else []
    settings += [_NUM_EXAMPLES] if rollout.has_examples else []
    shorter = f"lower {' or '.join(settings)}" if settings else ""
    if room > 0:
        remedy = f"set {room} or less" + (f", or {shorter}" if shorter else "")
    else:
        more = "use shorter prompts and queries, or another model"
        remedy = f"{shorter}, {more}" if shorter else more
    raise ConfigError(
        rollout.key,
        f"is {new}, after a prompt of up to {rollout.prompt} tokens ({rollout.name}), but {name} "
        f"is {context} tokens",
        remedy,
    )


def _check_gate(data: PlannedData, codec: ChatCodec, context: int, name: str) -> None:
    """Raise ConfigError unless the prompts of the gate's judge fit into the context."""
    for check in [] if data.gate is None else data.gate.checks:
        if isinstance(check, Judged):
            query = data.queries.longest_query(codec) or 0
            length = template_length(codec, check.template.text, SCORE_PREFIX) + query
            check.check_length(length, context, name)


def _check_judge(
    reward: Reward,
    data: PlannedData,
    codec: ChatCodec,
    answers: PlannedRollout,
    context: int,
    name: str,
) -> None:
    """Raise ConfigError unless the prompts and replies of a self-reward fit into the context."""
    if not isinstance(reward, SelfReward):
        return
    reply = reward.sampling.max_new_tokens if reward.reading == "sampled" else 0
    length = judge_prompt(reward, data, codec, answers, SCORE_PREFIX) + reply
    seen = answers.has_passage or (reward.template.shows_passage and _has_documents(data))
    shorter = f"lower {_PASSAGE_WORDS}, " if seen else ""
    if length > context:
        raise ConfigError(
            answers.key,
            f"is {answers.sampling.max_new_tokens}, so reward {reward.name!r} would judge up to "
            f"{length} tokens, but {name} is {context} tokens",
            f"{shorter}shorten queries or answers, or use another model",
        )
