"""The type that the policy computes in."""

from typing import Any

import torch

from lsp_lightning.errors import ConfigError
from lsp_lightning.models.loading import skeleton
from lsp_lightning.models.settings import Dtype

#: Fewest parameters with which auto is bfloat16 on a CPU that has units for it. The smallest model
#: measured, with 135M, is twice as fast. Nothing between it and the tiny world's 0.8M was measured,
#: and neither were 4-bit bases.
BFLOAT16_PARAMETERS = 100_000_000
#: What torch calls the units. ARM has a flag too, but nothing was measured there, and not every
#: build of torch uses them.
_UNITS = ("avx512_bf16", "amx_bf16")


def compute_type(dtype: Dtype, device: torch.device, with_lora: bool, config: Any) -> torch.dtype:
    """The compute type of the model.

    "auto" is bfloat16 on GPUs that support it, and float16 with a scaled loss on older ones (T4,
    20xx). On CPUs it is bfloat16 for models of :data:`BFLOAT16_PARAMETERS` or more if the processor
    has units for it, otherwise float32. It is also float32 without LoRA (16 bits lose small
    updates), and for models whose activations overflow float16 on a GPU without bfloat16.

    Args:
        dtype: the setting.
        device: where the model computes.
        with_lora: whether adapters are trained instead of all weights.
        config: the model's config.

    Raises:
        ConfigError: the model cannot be trained in this type.
    """
    check_dtype(dtype, with_lora, config.model_type)
    if dtype != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
        }[dtype]
    if not with_lora:
        return torch.float32
    if device.type == "cpu" and cpu_has_bfloat16():
        large = _parameters(config) >= BFLOAT16_PARAMETERS
        return torch.bfloat16 if large else torch.float32
    if device.type != "cuda":
        return torch.float32
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float32 if _overflows(config.model_type) else torch.float16


def check_dtype(dtype: Dtype, with_lora: bool, family: str) -> None:
    """Raise ConfigError if a model cannot be trained in a type.

    Args:
        dtype: the setting.
        with_lora: whether adapters are trained instead of all weights.
        family: ``model_type`` in the model's config.
    """
    if not with_lora and dtype not in ("auto", "float32"):
        raise ConfigError(
            "model.dtype",
            f"is {dtype}, but without LoRA small updates are lost in 16 bits",
            "set it to auto, or set model.lora",
        )
    if _overflows(family) and dtype == "float16":
        raise ConfigError(
            "model.dtype", f"is float16, in which {family} overflows", "set bfloat16 or float32"
        )


def cpu_has_bfloat16() -> bool:
    """Whether this processor has units for bfloat16, by its flags; without them it is slow."""
    flags: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    older = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # torch 2.9 has only this
    return any(flags.get(name, False) for name in _UNITS) or bool(older())


def _overflows(family: str) -> bool:
    """Whether activations of a family overflow float16."""
    return "gemma" in family


def _parameters(config: Any) -> int:
    """Number of weights of a model; 0 if it cannot be built, which loading it reports."""
    try:
        return sum(p.numel() for p in skeleton(config, torch.float32).parameters())
    except Exception:
        return 0
