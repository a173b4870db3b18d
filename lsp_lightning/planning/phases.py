"""The phases of a round, run dry: the real functions over tensors without contents."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn.attention import SDPBackend, sdpa_kernel

from lsp_lightning.functional import LOGITS_AT_ONCE, selfplay_loss
from lsp_lightning.generation.sampling import sample
from lsp_lightning.inference import inference_state
from lsp_lightning.logits import completion_logprobs, head_logits, hidden_states
from lsp_lightning.planning.models import CLASSIFIER, ModelSpec, build, short_models, whole_model
from lsp_lightning.planning.tracking import LiveBytes, dry_run
from lsp_lightning.types import Sampling, TrainBatch


@dataclass(frozen=True)
class Shape:
    """Rows that go through a model together."""

    rows: int
    """How many."""
    prompt: int
    """Tokens of each prompt."""
    completion: int
    """Tokens of each completion."""

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.prompt + self.completion

    @property
    def tokens(self) -> int:
        """Tokens of all rows."""
        return self.rows * self.length


@dataclass(frozen=True)
class Cost:
    """What a phase takes beside the weights."""

    peak: float = 0.0
    """Bytes at the same time, at most."""
    cache: float = 0.0
    """Bytes of these that are a KV cache."""
    flops: float = 0.0
    """Floating-point operations."""

    def plus(self, other: "Cost", factor: float) -> "Cost":
        """This cost and a multiple of another."""
        return Cost(
            self.peak + factor * other.peak,
            self.cache + factor * other.cache,
            self.flops + factor * other.flops,
        )


Phase = Callable[[Any, LiveBytes, Shape, Sampling], Cost]


@functools.lru_cache(maxsize=512)
def cost(
    phase: Phase,
    spec: ModelSpec,
    shape: Shape,
    sampling: Sampling = Sampling(),  # noqa: B008 - frozen
    whole: bool = False,
) -> Cost:
    """What a phase takes for a model.

    Args:
        phase: one of this file's.
        spec: the model.
        shape: what goes through it.
        sampling: how is sampled, where it is.
        whole: run the model with all its layers, not with few.
    """
    parts = whole_model(spec) if whole else short_models(spec)
    total = Cost()
    for factor, kept in parts:
        model = _dry_model(spec, kept)
        with _attention(phase, spec.dtype), dry_run() as tracker:
            total = total.plus(phase(model, tracker, shape, sampling), factor)
    return total


def _attention(phase: Phase, dtype: torch.dtype | None) -> AbstractContextManager[None]:
    """The kernel of attention that a GPU has.

    Those that compute in float16 have no flash attention, and their other kernel that keeps no
    scores takes neither grouped queries nor, so, passes without a mask: they keep the scores.
    """
    if dtype == torch.float16 and phase in (update, reference, judging):
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


@functools.lru_cache(maxsize=16)
def _dry_model(spec: ModelSpec, kept: tuple[int, ...]) -> Any:
    model = build(spec, kept)
    with dry_run():
        model.to_empty(device="cpu")
    return model.train(spec.kind != CLASSIFIER)


def update(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """Forward and backward pass of a micro-batch whose gradients are added to earlier ones."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    batch, start = train_batch(shape), _start(tracker)
    with unset_fake_temporarily():
        reference, ones = torch.zeros(batch.mask.shape), torch.ones(shape.rows)
    logprobs, _ = completion_logprobs(_causal_lm(model), batch, LOGITS_AT_ONCE)
    loss = selfplay_loss(logprobs, reference, batch.mask, ones, ones, 0.0)
    loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    return Cost(tracker.peak - start, flops=tracker.flops)


