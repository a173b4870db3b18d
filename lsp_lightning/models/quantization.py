"""Base models in 4 bits (QLoRA, arXiv 2305.14314): NF4 with double quantization, by bitsandbytes.

All linear layers except the head are quantized; norms, embeddings and head stay in the compute
type. On a CPU bitsandbytes 0.50 has two silent bugs: :func:`guard` works around one,
:func:`check_sizes` refuses models with the other.
"""

import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lsp_lightning.errors import ConfigError

Quantization = Literal["nf4"]

#: How many weights share a scale.
BLOCK = 64

# on some CPUs importing bitsandbytes warns of a missing kernel, which guard() switches off anyway
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in str(record.msg)
)


def settings(skeleton: nn.Module, compute_type: torch.dtype) -> Any:
    """The quantization config for transformers.

    It names the head, because transformers finds a head only if it has no bias.
    """
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        llm_int8_skip_modules=heads(skeleton),  # its name is older than 4 bits
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_type,
    )


def heads(skeleton: nn.Module) -> list[str]:
    """Names of the modules that are not quantized: the head, and others outside of the base."""
    base = getattr(skeleton, "base_model", skeleton)
    output = getattr(skeleton, "get_output_embeddings", lambda: None)()
    names = [name for name, module in skeleton.named_modules() if module is output]
    if base is not skeleton:
        names += [name for name, child in skeleton.named_children() if child is not base]
    return sorted(set(names))


def check_sizes(skeleton: nn.Module, key: str) -> None:
    """Raise ConfigError unless every layer of a model can be quantized on a CPU.

    If the inputs of a layer are not a multiple of 64, the CPU kernels of bitsandbytes give wrong
    weights without an error (relative error .25 instead of .09). GPUs do not have this bug.

    Args:
        skeleton: the model, on the meta device.
        key: the config key of the model.
    """
    kept = set(heads(skeleton))
    for name, layer in skeleton.named_modules():
        inputs = _inputs(layer)
        if inputs % BLOCK and not any(name == head or name.startswith(f"{head}.") for head in kept):
            raise ConfigError(
                key,
                f"layer {name} has {inputs} inputs, which is not a multiple of {BLOCK}: its 4-bit "
                "weights would be wrong on a CPU",
                "set model.quantization to null, or run on a GPU",
            )


def _inputs(layer: nn.Module) -> int:
    """Inputs of a layer that would be quantized; 0 for other layers."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(layer, Conv1D):  # GPT-2's linear layer, whose weight is (in, out)
        return int(layer.weight.shape[0])
    return layer.in_features if isinstance(layer, nn.Linear) else 0


def guard(model: nn.Module) -> nn.Module:
    """Switch off a kernel that makes gradients wrong on some CPUs. -> the model.

    With AVX512-BF16, the first pass without gradients repacks each weight for a kernel that has no
    backward pass. Later gradients are wrong without an error (cosine .2 to the true ones).
    """
    for layer in linear_layers(model):
        layer.support_avx512bf16_for_cpu = False
    return model


def linear_layers(model: nn.Module) -> list[Any]:
    """The quantized layers of a model."""
    from bitsandbytes.nn.modules import Linear4bit

    return [layer for layer in model.modules() if isinstance(layer, Linear4bit)]


def full_weight(layer: Any) -> Tensor:
    """The weight (out, in) that a linear layer computes with, dequantized if it is quantized."""
    weight = layer.weight
    if getattr(weight, "quant_state", None) is None:
        return weight.data  # type: ignore[no-any-return]
    from bitsandbytes.functional import dequantize_4bit

    full: Tensor = dequantize_4bit(weight.data, weight.quant_state)
    return full
