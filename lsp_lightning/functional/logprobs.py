"""Log-probs of given tokens, in chunks: (rows, tokens, vocabulary) is never built.

``M`` places, ``H`` hidden size, ``V`` vocabulary. At most ``chunk_size`` rows of V logits exist at
a
time, forward and backward: the backward pass computes each chunk's logits again.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def token_logprobs(
    hidden_MH: Tensor,
    head: Callable[[Tensor], Tensor],
    targets_M: Tensor,
    temperature_M: Tensor,
    chunk_size: int = 1024,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of its distribution, in fp32.

    Args:
        hidden_MH: final hidden states, one per predicted token.
        head: maps (m, H) to logits (m, V); soft-capping and the like belong inside it.
        targets_M: token ids, int64.
        temperature_M: the sampling temperature of each place; "pi" is what was sampled from.
        chunk_size: places whose logits exist at one time.

    Returns:
        logprobs (M,), differentiable, and entropies (M,) in nats, detached.
    """
    if hidden_MH.dim() != 2 or targets_M.shape != hidden_MH.shape[:1]:
        raise ValueError(
            f"expected hidden (M, H) and targets (M,), got {tuple(hidden_MH.shape)} "
            f"and {tuple(targets_M.shape)}"
        )
    if temperature_M.shape != targets_M.shape:
        raise ValueError(f"expected temperature (M,), got {tuple(temperature_M.shape)}")
    if targets_M.numel() == 0:
        empty = hidden_MH.sum(dim=1, dtype=torch.float32)
        return empty, empty.detach()

    def of_chunk(hidden: Tensor, targets: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        scaled = head(hidden).float() / temperature.unsqueeze(1)
        logprobs = scaled.log_softmax(dim=-1)
        with torch.no_grad():
            entropy = torch.special.entr(logprobs.exp()).sum(dim=-1)
        return logprobs.gather(1, targets.unsqueeze(1)).squeeze(1), entropy

    parts = []
    for chunk in zip(
        torch.split(hidden_MH, chunk_size),
        torch.split(targets_M, chunk_size),
        torch.split(temperature_M, chunk_size),
        strict=True,
    ):
        if torch.is_grad_enabled():
            parts.append(
                checkpoint(of_chunk, *chunk, use_reentrant=False, preserve_rng_state=False)
            )
        else:
            parts.append(of_chunk(*chunk))
    logprobs, entropies = (torch.cat(column) for column in zip(*parts, strict=True))
    return logprobs, entropies
