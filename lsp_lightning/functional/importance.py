"""Weights for tokens that another program sampled than the one that trains on them."""

import math

import torch
from torch import Tensor


def truncated_importance_weights(
    logprobs_CT: Tensor, sampled_CT: Tensor, mask_CT: Tensor, cap: float
) -> Tensor:
    """``min(pi(token) / mu(token), cap)`` of each token; 0 on padding. -> (K, T) fp32, detached.

    ``pi`` is the policy as the trainer computes it, ``mu`` as the sampler did: the same weights,
    other kernels and number formats (truncated importance sampling: Yao et al. 2025, "On the
    Rollout-Training Mismatch in Modern RL Systems"). A token's term of the gradient is multiplied
    by its weight.

    What it corrects is the draw of each token given those before it. For completions of one token
    and ``cap`` infinite the gradient's expectation is exact; for longer ones the product over the
    whole completion would be, whose variance grows with its length. A finite cap bounds the
    variance and leaves a bias where ``pi / mu`` is above it.

    Args:
        logprobs_CT: the trainer's.
        sampled_CT: the sampler's, at the same temperature; NaN where it gave none: such a token is
            taken for the trainer's own, weight 1.
        mask_CT: true on the completions' tokens.
        cap: the largest weight, 1 or more; infinity truncates nothing.

    Raises:
        ValueError: shapes differ, or a cap below 1, which would touch tokens that agree.
    """
    if not logprobs_CT.shape == sampled_CT.shape == mask_CT.shape:
        raise ValueError("logprobs, sampled and mask must share one (K, T) shape")
    if not cap >= 1:
        raise ValueError(f"cap is {cap}, but weights of tokens that agree are 1")
    log_ratio_CT = logprobs_CT.detach().float() - sampled_CT.detach().float()
    log_ratio_CT = torch.where(sampled_CT.isnan(), 0.0, log_ratio_CT)
    # the logarithm is cut: exp of a large one would be infinite
    weights_CT = log_ratio_CT.clamp(max=math.log(cap)).exp()
    return torch.where(mask_CT.bool(), weights_CT, 0.0)