def reference(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """The reference's log-probs of a micro-batch."""
    start = _start(tracker)
    with inference_state(model, "cpu"):
        completion_logprobs(_causal_lm(model), train_batch(shape), LOGITS_AT_ONCE)
    return Cost(tracker.peak - start, flops=tracker.flops)


def judging(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """The log-probs of the token after each prompt."""
    lm, start = _causal_lm(model), _start(tracker)
    with inference_state(model, "cpu"):
        last = hidden_states(lm, _ids(shape.rows, shape.length), _positions(shape))[:, -1]
        head_logits(lm, last).float().log_softmax(dim=-1)
    return Cost(tracker.peak - start, flops=tracker.flops)


def scoring(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """The logits of a reward model."""
    start, ids = _start(tracker), _ids(shape.rows, shape.length)
    with inference_state(model, "cpu"):
        model(input_ids=ids, attention_mask=_mask(shape.rows, shape.length)).logits.float()
    return Cost(tracker.peak - start, flops=tracker.flops)


def prefill(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """The prompts' keys and values, and the first token."""
    lm, start = _causal_lm(model), _start(tracker)
    with inference_state(model, "cpu"):
        logits = _next_logits(lm, shape.rows, shape.prompt, shape.prompt, _cache(lm))
        sample(logits, sampling, torch.zeros(shape.rows))
    return Cost(tracker.peak - start, flops=tracker.flops)


def decode(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """The last step of a rollout, when the KV cache is as long as it gets."""
    lm, start = _causal_lm(model), _start(tracker)
    with inference_state(model, "cpu"):
        cache = _cache(lm)
        _next_logits(lm, shape.rows, shape.length - 1, shape.length - 1, cache, padded=False)
        filled = tracker.live - start
        tracker.reset_peak()
        tracker.flops = 0
        logits = _next_logits(lm, shape.rows, 1, shape.length, cache)
        sample(logits, sampling, torch.zeros(shape.rows))
    return Cost(tracker.peak - start, filled, tracker.flops)


def train_batch(shape: Shape) -> TrainBatch:
    """A micro-batch of rows of one length, one completion each; real tensors of little size."""
    rows, length, new = shape.rows, shape.length, shape.completion
    with unset_fake_temporarily():
        first = torch.arange(rows).unsqueeze(1) * length + shape.prompt - 1
        return TrainBatch(
            input_ids=_ids(rows, length),
            position_ids=None,
            attention=None,
            targets=torch.zeros(rows, new, dtype=torch.long),
            mask=torch.ones(rows, new, dtype=torch.bool),
            sources=first + torch.arange(new),
            temperature=torch.ones(rows),
            rows=torch.arange(rows),
        )


def _start(tracker: LiveBytes) -> int:
    """What lives before a phase begins."""
    tracker.flops = 0
    tracker.reset_peak()
    return tracker.live


def _causal_lm(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _ids(rows: int, length: int) -> Tensor:
    """Token ids that are really there: models look at them to choose masks."""
    with unset_fake_temporarily():
        return torch.zeros(rows, length, dtype=torch.long)


def _positions(shape: Shape) -> Tensor:
    with unset_fake_temporarily():
        return torch.arange(shape.length).expand(shape.rows, shape.length).clone()


def _mask(rows: int, length: int, padded: bool = True) -> Tensor:
    """An attention mask; some rows are shorter than others, so that it cannot be left out."""
    with unset_fake_temporarily():
        mask = torch.ones(rows, length, dtype=torch.long)
        if padded and rows > 1:
            mask[0, 0] = 0
        return mask


def _cache(model: Any) -> Any:
    from transformers import DynamicCache

    return DynamicCache(config=model.config)


def _next_logits(
    model: Any, rows: int, new: int, length: int, cache: Any, padded: bool = True
) -> Tensor:
    """As :class:`lsp_lightning.generation.LocalEngine` asks: logits (n, V) after ``new`` tokens."""
    with unset_fake_temporarily():
        positions = torch.arange(length - new, length).expand(rows, new).clone()
        last = torch.tensor([-1]) if new > 1 else 1
    out = model(
        input_ids=_ids(rows, new),
        attention_mask=_mask(rows, length, padded),
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=last,
    )
    logits: Tensor = out.logits[:, -1]
    return logits
