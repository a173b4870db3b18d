"""The loss of both roles (eqs. 4 and 5), over one micro-batch."""

import torch
from torch import Tensor

from lsp_lightning.functional.kl import LOSS_FORMS, KLForm


def row_weights(num_written: int, num_answers: int, alpha_ch: float) -> tuple[float, float]:
    """Weight of one Challenger row and of one Solver row: ``alpha_ch / C`` and ``1 / (N G)``.

    Weighted by these, the sum over micro-batches of any size is ``L_Sol + alpha_Ch L_Ch`` (step 5
    of Algorithm 1), each a mean over its own completions.
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

    On-policy: the ratio is 1 and only carries the gradient, so nothing is clipped. A completion's
    tokens are summed, not averaged.

    ``c`` weighs tokens that another program sampled. It weighs no KL term: whoever drew a
    completion, ``k2_loss`` and ``k3_loss`` pull its log-ratio to 0, a place that weights do not
    move, and a sequence's squared log-ratio is no single token's. A penalty in the reward is part
    of ``A``, and weighed with it: its gradient is an expectation over what is drawn.

    Args:
        logprobs_BT: the policy's, differentiable; (B, T), one completion a row.
        ref_logprobs_BT: the reference's, detached; not read by ``k1_in_reward``, which has already
            been taken off the advantages (:func:`lsp_lightning.functional.kl.k1_in_reward`).
        mask_BT: True on the completion's tokens, its stop token included.
        advantages_B: (B,), detached.
        weights_B: (B,), see :func:`row_weights`.
        beta: weight of the KL term.
        kl: its form.
        importance_BT: importance weights, detached
            (:func:`lsp_lightning.functional.importance.truncated_importance_weights`); None is 1.
    """
    if not logprobs_BT.shape == ref_logprobs_BT.shape == mask_BT.shape:
        raise ValueError("logprobs, ref_logprobs and mask must share one (B, T) shape")
    if importance_BT is not None and importance_BT.shape != mask_BT.shape:
        raise ValueError("importance must have the (B, T) shape of logprobs")
    if not advantages_B.shape == weights_B.shape == logprobs_BT.shape[:1]:
        raise ValueError("advantages and weights must have shape (B,)")
    mask_BT = mask_BT.bool()
    # masked before and after: whatever padding holds, it reaches neither the value nor the gradient
    logprobs_BT = torch.where(mask_BT, logprobs_BT, 0.0)
    ref_logprobs_BT = torch.where(mask_BT, ref_logprobs_BT, 0.0)
    ratio_BT = torch.exp(logprobs_BT - logprobs_BT.detach())
    if importance_BT is not None:
        ratio_BT = importance_BT * ratio_BT
    objective_B = torch.where(mask_BT, ratio_BT, 0.0).sum(dim=1) * advantages_B
    if kl != "k1_in_reward" and beta != 0:
        objective_B = objective_B - beta * LOSS_FORMS[kl](logprobs_BT, ref_logprobs_BT, mask_BT)
    return -(weights_B * objective_B).sum()
