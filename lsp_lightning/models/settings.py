"""The settings of a policy: what is loaded, and how it is trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.models.quantization import Quantization

ReferenceChoice = Literal["start", "base"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters over every linear layer (peft).

    Args:
        rank: inner dimension of each adapter.
        alpha: the adapter's output is scaled by alpha / rank.
        dropout: on the adapter's input while training; 0 keeps policy and rollouts the same
            function.
        target_modules: names of the layers that get one; "all-linear" is every one but the head.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"

    def __post_init__(self) -> None:
        require_at_least(self.rank, 1, "model.lora.rank", "an adapter has a dimension")
        require_at_least(self.alpha, 1, "model.lora.alpha", "the adapter would be scaled away")
        if not 0 <= self.dropout < 1:
            raise ConfigError("model.lora.dropout", f"is {self.dropout}", "set 0 to below 1")


@dataclass(frozen=True)
class PolicySettings:
    """What a policy is loaded from; the fields are the arguments of ``Policy``."""

    base: str
    """Folder or hub id of the base model."""
    lora: Lora | None = Lora()
    """The adapter, or None to fine-tune all weights."""
    init_adapter: str | None = None
    """Folder of the adapter to start from, or None."""
    reference: ReferenceChoice = "start"
    """Which model is the frozen reference."""
    dtype: Dtype = "auto"
    """The compute type."""
    quantization: Quantization | None = None
    """How the base is quantized, or None."""
    chat_template_kwargs: Mapping[str, Any] | None = None
    """Fixed arguments of the chat template."""
    activation_checkpointing: bool = False
    """Whether the backward pass recomputes activations."""
