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
    if sampling.temperature == 0:
        logprobs_nV = logits_nV.log_softmax(dim=-1)
        tokens = logprobs_nV.argmax(dim=-1)
        return tokens, _at(logprobs_nV, tokens)
    if sampling.temperature != 1:
        logits_nV = logits_nV / sampling.temperature
    logprobs_nV = logits_nV.log_softmax(dim=-1)
    shares_nV = truncate(logprobs_nV, sampling.top_p, sampling.top_k).exp().cumsum(dim=-1)
    total_n1 = shares_nV[:, -1:]
    tokens_n1 = torch.searchsorted(shares_nV, uniform_n.unsqueeze(1) * total_n1, right=True)
    # a product that was rounded up to the total: the last token that has a share
    last_n1 = torch.searchsorted(shares_nV, total_n1)
    tokens = torch.minimum(tokens_n1, last_n1).clamp_max(shares_nV.shape[1] - 1).squeeze(1)
    return tokens, _at(logprobs_nV, tokens)


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


def _at(x_nV: Tensor, tokens: Tensor) -> Tensor:
    return x_nV.gather(1, tokens.unsqueeze(1)).squeeze(1)
