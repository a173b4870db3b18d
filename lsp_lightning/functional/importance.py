"""Importance weights for tokens that another program than the trainer sampled."""

import math

import torch
from torch import Tensor


def truncated_importance_weights(
    logprobs_KT: Tensor, sampled_KT: Tensor, mask_KT: Tensor, cap: float
) -> Tensor:
    """``min(pi(token) / mu(token), cap)`` for each token; 0 on padding. -> (K, T) fp32, detached.

    ``pi`` is the policy as the trainer computes it, ``mu`` as the sampler computed it: the same
    weights, but other kernels and number formats. Each token's term of the gradient is multiplied
    by its weight (truncated importance sampling: Yao et al. 2025, "On the Rollout-Training Mismatch
    in Modern RL Systems"). ``K`` completions of at most ``T`` tokens.

    The weights correct the draw of each token given the tokens before it. For completions of one
    token and an infinite cap the expected gradient is exact. Longer completions would need the
    product of the weights over the completion, whose variance grows with the length. A finite cap
    bounds the variance and leaves a bias where ``pi / mu`` exceeds the cap.

    Args:
        logprobs_KT: the trainer's log-probs.
        sampled_KT: the sampler's log-probs at the same temperature. NaN if it returned none: the
            token then has weight 1.
        mask_KT: true on the completions' tokens.
        cap: the largest weight, 1 or more; infinity truncates nothing.

    Raises:
        ValueError: shapes differ, or the cap is below 1.
    """
    if not logprobs_KT.shape == sampled_KT.shape == mask_KT.shape:
        raise ValueError("logprobs, sampled and mask must have the same shape (K, T)")
    if not cap >= 1:
        raise ValueError(
            f"cap is {cap}; set 1 or more, because tokens on which trainer and sampler agree have "
            "weight 1"
        )
    log_ratio_KT = logprobs_KT.detach().float() - sampled_KT.detach().float()
    log_ratio_KT = torch.where(sampled_KT.isnan(), 0.0, log_ratio_KT)
    # clamp the logarithm: exp of a large one would be infinite
    weights_KT = log_ratio_KT.clamp(max=math.log(cap)).exp()
    return torch.where(mask_KT.bool(), weights_KT, 0.0)
