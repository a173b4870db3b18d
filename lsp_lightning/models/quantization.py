"""Bases in 4 bits (QLoRA, arXiv 2305.14314): NF4 with double quantisation, by bitsandbytes.

Linear layers but the head are quantised; norms, embeddings and head stay in the compute type. On a
CPU bitsandbytes 0.50 has two silent faults, and :func:`guard` and :func:`check_sizes` are there for
them.
"""

import logging
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lsp_lightning.errors import ConfigError

Quantization = Literal["nf4"]

#: Weights that share a scale.
BLOCK = 64

# importing bitsandbytes warns on some CPUs that a kernel is missing: the one that guard() switches
# off because it has no backward pass
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in str(record.msg)
)


def settings(skeleton: nn.Module, compute_type: torch.dtype) -> Any:
    """How transformers is told to quantise a model.

    The head is named, because transformers would find one without a bias only.
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
    """Names of what is not quantised: what stands outside of the base model, such as the head."""
    base = getattr(skeleton, "base_model", skeleton)
    output = getattr(skeleton, "get_output_embeddings", lambda: None)()
    names = [name for name, module in skeleton.named_modules() if module is output]
    if base is not skeleton:
        names += [name for name, child in skeleton.named_children() if child is not base]
    return sorted(set(names))


def check_sizes(skeleton: nn.Module, key: str) -> None:
    """Whether every layer of a model can be quantised on a CPU.

    Where a row is no whole number of blocks, bitsandbytes' CPU kernels give wrong weights (a
    relative error of .25 in place of .09) without a word. GPUs have no such fault.

    Args:
        skeleton: the model, on the meta device.
        key: the config key that names it.

    Raises:
        ConfigError: a layer's inputs are no multiple of 64.
    """
    kept = set(heads(skeleton))
    for name, layer in skeleton.named_modules():
        inputs = _inputs(layer)
        if inputs % BLOCK and not any(name == head or name.startswith(f"{head}.") for head in kept):
            raise ConfigError(
                key,
                f"layer {name} has {inputs} inputs, no multiple of {BLOCK}: 4-bit "
                "weights would be wrong on a CPU",
                "set model.quantization to null, or run on a GPU",
            )


def _inputs(layer: nn.Module) -> int:
    """Inputs of a layer that would be quantised; 0 for others."""
    from transformers.pytorch_utils import Conv1D

    if isinstance(layer, Conv1D):  # GPT-2's linear layer, whose weight is (in, out)
        return int(layer.weight.shape[0])
    return layer.in_features if isinstance(layer, nn.Linear) else 0


def guard(model: nn.Module) -> nn.Module:
    """The model, with the kernel switched off that would spoil its gradients on some CPUs.

    With AVX512-BF16 the first pass without gradients repacks each weight for a kernel that has no
    backward pass, and later gradients are wrong (cosine .2 to the true ones) without a word.
    """
    for layer in linear_layers(model):
        layer.support_avx512bf16_for_cpu = False
    return model


def linear_layers(model: nn.Module) -> list[Any]:
    """The quantised layers."""
    from bitsandbytes.nn.modules import Linear4bit

    return [layer for layer in model.modules() if isinstance(layer, Linear4bit)]


def full_weight(layer: Any) -> Tensor:
    """A linear layer's weight (out, in) as its forward pass uses it, dequantised if need be."""
    weight = layer.weight
    if getattr(weight, "quant_state", None) is None:
        return weight.data  # type: ignore[no-any-return]
    from bitsandbytes.functional import dequantize_4bit

    full: Tensor = dequantize_4bit(weight.data, weight.quant_state)
    return full


def size(parameter: Tensor) -> int:
    """Weights that a parameter holds: two in each byte of a quantised one."""
    state = getattr(parameter, "quant_state", None)
    return parameter.numel() if state is None else int(torch.Size(state.shape).numel())
