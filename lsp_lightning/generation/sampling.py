"""One token a row from its logits."""

import torch
from torch import Tensor

from lsp_lightning.types import Sampling


def sample(logits_nV: Tensor, sampling: Sampling, uniform_n: Tensor) -> tuple[Tensor, Tensor]:
    """One token a row, and its log-prob at the sampling temperature before any truncation.

    The token whose share of the cumulated probabilities ``uniform_n`` falls into: what is drawn
    depends on a row's own logits and number alone, not on which rows are there beside it. At
    temperature 0 it is the likeliest token, with its log-prob at temperature 1.

    Args:
        logits_nV: of the next token.
        sampling: how it is drawn.
        uniform_n: numbers in [0, 1).

    Returns:
        tokens (n,) int64 and log-probs (n,) fp32; NaN logits give some token and a NaN log-prob.
    """
    logits_nV = logits_nV.float()
    if sampling.temperature not in (0, 1):
        logits_nV = logits_nV / sampling.temperature
    logprobs_nV = logits_nV.log_softmax(dim=-1)
    if sampling.temperature == 0:
        tokens = logprobs_nV.argmax(dim=-1)
    else:
        kept_nV = truncate(logprobs_nV, sampling.top_p, sampling.top_k)
        tokens = _draw(kept_nV.exp(), uniform_n)
    return tokens, logprobs_nV.gather(1, tokens.unsqueeze(1)).squeeze(1)


def _draw(shares_nV: Tensor, uniform_n: Tensor) -> Tensor:
    """The place of each row's number among its cumulated shares, which need not sum to 1. (n,).

    First among the sums of blocks, then inside of one: cumulating is slow, and so little of it is
    done.
    """
    n, size = shares_nV.shape
    width = int(size**0.5) + 1
    blocks = torch.nn.functional.pad(shares_nV, (0, -size % width)).view(n, -1, width)
    sums = blocks.sum(dim=2)
    block, at = _place(sums, uniform_n.unsqueeze(1) * sums.sum(dim=1, keepdim=True))
    inside = blocks.gather(1, block.unsqueeze(2).expand(-1, 1, width)).squeeze(1)
    place, _ = _place(inside, at)
    return (block * width + place).squeeze(1).clamp_max(size - 1)


def _place(shares_nk: Tensor, at_n1: Tensor) -> tuple[Tensor, Tensor]:
    """Which share a place on the line of all shares falls into, and where in it. (n, 1) each."""
    ends = shares_nk.cumsum(dim=1)
    place = torch.searchsorted(ends, at_n1, right=True)
    # rounding may lift a place to the end of the line: it is in the last share that is not empty
    place = torch.minimum(place, torch.searchsorted(ends, ends[:, -1:].contiguous()))
    place = place.clamp_max(shares_nk.shape[1] - 1)  # NaN is found behind the end
    # nor may it fall below 0 by rounding, where a first share that is empty would be found
    return place, (at_n1 - (ends - shares_nk).gather(1, place)).clamp_min(0)


def truncate(logprobs_nV: Tensor, top_p: float, top_k: int) -> Tensor:
    """Log-probs with the tokens outside of top-k and of the nucleus at minus infinity. (n, V)."""
    if top_k > 0 and top_k < logprobs_nV.shape[1]:
        smallest = logprobs_nV.topk(top_k, dim=-1).values[:, -1:]
        logprobs_nV = logprobs_nV.masked_fill(logprobs_nV < smallest, float("-inf"))
    if top_p < 1:
        ordered, order = logprobs_nV.softmax(dim=-1).sort(dim=-1, descending=True)
        outside = ordered.cumsum(dim=-1) - ordered >= top_p  # the token that crosses top_p stays
        outside = torch.zeros_like(outside).scatter(1, order, outside)
        logprobs_nV = logprobs_nV.masked_fill(outside, float("-inf"))
    return logprobs_nV
