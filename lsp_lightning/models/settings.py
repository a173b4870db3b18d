"""The settings of a policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.models.quantization import Quantization

ReferenceChoice = Literal["start", "base"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (peft).

    Args:
        rank: inner dimension of each adapter.
        alpha: the adapter's output is scaled by alpha / rank.
        dropout: dropout on the adapter's input in training. With 0, training computes the same
            function that sampled.
        target_modules: names of the layers with an adapter; "all-linear" is every linear layer
            except the head.
    """

    rank: int = 16
    alpha: int = 32
    dropout: float = 0.0
    target_modules: str | list[str] = "all-linear"

    def __post_init__(self) -> None:
        require_at_least(self.rank, 1, "model.lora.rank", "an adapter needs a dimension")
        require_at_least(self.alpha, 1, "model.lora.alpha", "with 0 the adapter has no effect")
        if not 0 <= self.dropout < 1:
            raise ConfigError(
                "model.lora.dropout", f"is {self.dropout}", "set at least 0 and below 1"
            )


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
