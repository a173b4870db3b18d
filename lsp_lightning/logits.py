"""From tokens to log-probs, as each architecture does it: hidden states, head, soft-capping."""

from typing import Any

import torch
from torch import Tensor

from lsp_lightning.errors import ConfigError
from lsp_lightning.functional.logprobs import token_logprobs
from lsp_lightning.inference import inference_state
from lsp_lightning.types import TrainBatch


def hidden_states(model: Any, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    """Final hidden states (B, S, H) of rows padded on the right, under plain causal attention."""
    out = model.base_model(input_ids=input_ids, position_ids=position_ids, use_cache=False)
    hidden: Tensor = out.last_hidden_state
    return hidden


def head_logits(model: Any, hidden: Tensor) -> Tensor:
    """Logits as the architecture makes them from hidden states (m, H) -> (m, V)."""
    head = model.get_output_embeddings()
    logits: Tensor = head(hidden.to(head.weight.dtype))
    config = model.config.get_text_config()
    scale = (getattr(config, "logit_scale", None) or 1.0) / getattr(config, "logits_scaling", 1.0)
    if scale != 1:  # each operation holds another copy of the logits
        logits = logits * scale
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def completion_logprobs(
    model: Any, batch: TrainBatch, logits_at_once: int
) -> tuple[Tensor, Tensor]:
    """Log-probs of the completions' tokens, differentiable; entropies, detached. (C, T) fp32 each.

    Args:
        model: a causal LM.
        batch: some completions of a round.
        logits_at_once: see :func:`lsp_lightning.functional.logprobs.token_logprobs`.
    """
    if int(batch.segments.max()) > 1:
        raise ValueError("rows with several completions need a segmented attention mask")
    hidden = hidden_states(model, batch.input_ids, batch.position_ids).flatten(0, 1)
    places = batch.mask.nonzero(as_tuple=True)
    logprobs, entropies = token_logprobs(
        hidden[batch.sources[places]],
        lambda h: head_logits(model, h),
        batch.targets[places],
        batch.temperature[places[0]],
        logits_at_once,
    )
    empty = torch.zeros(batch.mask.shape, dtype=torch.float32, device=hidden.device)
    return empty.index_put(places, logprobs.float()), empty.index_put(places, entropies.float())


def check_head(model: Any) -> None:
    """Whether logits made from hidden states are the model's own, while it is trained too.

    Raises:
        ConfigError: this architecture makes its logits in a way that is not known here.
    """
    ids = torch.arange(4, device=next(model.parameters()).device).unsqueeze(0)
    with inference_state(model, ids.device.type):
        own = model(input_ids=ids).logits[0].float()
        ours = head_logits(model, hidden_states(model, ids, ids)[0]).float()
        model.train()
        trained = head_logits(model, hidden_states(model, ids, ids)[0]).float()
        model.eval()
    if not all(torch.allclose(own, found, atol=1e-2, rtol=1e-2) for found in (ours, trained)):
        raise ConfigError(
            "model.base",
            f"{type(model).__name__} makes its logits in a way that is not supported",
            "choose another architecture",
        )
