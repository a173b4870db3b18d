"""Whether a model can compute shared prefixes once, and if not, why."""

from dataclasses import dataclass
from typing import Any

from lsp_lightning.prefix.hooks import register

#: Attention functions that accept an arbitrary mask.
ATTENTIONS = ("sdpa", "eager")
#: Kinds of layers, as configs name them, whose attention can be computed over a tree.
LAYER_KINDS = ("full_attention", "sliding_attention")


@dataclass(frozen=True)
class PrefixSharing:
    """Whether a model computes the common start of several rows only once."""

    attention: str
    """The attention function that the model uses without sharing: "sdpa", "eager" ..."""
    unavailable: str | None = None
    """Why it computes every row separately; None if it shares prefixes."""

    @property
    def available(self) -> bool:
        """Whether the model shares prefixes."""
        return self.unavailable is None


def sharing_by_config(model: Any) -> PrefixSharing:
    """Whether a causal LM's class and config allow sharing. Reads no weights.

    Loading also tests it, see :mod:`lsp_lightning.models.capabilities`; plans rely on this alone.
    """
    config = model.config.get_text_config()
    attention = str(config._attn_implementation)
    other = sorted(set(getattr(config, "layer_types", None) or ()) - set(LAYER_KINDS))
    unavailable = None
    if model._is_stateful:
        unavailable = "this model keeps other states than keys and values"
    elif other:
        unavailable = f"this model has layers of an unsupported kind ({', '.join(other)})"
    elif not model._supports_attention_backend:
        unavailable = "the attention of this model cannot be replaced"
    elif attention not in ATTENTIONS:
        unavailable = f"{attention} attention does not accept an arbitrary mask"
    return PrefixSharing(attention, unavailable)


def set_sharing(model: Any, sharing: PrefixSharing) -> None:
    """Let a causal LM share prefixes, or compute every row separately."""
    config, name = model.config.get_text_config(), sharing.attention
    config._attn_implementation = register(name) if sharing.available else name
    model.prefix_sharing = sharing


def shares_prefixes(model: Any) -> bool:
    """Whether a causal LM was set to share prefixes, see :func:`set_sharing`."""
    sharing: PrefixSharing | None = getattr(model, "prefix_sharing", None)
    return sharing is not None and sharing.available
