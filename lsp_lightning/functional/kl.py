"""Four forms of the KL penalty that keeps the policy close to its reference.

They differ in the gradient that they give on-policy. ``d = log pi - log pi_ref`` is the log-ratio
of a sampled completion, the sum (not the mean) over its tokens. ``n`` completions of one role,
``T`` tokens.

=================  =========================================  ===============================
form               term                                       expected gradient at ratio 1
=================  =========================================  ===============================
``k1_in_reward``   d, centred, subtracted from the advantage  grad KL(pi || ref)
``k2_loss``        d^2 / 2 of the sequence                    grad KL(pi || ref)
``k3_loss``        exp(-d) - 1 + d                            grad KL(ref || pi); heavy tails
``k1_loss``        d, as printed in eqs. 4 and 5              zero: no effect
=================  =========================================  ===============================

Each of these gradients is exact, for any n. The reward's is not: its baseline contains the sample
itself, so it is ``(n - 1) / n`` of the true one (:mod:`lsp_lightning.functional.advantages`), with
n = G for the Solver and n = N for the Challenger. Together they are::

    (n - 1) / n * [ grad E[reward] - beta * n / (n - 1) * grad KL ]

so against the reward beta acts as ``beta * n / (n - 1)``: twice beta for n = 2, 8/7 for n = 8.

Sources: arXiv 2506.09477 (why the printed form has no effect), arXiv 2512.21852.
"""

from typing import Literal

import torch
from torch import Tensor

KLForm = Literal["k1_in_reward", "k2_loss", "k3_loss", "k1_loss"]


def sequence_log_ratio(logprobs_nT: Tensor, ref_logprobs_nT: Tensor, mask_nT: Tensor) -> Tensor:
    """``log pi(y) - log pi_ref(y)`` of each completion, summed over its tokens. (n, T) -> (n,).

    Raises:
        ValueError: the shapes differ.
    """
    if not logprobs_nT.shape == ref_logprobs_nT.shape == mask_nT.shape:
        raise ValueError(
            "logprobs, ref_logprobs and mask must have the same shape (n, T), got "
            f"{tuple(logprobs_nT.shape)}, {tuple(ref_logprobs_nT.shape)}, {tuple(mask_nT.shape)}"
        )
    return _log_ratio(logprobs_nT, ref_logprobs_nT, mask_nT).sum(dim=1)


def k1_in_reward(log_ratio_n: Tensor) -> Tensor:
    """The penalty to subtract from each advantage, times beta; detached. (n,) -> (n,).

    Each value minus the mean of the *others* (leave-one-out). This lowers the variance and does not
    change the expected gradient, grad KL(pi || pi_ref). A single value stays as it is. Call it once
    per role: centring both roles together would bias the Challenger.

    Raises:
        ValueError: ``log_ratio_n`` is not a vector.
    """
    if log_ratio_n.dim() != 1:
        raise ValueError(f"log_ratio_n must have shape (n,), got {tuple(log_ratio_n.shape)}")
    d_n = log_ratio_n.detach()
    n = d_n.numel()
    if n < 2:
        return d_n
    return (d_n - d_n.mean()) * (n / (n - 1))


def k1_loss(logprobs_nT: Tensor, ref_logprobs_nT: Tensor, mask_nT: Tensor) -> Tensor:
    """The term as printed (eqs. 4, 5). Its expected gradient is zero: noise only. -> (n,)."""
    return sequence_log_ratio(logprobs_nT, ref_logprobs_nT, mask_nT)


def k2_loss(logprobs_nT: Tensor, ref_logprobs_nT: Tensor, mask_nT: Tensor) -> Tensor:
    """Half the squared log-ratio of the sequence: grad KL(pi || pi_ref) on-policy. -> (n,)."""
    return 0.5 * sequence_log_ratio(logprobs_nT, ref_logprobs_nT, mask_nT).square()


def k3_loss(
    logprobs_nT: Tensor, ref_logprobs_nT: Tensor, mask_nT: Tensor, per_token: bool = True
) -> Tensor:
    """``exp(-d) - 1 + d``, per token (as in GRPO, arXiv 2402.03300) or of the sequence. -> (n,).

    For the sequence, the gradient is that of KL(pi_ref || pi), the other direction. Per token, it
    is that of KL(pi_ref || pi) for the next token, over prefixes that the policy sampled. Either
    has heavy tails: ``exp(-d)`` explodes on tokens that are likely under the reference only.

    Trainers that multiply this term by the ratio ``pi / stopgrad(pi)``, as TRL does by default
    (``use_bias_correction_kl``), have another gradient: that of KL(pi || pi_ref) for the next
    token.
    """
    d = (
        _log_ratio(logprobs_nT, ref_logprobs_nT, mask_nT)
        if per_token
        else sequence_log_ratio(logprobs_nT, ref_logprobs_nT, mask_nT).unsqueeze(1)
    )
    return (torch.exp(-d) - 1 + d).sum(dim=1)


#: The forms that are terms of the loss. ``k1_in_reward`` changes the advantage instead.
LOSS_FORMS = {"k1_loss": k1_loss, "k2_loss": k2_loss, "k3_loss": k3_loss}


def _log_ratio(logprobs_nT: Tensor, ref_logprobs_nT: Tensor, mask_nT: Tensor) -> Tensor:
    # where, not a product: padding may hold inf or nan, and 0 * inf is nan
    return torch.where(mask_nT.bool(), logprobs_nT - ref_logprobs_nT, 0.0)
