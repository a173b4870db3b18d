"""How a Hugging Face model is given attention over a tree of tokens.

The model's modules run unchanged over one row that holds every token once; only its attention is
replaced. Hugging Face models look up their attention function by name, so this module registers
one. It calls the function that the model used before, on batches gathered from the tree: soft-caps,
sinks and grouped queries stay as each architecture has them.
"""

import sys
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

#: An attention function of transformers: layer, query, key, value, and a mask added to the scores.
Inner = Callable[..., tuple[Tensor, Tensor | None]]


class Attention(Protocol):
    """The attention of one forward pass, in place of the model's causal attention over rows."""

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inner: Inner,
        **settings: Any,
    ) -> Tensor:
        """The output of attention, (B, S, heads, dim).

        Args:
            module: the attention layer.
            query: (B, heads, S, dim).
            key: (B, key heads, S, dim).
            value: as ``key``.
            inner: the model's attention function; causal without a mask.
            settings: what the layer passes to its attention: scaling, sliding_window ...
        """


def backbone(model: Any) -> Any:
    """The part of a causal LM below its head."""
    below = model.base_model
    # the model itself if its class names an attribute that it does not have (Llama 4)
    return model.model if below is model and hasattr(model, "model") else below


def tree_hidden_states(
    model: Any, input_ids: Tensor, position_ids: Tensor, attention: Attention
) -> Tensor:
    """Final hidden states (B, S, H) of a causal LM that computes with ``attention``."""
    out = backbone(model)(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=_ready_mask(input_ids),
        use_cache=False,
        tree=attention,
    )
    hidden: Tensor = out.last_hidden_state
    return hidden


def tree_logits(
    model: Any, input_ids: Tensor, position_ids: Tensor, attention: Attention, indices: Tensor
) -> Tensor:
    """Logits (B, p, V) of a causal LM that computes with ``attention``, at p of S indices."""
    logits: Tensor = model(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=_ready_mask(input_ids),
        use_cache=False,
        logits_to_keep=indices,
        tree=attention,
    ).logits
    return logits


def _ready_mask(input_ids: Tensor) -> Tensor:
    """A mask with four dimensions, so that the model makes none; tree attention ignores it."""
    return torch.zeros(1, 1, 1, 1, device=input_ids.device)


def register(inner: str) -> str:
    """Register an attention that computes over a tree if it is passed one. -> its name.

    Without a tree it does what ``inner`` does.

    Args:
        inner: "sdpa" or "eager".
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        tree: Attention | None = None,
        **settings: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if inner == "eager":
            plain = sys.modules[type(module).__module__].eager_attention_forward
        else:
            plain = ALL_ATTENTION_FUNCTIONS[inner]
        if tree is not None:
            return tree.attend(module, query, key, value, _causal(plain, inner), **settings), None
        out: tuple[Tensor, Tensor | None] = plain(
            module, query, key, value, attention_mask, **settings
        )
        return out

    name = f"tree_{inner}"
    ALL_ATTENTION_FUNCTIONS.register(name, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS[inner])
    return name


def _causal(plain: Inner, inner: str) -> Inner:
    """An attention function that is causal without a mask; "sdpa" is already."""
    if inner != "eager":
        return plain

    def causal(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        **settings: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if mask is None:
            lowest = torch.finfo(query.dtype).min
            mask = torch.full((query.shape[2], key.shape[2]), lowest, device=query.device).triu(1)
        return plain(module, query, key, value, mask.to(query.dtype), **settings)

    return causal
