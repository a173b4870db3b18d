"""The loss of both roles (eqs. 4 and 5) on one micro-batch."""

import torch
from torch import Tensor

from lsp_lightning.functional.kl import LOSS_FORMS, KLForm


def row_weights(num_written: int, num_answers: int, alpha_ch: float) -> tuple[float, float]:
    """The weight of a Challenger row, ``alpha_ch / C``, and of a Solver row, ``1 / (N G)``.

    With these weights, the losses of all micro-batches add up to ``L_Sol + alpha_Ch L_Ch`` (step 5
    of Algorithm 1), each a mean over the completions of that role, for micro-batches of any size.

    Args:
        num_written: C, the number of queries that the Challenger wrote.
        num_answers: N G, the number of the Solver's answers. Where a gate leaves queries out it is
            the planned number: what is left out adds nothing, and the others weigh no more.
        alpha_ch: weight of the Challenger's loss.
    """
    return alpha_ch / max(num_written, 1), 1.0 / num_answers


def selfplay_loss(
    logprobs_BT: Tensor,
    ref_logprobs_BT: Tensor,
    mask_BT: Tensor,
    advantages_B: Tensor,
    weights_B: Tensor,
    beta: float,
    kl: KLForm = "k1_in_reward",
    importance_BT: Tensor | None = None,
) -> Tensor:
    """``sum_b w_b * -[sum_t c_bt ratio_bt A_b - beta * KL_b]`` with ``ratio = pi / stopgrad(pi)``.

    The data is on-policy: the ratio is 1 and only carries the gradient, so nothing is clipped. The
    tokens of a completion are summed, not averaged.

    ``c`` are importance weights for tokens that another program sampled. They multiply no KL term:
    ``k2_loss`` and ``k3_loss`` pull a log-ratio to 0 no matter who drew the completion, and the
    squared log-ratio of a sequence does not split into tokens. ``k1_in_reward`` is part of ``A``
    and does get the weights: its gradient is an expectation over the drawn tokens.

    Args:
        logprobs_BT: the policy's log-probs, differentiable; (B, T), one completion per row.
        ref_logprobs_BT: the reference's log-probs, detached. Not used with ``k1_in_reward``, which
            the advantages already contain (:func:`lsp_lightning.functional.kl.k1_in_reward`).
        mask_BT: true on the completion's tokens, its stop token included.
        advantages_B: (B,), detached.
        weights_B: (B,), see :func:`row_weights`.
        beta: weight of the KL term.
        kl: form of the KL term.
        importance_BT: importance weights, detached
            (:func:`lsp_lightning.functional.importance.truncated_importance_weights`); None is 1.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: shapes do not match.
    """
    if not logprobs_BT.shape == ref_logprobs_BT.shape == mask_BT.shape:
        raise ValueError("logprobs, ref_logprobs and mask must have the same shape (B, T)")
    if importance_BT is not None and importance_BT.shape != mask_BT.shape:
        raise ValueError("importance must have the shape (B, T) of logprobs")
    if not advantages_B.shape == weights_B.shape == logprobs_BT.shape[:1]:
        raise ValueError("advantages and weights must have shape (B,)")
    mask_BT = mask_BT.bool()
    # mask before and after: padding must reach neither the value nor the gradient
    logprobs_BT = torch.where(mask_BT, logprobs_BT, 0.0)
    ref_logprobs_BT = torch.where(mask_BT, ref_logprobs_BT, 0.0)
    ratio_BT = torch.exp(logprobs_BT - logprobs_BT.detach())
    if importance_BT is not None:
        ratio_BT = importance_BT * ratio_BT
    objective_B = torch.where(mask_BT, ratio_BT, 0.0).sum(dim=1) * advantages_B
    if kl != "k1_in_reward" and beta != 0:
        objective_B = objective_B - beta * LOSS_FORMS[kl](logprobs_BT, ref_logprobs_BT, mask_BT)
    return -(weights_B * objective_B).sum()
