"""Dry runs of the phases of a round: the real functions over tensors without data."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn.attention import SDPBackend, sdpa_kernel

from lsp_lightning.functional import LOGITS_AT_ONCE, selfplay_loss
from lsp_lightning.generation.local import COMPACT_AT
from lsp_lightning.generation.sampling import sample
from lsp_lightning.models.logits import batch_hidden_states, completion_logprobs, head_logits
from lsp_lightning.models.lora_speed import merged_lora
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.policy import causal_lm
from lsp_lightning.planning.decoding import (
    attention_mask,
    first_decoder,
    last_step,
    token_ids,
)
from lsp_lightning.planning.models import CLASSIFIER, ModelSpec, build, short_models, whole_model
from lsp_lightning.planning.shapes import Shape, train_batch
from lsp_lightning.planning.tracking import LiveBytes, dry_run
from lsp_lightning.prefix.attention import TreeAttention
from lsp_lightning.prefix.cache import PrefixCache
from lsp_lightning.prefix.hooks import Inner
from lsp_lightning.prefix.sharing import shares_prefixes
from lsp_lightning.types import Sampling, TrainBatch


@dataclass(frozen=True)
class Cost:
    """Memory and operations of a phase, without the weights."""

    peak: float = 0.0
    """Most bytes at once."""
    cache: float = 0.0
    """Bytes of the KV cache, part of ``peak``."""
    flops: float = 0.0
    """Floating-point operations."""

    def plus(self, other: "Cost", factor: float) -> "Cost":
        """This cost plus ``factor`` times another."""
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
    """The cost of a phase for a model.

    Args:
        phase: a phase function of this file.
        spec: the model.
        shape: the rows that go through it.
        sampling: how tokens are sampled, for phases that sample.
        whole: run the model with all its layers instead of few.
    """
    parts = whole_model(spec) if whole else short_models(spec)
    total = Cost()
    for factor, kept in parts:
        model = _dry_model(spec, kept)
        # phases whose attention never has a mask; in trees some pieces have one, see _ByKernel
        shared = shares_prefixes(causal_lm(model))
        unmasked = phase is prefill if shared else phase in (update, reference, judging)
        with _kernel(spec.dtype) if unmasked else nullcontext(), dry_run() as tracker:
            total = total.plus(phase(model, tracker, shape, sampling), factor)
    return total


def _kernel(dtype: torch.dtype | None) -> AbstractContextManager[None]:
    """The attention kernel that a GPU uses without a mask.

    float16 is planned for older GPUs (T4). They have no flash attention, and their memory-efficient
    kernel does not take grouped queries: they use the plain kernel, which keeps the scores.
    """
    return sdpa_kernel(SDPBackend.MATH) if dtype == torch.float16 else nullcontext()


@dataclass(frozen=True)
class _ByKernel:
    """Attention over a tree that uses :func:`_kernel` for pieces without a mask."""

    tree: TreeAttention

    def to(self, device: torch.device | str) -> Self:
        """The same attention on another device."""
        return type(self)(self.tree.to(device))

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inner: Inner,
        **settings: Any,
    ) -> Tensor:
        """See :class:`lsp_lightning.prefix.hooks.Attention`."""

        def by_kernel(
            module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, **settings: Any
        ) -> tuple[Tensor, Tensor | None]:
            with _kernel(q.dtype) if mask is None else nullcontext():
                return inner(module, q, k, v, mask, **settings)

        return self.tree.attend(module, query, key, value, by_kernel, **settings)


@functools.lru_cache(maxsize=16)
def _dry_model(spec: ModelSpec, kept: tuple[int, ...]) -> Any:
    model = build(spec, kept)
    with dry_run():
        model.to_empty(device="cpu")
    return model.train(spec.kind != CLASSIFIER)


def update(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """Forward and backward pass of a micro-batch; its gradients are added to earlier ones."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.zeros_like(parameter)
    lm = causal_lm(model)
    batch, start = _batch(lm, shape), _start(tracker)
    with unset_fake_temporarily():
        reference, ones = torch.zeros(batch.mask.shape), torch.ones(shape.rows)
    logprobs, _ = completion_logprobs(lm, batch, LOGITS_AT_ONCE)
    loss = selfplay_loss(logprobs, reference, batch.mask, ones, ones, 0.0)
    loss.backward()  # type: ignore[no-untyped-call]
    model.zero_grad()
    return Cost(tracker.peak - start, flops=tracker.flops)


