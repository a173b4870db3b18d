"""Log-probs of given tokens, in chunks, so that the logits of all tokens never exist at once.

``M`` predicted tokens, ``m`` of them in one chunk, ``H`` hidden size, ``V`` vocabulary. The size of
a chunk follows from ``logits_at_once``, so memory does not depend on V, forward or backward.

Fused kernels (``torch.nn.functional.linear_cross_entropy``, Liger, cut cross-entropy) do not fit:
they need a plain weight matrix, return no entropy, and have no per-token temperature after a
soft-cap.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

Head = Callable[[Tensor], Tensor]

#: 64 MB in fp32: enough tokens for an efficient matrix product, with any vocabulary.
LOGITS_AT_ONCE = 2**24


def token_logprobs(
    hidden_MH: Tensor,
    head: Head,
    targets_M: Tensor,
    temperature_M: Tensor,
    logits_at_once: int = LOGITS_AT_ONCE,
    entropies: bool = True,
) -> tuple[Tensor, Tensor]:
    """The log-prob of each target token, and the entropy of the distribution it was drawn from.

    Args:
        hidden_MH: final hidden states, one per predicted token.
        head: maps (m, H) to logits (m, V), each row independently; soft-capping and a cast to the
            head's dtype belong inside it.
        targets_M: token ids, int64.
        temperature_M: sampling temperature of each token: log-probs are those of the distribution
            that was sampled from.
        logits_at_once: most logits in one chunk, which always holds at least one token. Two copies
            exist at a time, more with a soft-cap.
        entropies: whether to compute entropies, which takes as long as the log-probs.

    Returns:
        logprobs (M,), differentiable once, and entropies (M,) in nats, detached (0 if they are not
        computed). fp32, or fp64 if the logits are.

    Raises:
        ValueError: shapes do not match.
    """
    _check_shapes(hidden_MH, targets_M, temperature_M)
    if targets_M.numel() == 0:
        empty = hidden_MH.sum(dim=1, dtype=torch.float32)
        return empty, empty.detach()
    # one token shows the size of the vocabulary, and whether the head has trained weights
    first_1V = head(hidden_MH[:1].detach())
    rows = max(1, logits_at_once // first_1V.shape[1])
    if torch.is_grad_enabled() and hidden_MH.requires_grad and not first_1V.requires_grad:
        apply: Callable[..., tuple[Tensor, Tensor]] = _FrozenHead.apply
        return apply(hidden_MH, head, targets_M, temperature_M, rows, entropies)

    def of_chunk(hidden: Tensor, targets: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        return _of_logits(head(hidden), targets, temperature, entropies)

    parts = []
    for chunk in _chunks(rows, hidden_MH, targets_M, temperature_M):
        if torch.is_grad_enabled():
            # checkpoint restores the random state: a trained head may have an adapter with dropout
            parts.append(checkpoint(of_chunk, *chunk, use_reentrant=False))
        else:
            parts.append(of_chunk(*chunk))
    logprobs_M, entropies_M = (torch.cat(column) for column in zip(*parts, strict=True))
    return logprobs_M, entropies_M


def _check_shapes(hidden_MH: Tensor, targets_M: Tensor, temperature_M: Tensor) -> None:
    if hidden_MH.dim() != 2 or targets_M.shape != hidden_MH.shape[:1]:
        raise ValueError(
            f"expected hidden (M, H) and targets (M,), got {tuple(hidden_MH.shape)} "
            f"and {tuple(targets_M.shape)}"
        )
    if temperature_M.shape != targets_M.shape:
        raise ValueError(f"expected temperature (M,), got {tuple(temperature_M.shape)}")


def _chunks(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    return zip(*(torch.split(tensor, rows) for tensor in tensors), strict=True)


def _of_logits(
    logits_mV: Tensor, targets_m: Tensor, temperature_m: Tensor, entropies: bool
) -> tuple[Tensor, Tensor]:
    apply: Callable[..., tuple[Tensor, Tensor]] = _SampledLogprobs.apply
    return apply(logits_mV, targets_m, temperature_m.float(), entropies)


class _SampledLogprobs(torch.autograd.Function):
    """``log softmax(logits / temperature)[target]``, with only one copy of the logits."""

    @staticmethod
    def forward(
        ctx: Any, logits_mV: Tensor, targets_m: Tensor, temperature_m: Tensor, entropies: bool
    ) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies. (m,) each."""
        # the quotient has at least fp32; all operations on it are in place
        p_mV = logits_mV / temperature_m.unsqueeze(1)
        highest_m1 = p_mV.amax(dim=1, keepdim=True)
        p_mV.sub_(highest_m1)
        chosen_m = p_mV.gather(1, targets_m.unsqueeze(1)).squeeze(1)
        sum_m1 = p_mV.exp_().sum(dim=1, keepdim=True)
        log_sum_m1 = sum_m1.log()
        if entropies:
            # entr, not p * log p: a token with probability 0 adds 0
            entropies_m = torch.special.entr(p_mV.div_(sum_m1), out=p_mV).sum(dim=1)
        else:
            entropies_m = torch.zeros_like(chosen_m)
        ctx.save_for_backward(logits_mV, targets_m, temperature_m, highest_m1 + log_sum_m1)
        ctx.mark_non_differentiable(entropies_m)
        return chosen_m - log_sum_m1.squeeze(1), entropies_m

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_m: Tensor, _: Tensor) -> tuple[Tensor, None, None, None]:
        """``(1[j = target] - p_j) / temperature``, times the incoming gradient."""
        logits_mV, targets_m, temperature_m, log_sum_m1 = ctx.saved_tensors
        grad_m1 = (grad_m / temperature_m).unsqueeze(1)
        p_mV = (logits_mV / temperature_m.unsqueeze(1)).sub_(log_sum_m1).exp_()
        p_mV.mul_(-grad_m1).scatter_add_(1, targets_m.unsqueeze(1), grad_m1)
        return p_mV.to(logits_mV.dtype), None, None, None


class _FrozenHead(torch.autograd.Function):
    """Runs all chunks through a frozen head, with two matrix products a chunk instead of three.

    A token's log-prob depends on one hidden state only. Its gradient (H,) is therefore computed in
    the forward pass, while the logits exist, and multiplied by the incoming gradient later.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MH: Tensor,
        head: Head,
        targets_M: Tensor,
        temperature_M: Tensor,
        rows: int,
        entropies: bool,
    ) -> tuple[Tensor, Tensor]:
        """Log-probs and entropies. (M,) each."""
        gradient_MH = torch.empty_like(hidden_MH)
        parts = []
        for hidden, targets, temperature, gradient in _chunks(
            rows, hidden_MH, targets_M, temperature_M, gradient_MH
        ):
            with torch.enable_grad():
                leaf = hidden.detach().requires_grad_()
                logprobs, entropy = _of_logits(head(leaf), targets, temperature, entropies)
                gradient.copy_(torch.autograd.grad(logprobs.sum(), leaf)[0])
            parts.append((logprobs.detach(), entropy))
        ctx.save_for_backward(gradient_MH)
        logprobs_M, entropies_M = (torch.cat(column) for column in zip(*parts, strict=True))
        ctx.mark_non_differentiable(entropies_M)
        return logprobs_M, entropies_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_M: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of each token's log-prob, times the incoming gradient."""
        (gradient_MH,) = ctx.saved_tensors
        weighted_MH = gradient_MH * grad_M.unsqueeze(1)
        return weighted_MH.to(gradient_MH.dtype), None, None, None, None, None
