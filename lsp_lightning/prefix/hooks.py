"""Attention over a tree of tokens: a prompt is computed once for all that is said behind it.

The model's own modules run unchanged over one row that holds every token once; only what each token
attends to is ours. It goes in where Hugging Face models look up their attention by name, and calls
what was there before on rows cut out of the tree, so that soft-caps, sinks and grouped queries stay
each architecture's own. Which models can is found out by trying, see
:mod:`lsp_lightning.models.capabilities`.
"""

import sys
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

#: Names of attentions that can be given a tree begin like this, and end with what they call.
TREE = "tree_"
#: What they can call: attentions that take a mask of any form.
INNER = ("sdpa", "eager")
#: Kinds of layers, in a config's words, that see what a tree's pieces say.
LAYERS = {"full_attention", "sliding_attention"}

#: What a layer calls with itself, query, key, value and a mask that is added to the scores.
Inner = Callable[..., tuple[Tensor, Tensor | None]]


class Attention(Protocol):
    """What a pass attends to, in place of the model's causal rows."""

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inner: Inner,
        **settings: Any,
    ) -> Tensor:
        """Attention's output (B, S, heads, dim).

        Args:
            module: the attention layer.
            query: (B, heads, S, dim).
            key: (B, heads of keys, S, dim).
            value: as ``key``.
            inner: the attention that the layer would call, on a mask that is added.
            settings: what the layer tells its attention: scaling, sliding_window ...
        """


def tree_hidden_states(
    model: Any, input_ids: Tensor, position_ids: Tensor, attention: Attention
) -> Tensor:
    """Final hidden states (B, S, H) of a causal LM under an attention of ours."""
    out = model.base_model(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=_ready_mask(input_ids),
        use_cache=False,
        tree=attention,
    )
    hidden: Tensor = out.last_hidden_state
    return hidden


def tree_logits(
    model: Any, input_ids: Tensor, position_ids: Tensor, attention: Attention, places: Tensor
) -> Tensor:
    """Logits (B, p, V) of a causal LM under an attention of ours, at some of its S places, (p,)."""
    logits: Tensor = model(
        input_ids=input_ids,
        position_ids=position_ids,
        attention_mask=_ready_mask(input_ids),
        use_cache=False,
        logits_to_keep=places,
        tree=attention,
    ).logits
    return logits


def _ready_mask(input_ids: Tensor) -> Tensor:
    """A mask of four dimensions is taken for a finished one: none is made. Ours looks at none."""
    return torch.zeros(1, 1, 1, 1, device=input_ids.device)


def takes_trees(model: Any) -> bool:
    """Whether a causal LM was found to take an attention of ours where it is given one."""
    return str(model.config.get_text_config()._attn_implementation).startswith(TREE)


def register(inner: str) -> str:
    """Make an attention known to Hugging Face models that can be given one of ours. -> its name.

    Without one of ours it does what ``inner`` does.

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
            return tree.attend(module, query, key, value, _masked(plain, inner), **settings), None
        out: tuple[Tensor, Tensor | None] = plain(
            module, query, key, value, attention_mask, **settings
        )
        return out

    name = TREE + inner
    ALL_ATTENTION_FUNCTIONS.register(name, attention)
    ALL_MASK_ATTENTION_FUNCTIONS.register(name, ALL_MASK_ATTENTION_FUNCTIONS[inner])
    return name


def _masked(plain: Inner, inner: str) -> Inner:
    """An attention that is causal where it gets no mask."""
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