def reference(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """The reference's log-probs of a micro-batch."""
    lm, start = causal_lm(model), _start(tracker)
    with inference_state(model, "cpu"):
        completion_logprobs(lm, _batch(lm, shape), LOGITS_AT_ONCE)
    return Cost(tracker.peak - start, flops=tracker.flops)


def judging(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """Log-probs of the token after each row; the rows are judge prompts."""
    lm, start = causal_lm(model), _start(tracker)
    # one more token, because log-probs are read before the last
    batch = _batch(lm, replace(shape, completion=shape.completion + 1))
    with inference_state(model, "cpu"):
        hidden = batch_hidden_states(lm, batch).flatten(0, 1)
        last = hidden[batch.sources[:, -1]]
        head_logits(lm, last).float().log_softmax(dim=-1)
    return Cost(tracker.peak - start, flops=tracker.flops)


def scoring(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """The logits of a reward model."""
    start, ids = _start(tracker), token_ids(shape.rows, shape.length)
    with inference_state(model, "cpu"):
        model(input_ids=ids, attention_mask=attention_mask(shape.rows, shape.length)).logits.float()
    return Cost(tracker.peak - start, flops=tracker.flops)


def prefill(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """The pass over the prompts, and the first token of each completion."""
    lm, start = causal_lm(model), _start(tracker)
    with inference_state(model, "cpu"), merged_lora(lm):
        decoder = first_decoder(lm, shape)
        sample(decoder.begin(), sampling, torch.zeros(shape.rows))
    return Cost(tracker.peak - start, flops=tracker.flops)


def decode(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """The last step of a rollout, when the KV cache is full; then some rows are removed."""
    lm, start = causal_lm(model), _start(tracker)
    with inference_state(model, "cpu"), merged_lora(lm):
        logits, cache, filled = last_step(lm, tracker, shape)
        sample(logits, sampling, torch.zeros(shape.rows))
        with unset_fake_temporarily():
            others = torch.arange(int(COMPACT_AT * shape.rows))
        keep = cache.keep if isinstance(cache, PrefixCache) else cache.reorder_cache
        if len(others):  # a single row leaves none
            keep(others)
    return Cost(tracker.peak - start, filled, tracker.flops)


def _batch(lm: Any, shape: Shape) -> TrainBatch:
    """A micro-batch; the small tensors whose values matter have data."""
    with unset_fake_temporarily():
        batch = train_batch(shape, shares_prefixes(lm))
        # models look at positions to find packed rows, and need no mask without any
        counted = torch.arange(batch.input_ids.shape[1]).expand_as(batch.input_ids)
    tree = batch.attention
    if not isinstance(tree, TreeAttention):
        return replace(batch, position_ids=counted)
    blocks = tuple(
        replace(block, queries_ct=_hollow(block.queries_ct), keys_cl=_hollow(block.keys_cl))
        for block in tree.blocks
    )
    tree = replace(tree, blocks=blocks, order=_hollow(tree.order))
    return replace(batch, targets=_hollow(batch.targets), attention=_ByKernel(tree))


def _hollow(tensor: Tensor) -> Tensor:
    """The same tensor without data: operations on it are cached by shape."""
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _start(tracker: LiveBytes) -> int:
    """Bytes that are alive before a phase begins."""
    tracker.flops = 0
    tracker.reset_peak()
    return tracker.live
