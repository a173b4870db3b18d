"""Tiny random models as GGUF files, as llama.cpp's converter writes them."""

import json
from pathlib import Path

import gguf
import numpy as np
import torch
from tiny_models import qwen_tokenizer, save_model
from transformers import LlamaConfig, LlamaForCausalLM

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


def build_byte_llama(folder: Path, **config) -> Path:
    """A random Llama with a byte-level tokenizer in ``folder``: one that GGUF can hold."""
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
        "rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0},
        "rms_norm_eps": 2.0**-17,  # not a default
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
    }
    return save_model(
        LlamaForCausalLM, LlamaConfig(**{**settings, **config}), tokenizer, folder, seed=0
    )


def write_gguf(folder: Path, file: Path, kind: str = "F32", change=None, tensors=None) -> Path:
    """The Llama of a folder as a GGUF file.

    Args:
        folder: made by :func:`build_byte_llama`.
        file: the file to write.
        kind: F32, F16, BF16 or Q8_0: the type of the matrices.
        change: called with the writer before it writes, to add keys.
        tensors: called with the tensors by GGUF name, to change them; all are written as F32 or
            ``kind``.
    """
    from transformers import AutoTokenizer

    model = LlamaForCausalLM.from_pretrained(folder)
    writer = gguf.GGUFWriter(file, "llama")
    _write_config(writer, model.config)
    _write_tokenizer(writer, AutoTokenizer.from_pretrained(folder))
    if change is not None:
        change(writer)
    found = gguf_tensors(model)
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


def gguf_tensors(model) -> dict[str, np.ndarray]:
    """The weights of a Llama by their names in GGUF, queries and keys in llama.cpp's order."""
    config = model.config
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    found = {}
    for name, weight in model.named_parameters():
        array = weight.detach().float().numpy()
        for part, heads in (
            ("q_proj", config.num_attention_heads),
            ("k_proj", config.num_key_value_heads),
        ):
            if part in name:  # halves of a head are interleaved
                split = array.reshape(heads, 2, -1, array.shape[1])
                array = np.ascontiguousarray(split.swapaxes(1, 2).reshape(array.shape))
        found[names.get_name(name.removesuffix(".weight")) + ".weight"] = array
    return found


def dequantised(folder: Path, kind: str) -> LlamaForCausalLM:
    """The model of a folder with the weights that a type of GGUF can hold: what must come back."""
    model, quantized = LlamaForCausalLM.from_pretrained(folder), gguf.GGMLQuantizationType[kind]
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:  # whole rows are permuted, so blocks stay blocks
                packed = gguf.quantize(weight.numpy(), quantized)
                weight.copy_(torch.from_numpy(gguf.dequantize(packed, quantized)))
    return model.eval()


def _write_config(writer: gguf.GGUFWriter, config: LlamaConfig) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


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
