"""The phases of a round, run dry: the real functions over tensors without contents."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.nn.attention import SDPBackend, sdpa_kernel

from lsp_lightning.functional import LOGITS_AT_ONCE, selfplay_loss
from lsp_lightning.generation.local import FULL
from lsp_lightning.generation.sampling import sample
from lsp_lightning.models.logits import completion_logprobs, head_logits, hidden_states
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
from lsp_lightning.prefix.hooks import Inner, takes_trees
from lsp_lightning.types import Sampling, TrainBatch


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
        # passes in which no attention has a mask; those of trees have some, see _ByKernel
        trees = takes_trees(causal_lm(model))
        unmasked = phase is prefill if trees else phase in (update, reference, judging)
        with _kernel(spec.dtype) if unmasked else nullcontext(), dry_run() as tracker:
            total = total.plus(phase(model, tracker, shape, sampling), factor)
    return total


def _kernel(dtype: torch.dtype | None) -> AbstractContextManager[None]:
    """The kernel of attention without a mask that a GPU has.

    Those that compute in float16 have no flash attention, and their other kernel that keeps no
    scores takes neither grouped queries nor, so, passes without a mask: they keep the scores.
    """
    return sdpa_kernel(SDPBackend.MATH) if dtype == torch.float16 else nullcontext()


@dataclass(frozen=True)
class _ByKernel:
    """A tree's attention, the pieces that are causal without a mask by the kernel for these."""

    tree: TreeAttention

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
    """Forward and backward pass of a micro-batch whose gradients are added to earlier ones."""
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
    """The log-probs of the token after each row, which is a judge's prompt."""
    lm, start = causal_lm(model), _start(tracker)
    batch = _batch(lm, replace(shape, completion=shape.completion + 1))  # the last is not read
    with inference_state(model, "cpu"):
        hidden = hidden_states(lm, batch.input_ids, batch.position_ids, batch.attention)
        last = hidden.flatten(0, 1)[batch.sources[:, -1]]
        head_logits(lm, last).float().log_softmax(dim=-1)
    return Cost(tracker.peak - start, flops=tracker.flops)


def scoring(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """The logits of a reward model."""
    start, ids = _start(tracker), token_ids(shape.rows, shape.length)
    with inference_state(model, "cpu"):
        model(input_ids=ids, attention_mask=attention_mask(shape.rows, shape.length)).logits.float()
    return Cost(tracker.peak - start, flops=tracker.flops)


def prefill(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """The prompts' keys and values, and the first token of each completion."""
    lm, start = causal_lm(model), _start(tracker)
    with inference_state(model, "cpu"), merged_lora(lm):
        decoder = first_decoder(lm, shape)
        sample(decoder.begin(), sampling, torch.zeros(shape.rows))
    return Cost(tracker.peak - start, flops=tracker.flops)


def decode(model: Any, tracker: LiveBytes, shape: Shape, sampling: Sampling) -> Cost:
    """The last step of a rollout, when the KV cache is as long as it gets; then some rows leave."""
    lm, start = causal_lm(model), _start(tracker)
    with inference_state(model, "cpu"), merged_lora(lm):
        logits, cache, filled = last_step(lm, tracker, shape)
        sample(logits, sampling, torch.zeros(shape.rows))
        with unset_fake_temporarily():
            others = torch.arange(int(FULL * shape.rows))
        leave = cache.keep if isinstance(cache, PrefixCache) else cache.reorder_cache
        if len(others):  # of a single row, none goes on
            leave(others)
    return Cost(tracker.peak - start, filled, tracker.flops)


def _batch(lm: Any, shape: Shape) -> TrainBatch:
    """A micro-batch; what is looked at in it is real, small tensors."""
    with unset_fake_temporarily():
        batch = train_batch(shape, takes_trees(lm))
        # looked at to find rows packed one behind another: without any there need be no mask
        counted = torch.arange(batch.input_ids.shape[1]).expand_as(batch.input_ids)
    tree = batch.attention
    if tree is None:
        return replace(batch, position_ids=counted)
    blocks = tuple(
        replace(block, queries_ct=_hollow(block.queries_ct), keys_cl=_hollow(block.keys_cl))
        for block in tree.blocks
    )
    tree = replace(tree, blocks=blocks, order=_hollow(tree.order))
    return replace(batch, targets=_hollow(batch.targets), attention=_ByKernel(tree))


def _hollow(tensor: Tensor) -> Tensor:
    """A tensor in whose place contents do not matter: operations on it are remembered by shape."""
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _start(tracker: LiveBytes) -> int:
    """What lives before a phase begins."""
    tracker.flops = 0
    tracker.reset_peak()
    return tracker.live
