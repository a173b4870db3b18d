"""Whether transformers reads all that a GGUF file holds: what it does not know, it leaves out."""

from typing import Any

import torch

from lsp_lightning.errors import ConfigError

#: By what llama.cpp divides the frequencies of Llama 3's rotary embedding.
_ROPE = "rope_freqs.weight"
#: The settings that all models of Llama 3.1 to 3.3 share; their factors differ.
_LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def complete_config(reader: Any, config: Any, base: str, key: str) -> None:
    """Set in a config what transformers does not read from a GGUF file.

    Args:
        reader: the file's ``gguf.GGUFReader``.
        config: the config that transformers made of it; changed in place.
        base: the file, as in the config.
        key: its config key.

    Raises:
        ConfigError: the file has tensors that would be left out.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    unread = _unread(reader, config, model)
    if _ROPE in unread:
        factors = next(tensor.data for tensor in reader.tensors if tensor.name == _ROPE)
        if _set_llama3_rope(config, torch.tensor(factors).float()):
            unread.remove(_ROPE)
    if unread:
        raise ConfigError(
            key,
            f"{base!r} has {len(unread)} tensors that transformers does not read ({unread[0]})",
            "give the model as a Hugging Face folder with safetensors weights",
        )


def _unread(reader: Any, config: Any, model: Any) -> list[str]:
    """Names of the tensors that transformers has no place for."""
    from transformers.integrations.gguf import is_gguf_arch_supported
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    arch = reader.get_field("general.architecture").contents()
    if is_gguf_arch_supported(arch):  # its newer reader knows every tensor of an architecture
        return []
    processor = TENSOR_PROCESSORS.get(arch, TensorProcessor)(config=config.to_dict())
    places = get_gguf_hf_weights_map(model, processor)
    names = [tensor.name for tensor in reader.tensors]
    # the weights of a mixture's experts have names without an ending
    return [n for n in names if n not in places and n.removesuffix(".weight") not in places]


def _set_llama3_rope(config: Any, factors: torch.Tensor) -> bool:
    """Give a config the rotary embedding of Llama 3 if it has these factors. -> whether it has."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    before = config.rope_parameters
    config.rope_parameters = {**before, **_LLAMA3, "factor": float(factors.max())}
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    width = 2 * len(scaled)
    plain = before["rope_theta"] ** -(torch.arange(0, width, 2) / width)
    if factors.shape == plain.shape and torch.allclose(plain / scaled, factors, rtol=1e-4):
        return True
    config.rope_parameters = before
    return False
