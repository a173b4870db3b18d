"""One tiny update when a policy is loaded: what would fail in the first round fails here."""

from typing import Any

import torch

from lsp_lightning.models.loading import rows_of
from lsp_lightning.models.logits import head_logits, hidden_states
from lsp_lightning.models.lora_speed import fused_lora
from lsp_lightning.models.support import supported

_TOKENS = 8


def check_update(model: Any, device: torch.device) -> None:
    """Compute the gradient of a few tokens and drop it.

    Args:
        model: a causal LM with adapters, in train mode.
        device: where it computes.

    Raises:
        ConfigError: the model fails in the pass; out-of-memory errors are raised unchanged.
    """
    ids = torch.arange(_TOKENS, device=device)[None] % rows_of(model)
    devices = [device] if device.type == "cuda" else []
    with supported(model), torch.random.fork_rng(devices), torch.enable_grad(), fused_lora(model):
        logits = head_logits(model, hidden_states(model, ids)[0])
        logits.float().logsumexp(dim=-1).sum().backward()  # type: ignore[no-untyped-call]
    model.zero_grad(set_to_none=True)
