"""Tiny random models as GGUF files, as llama.cpp's converter writes them."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
import transformers
from tiny_models import qwen_tokenizer, save_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
#: What GGUF calls a family, and settings without which a small model would not be one of it.
FAMILIES = {
    "llama": (gguf.MODEL_ARCH.LLAMA, {}),
    "mistral": (gguf.MODEL_ARCH.LLAMA, {}),
    "qwen2": (gguf.MODEL_ARCH.QWEN2, {}),
    "qwen3": (gguf.MODEL_ARCH.QWEN3, {"head_dim": 128}),  # its width is not in the file
    "gemma2": (gguf.MODEL_ARCH.GEMMA2, {"head_dim": 32, "sliding_window": 8}),
    "gemma3_text": (gguf.MODEL_ARCH.GEMMA3, {"head_dim": 32, "sliding_window": 8}),
    "phi3": (gguf.MODEL_ARCH.PHI3, {}),
    "stablelm": (gguf.MODEL_ARCH.STABLELM, {}),
}


def build_byte_model(folder: Path, family: str = "llama", **config) -> Path:
    """A random model with a byte-level tokenizer in ``folder``: one that GGUF can hold."""
    tokenizer = qwen_tokenizer(unk_token="<|endoftext|>")
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.15,
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    if family == "llama":  # not the defaults
        settings |= {"rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0}}
        settings |= {"rms_norm_eps": 2.0**-17}
    made = AutoConfig.for_model(family, **{**settings, **FAMILIES[family][1], **config})
    return save_model(_with_norms, made, tokenizer, folder, seed=0)


def _with_norms(config):
    """A random model whose norms and biases are random too."""
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.1 * torch.randn_like(weight))
    return model


def write_gguf(folder: Path, file: Path, kind: str = "F32", change=None, tensors=None) -> Path:
    """The model of a folder as a GGUF file.

    Args:
        folder: made by :func:`build_byte_model`.
        file: the file to write.
        kind: F32, F16, BF16 or Q8_0: the type of the matrices.
        change: called with the writer before it writes, to add keys.
        tensors: called with the tensors by GGUF name, to change them; all are written as F32 or
            ``kind``.
    """
    # by its class: tests forbid the auto classes to load
    kind_of_model = AutoConfig.from_pretrained(folder).architectures[0]
    model = getattr(transformers, kind_of_model).from_pretrained(folder)
    arch = FAMILIES[model.config.model_type][0]
    writer = gguf.GGUFWriter(file, gguf.MODEL_ARCH_NAMES[arch])
    _write_config(writer, model.config)
    _write_tokenizer(writer, AutoTokenizer.from_pretrained(folder))
    if change is not None:
        change(writer)
    found = gguf_tensors(model, arch)
    if tensors is not None:
        tensors(found)
    quantized = gguf.GGMLQuantizationType[kind]
    for name, tensor in found.items():
        if tensor.ndim == 1 or kind == "F32":
            writer.add_tensor(name, tensor)
        else:
            writer.add_tensor(name, gguf.quantize(tensor, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def gguf_tensors(model, arch) -> dict[str, np.ndarray]:
    """The weights of a model by their names in GGUF, changed as llama.cpp changes them."""
    config = model.config
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    found = {}
    for name, weight in model.named_parameters():
        array, (module, ending) = weight.detach().float().numpy(), name.rsplit(".", 1)
        part = module.rpartition(".")[2]
        if arch == gguf.MODEL_ARCH.LLAMA and part in heads:  # halves of a head are interleaved
            split = array.reshape(heads[part], 2, -1, array.shape[1])
            array = np.ascontiguousarray(split.swapaxes(1, 2).reshape(array.shape))
        if "gemma" in config.model_type and "norm" in part:
            array = array + 1
        found[f"{names.get_name(module)}.{ending}"] = array
    return found


def dequantised(folder: Path, kind: str) -> LlamaForCausalLM:
    """The Llama of a folder with the weights that a type of GGUF can hold: what must come back."""
    model, quantized = LlamaForCausalLM.from_pretrained(folder), gguf.GGMLQuantizationType[kind]
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:  # whole rows are permuted, so blocks stay blocks
                packed = gguf.quantize(weight.numpy(), quantized)
                weight.copy_(torch.from_numpy(gguf.dequantize(packed, quantized)))
    return model.eval()


def _write_config(writer: gguf.GGUFWriter, config) -> None:
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters.get("full_attention", config.rope_parameters)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head_dim)
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_layer_norm_rms_eps(getattr(config, "rms_norm_eps", 0.0))
    writer.add_layer_norm_eps(getattr(config, "layer_norm_eps", 0.0))
    writer.add_vocab_size(config.vocab_size)
    if getattr(config, "sliding_window", None):
        writer.add_sliding_window(config.sliding_window)


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer) -> None:
    backend = tokenizer.backend_tokenizer
    tokens = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    added = tokenizer.added_tokens_decoder
    types = [
        (_CONTROL if added[i].special else _USER_DEFINED) if i in added else _NORMAL
        for i in range(len(tokens))
    ]
    merges = json.loads(backend.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_chat_template(tokenizer.chat_template)
