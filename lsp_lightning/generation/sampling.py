"""Sample one token per row from its logits."""

import torch
from torch import Tensor

from lsp_lightning.types import Sampling


def sample(
    logits_nV: Tensor, sampling: Sampling, uniform_n: Tensor, never: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Sample one token per row, with its log-prob at the sampling temperature before truncation.

    Inverse transform sampling: the token at which the cumulative probability passes ``uniform_n``.
    So a row's token depends on its logits and its number only, not on the other rows of the batch.
    At temperature 0 it is the most likely token, with its log-prob at temperature 1.

    Args:
        logits_nV: logits of the next token.
        sampling: temperature, top-p and top-k.
        uniform_n: numbers in [0, 1).
        never: ids that must not be sampled, (k,) int64. As with top-p, log-probs include them.

    Returns:
        tokens (n,) int64 and log-probs (n,) fp32; NaN logits give some token and a NaN log-prob.
    """
    logits_nV = logits_nV.float()
    if sampling.temperature not in (0, 1):
        logits_nV = logits_nV / sampling.temperature
    logprobs_nV = logits_nV.log_softmax(dim=-1)
    if never is not None:
        logprobs_nV.index_fill_(1, never, float("-inf"))
    if sampling.temperature == 0:
        tokens = logprobs_nV.argmax(dim=-1)
    else:
        kept_nV = truncate(logprobs_nV, sampling.top_p, sampling.top_k)
        tokens = _inverse_cdf(kept_nV.exp(), uniform_n)
    return tokens, logprobs_nV.gather(1, tokens.unsqueeze(1)).squeeze(1)


def _inverse_cdf(weights_nV: Tensor, uniform_n: Tensor) -> Tensor:
    """The token of each row at which the cumulative weight passes its number. (n,).

    Weights need not sum to 1. Cumulative sums are slow, so the search is first over the sums of
    blocks and then inside one block.
    """
    n, size = weights_nV.shape
    width = int(size**0.5) + 1
    blocks = torch.nn.functional.pad(weights_nV, (0, -size % width)).view(n, -1, width)
    sums = blocks.sum(dim=2)
    block, rest = _search(sums, uniform_n.unsqueeze(1) * sums.sum(dim=1, keepdim=True))
    inside = blocks.gather(1, block.unsqueeze(2).expand(-1, 1, width)).squeeze(1)
    index, _ = _search(inside, rest)
    return (block * width + index).squeeze(1).clamp_max(size - 1)


def _search(weights_nk: Tensor, target_n1: Tensor) -> tuple[Tensor, Tensor]:
    """The interval of the cumulative weights that holds a target, and the offset in it. (n, 1)."""
    ends = weights_nk.cumsum(dim=1)
    index = torch.searchsorted(ends, target_n1, right=True)
    # rounding may lift a target to the total: then it is in the last interval that is not empty
    index = torch.minimum(index, torch.searchsorted(ends, ends[:, -1:].contiguous()))
    index = index.clamp_max(weights_nk.shape[1] - 1)  # NaN is found after the end
    # rounding may give an offset below 0, which would find an empty first interval
    return index, (target_n1 - (ends - weights_nk).gather(1, index)).clamp_min(0)


def truncate(logprobs_nV: Tensor, top_p: float, top_k: int) -> Tensor:
    """Set the log-probs of tokens outside of the top k or the nucleus to minus infinity. (n, V)."""
    if top_k > 0 and top_k < logprobs_nV.shape[1]:
        smallest = logprobs_nV.topk(top_k, dim=-1).values[:, -1:]
        logprobs_nV = logprobs_nV.masked_fill(logprobs_nV < smallest, float("-inf"))
    if top_p < 1:
        ordered, order = logprobs_nV.softmax(dim=-1).sort(dim=-1, descending=True)
        outside = ordered.cumsum(dim=-1) - ordered >= top_p  # the token that crosses top_p stays
        outside = torch.zeros_like(outside).scatter(1, order, outside)
        logprobs_nV = logprobs_nV.masked_fill(outside, float("-inf"))
    return logprobs_nV
