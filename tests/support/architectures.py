"""Tiny random models of many families, with tokenizers and chat templates like the family's."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from tiny_models import llama_tokenizer, qwen_tokenizer
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma2Config,
    Gemma3Config,
    Gemma3nTextConfig,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GptOssConfig,
    GraniteConfig,
    GraniteMoeHybridConfig,
    Llama4TextConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PhiConfig,
    PhimoeConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3MoeConfig,
    SmolLM3Config,
)

#: Tokens that a sliding layer sees; fewer than the tests let models read.
WINDOW = 8

_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "initializer_range": 0.15,  # large enough for uneven next tokens
}
_GROUPED = {**_SIZES, "num_key_value_heads": 2}
_GEMMA = {**_GROUPED, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": WINDOW}
_LAYERS = ["sliding_attention", "full_attention"]

_LLAMA_TEMPLATE = (
    "{{- bos_token }}"
    "{%- if not date_string is defined %}"
    "{%- if strftime_now is defined %}{%- set date_string = strftime_now('%d %b %Y') %}"
    "{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}{%- endif %}"
    "{{- '<|header|>system<|end_header|>\n\nToday Date: ' + date_string + '\n\n<|eot_id|>' }}"
    "{%- for message in messages %}"
    "{{- '<|header|>' + message['role'] + '<|end_header|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|header|>assistant<|end_header|>\n\n' }}{%- endif %}"
)
_QWEN25_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
#: Earlier turns lose their thinking; an empty block switches thinking off.
QWEN3_TEMPLATE = (
    "{%- for message in messages %}"
    "{%- set content = message.content %}"
    "{%- if message.role == 'assistant' and '</think>' in content %}"
    "{%- set content = content.split('</think>')[-1].lstrip('\n') %}{%- endif %}"
    "{{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}"
    "{{- '<think>\n\n</think>\n\n' }}{%- endif %}{%- endif %}"
)
_GEMMA_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
_MISTRAL_TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{- raise_exception('roles must alternate user/assistant/user/assistant/...') }}{%- endif %}"
    "{%- if message['role'] == 'user' %}{{- '[INST] ' + message['content'] + ' [/INST]' }}"
    "{%- else %}{{- ' ' + message['content'] + eos_token }}{%- endif %}"
    "{%- endfor %}"
)
_PHI3_TEMPLATE = (
    "{% for message in messages %}"
    "{{'<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n'}}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
SMOLLM3_TEMPLATE = (
    "{%- if enable_thinking is not defined %}{%- set enable_thinking = true %}{%- endif %}"
    "{%- set mode = '/think' if enable_thinking else '/no_think' %}"
    "{{- '<|im_start|>system\nToday Date: ' + strftime_now('%d %B %Y') }}"
    "{{- '\nReasoning Mode: ' + mode + '<|im_end|>\n' }}"
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}"
    "{%- if not enable_thinking %}{{- '<think>\n\n</think>\n' }}{%- endif %}{%- endif %}"
)
_OLMO_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% if not loop.last %}{{ '\n' }}{% endif %}"
    "{% if loop.last and add_generation_prompt %}{{ '\n<|assistant|>\n' }}{% endif %}"
    "{% endfor %}"
)
_GRANITE_TEMPLATE = (
    "{%- if messages[0]['role'] != 'system' %}"
    "{{- '<|start_of_role|>system<|end_of_role|>You are Granite. '"
    " + 'Today is ' + strftime_now('%B %d, %Y') + '.' + eos_token + '\n' }}{%- endif %}"
    "{%- for message in messages %}"
    "{{- '<|start_of_role|>' + message['role'] + '<|end_of_role|>'"
    " + message['content'] + eos_token + '\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}"
    "{{- '<|start_of_role|>assistant<|end_of_role|>' }}{%- endif %}"
)
_GPT_OSS_CONTROLS = ("<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>")
#: A message ends otherwise where it is the last one.
_GPT_OSS_TEMPLATE = (
    "{%- macro about() -%}"
    "{{- 'Current date: ' + strftime_now('%Y-%m-%d') + '\n\nReasoning: ' }}"
    "{{- reasoning_effort if reasoning_effort is defined else 'medium' }}"
    "{%- endmacro -%}"
    "{{- '<|start|>system<|message|>' + about() + '<|end|>' }}"
    "{%- for message in messages %}"
    "{%- if message.role == 'assistant' %}"
    "{{- '<|start|>assistant<|channel|>final<|message|>' + message.content }}"
    "{{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}"
    "{%- else %}"
    "{{- '<|start|>' + message.role + '<|message|>' + message.content + '<|end|>' }}"
    "{%- endif %}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{%- endif %}"
)


@dataclass(frozen=True)
class Architecture:
    """A family's model in small."""

    config: Callable[..., PreTrainedConfig]
    """Its settings, given the size of the vocabulary and the ids of special tokens."""
    tokenizer: Callable[[], PreTrainedTokenizerFast]
    stops: tuple[str, ...]
    """All tokens that end a completion."""
    configured: tuple[str, ...]
    """Those of them that its generation settings name."""


def _spelled(template: str, *controls: str) -> Callable[[], PreTrainedTokenizerFast]:
    """One character a token, with the family's control tokens; </s> ends a text."""
    return lambda: llama_tokenizer(template, controls)


def _bytes(
    template: str | None, eos: str = "<|im_end|>", pad: str | None = "<|endoftext|>"
) -> Callable[[], PreTrainedTokenizerFast]:
    """Byte-level pieces without a token that begins a text."""

    def build() -> PreTrainedTokenizerFast:
        tokenizer = qwen_tokenizer()
        tokenizer.chat_template, tokenizer.eos_token, tokenizer.pad_token = template, eos, pad
        return tokenizer

    return build


def _gemma3_with_vision(**ids: int) -> Gemma3Config:
    return Gemma3Config(
        text_config={**_GEMMA, **ids, "layer_types": _LAYERS},
        vision_config={
            "hidden_size": 64,
            "intermediate_size": 64,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
        mm_tokens_per_image=4,
        initializer_range=0.15,
    )


_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
_GEMMA_TOKENIZER = _spelled(_GEMMA_TEMPLATE, "<start_of_turn>", "<end_of_turn>")
_GEMMA_STOPS = ("</s>", "<end_of_turn>")
_IM_END, _BOTH = ("<|im_end|>",), ("<|im_end|>", "<|endoftext|>")

ARCHITECTURES = {
    "llama": Architecture(
        lambda **ids: LlamaConfig(rope_parameters=_LLAMA3_ROPE, **_GROUPED, **ids),
        _spelled(_LLAMA_TEMPLATE, "<|header|>", "<|end_header|>", "<|eot_id|>"),
        ("</s>", "<|eot_id|>"),
        ("</s>", "<|eot_id|>"),
    ),
    "qwen2": Architecture(
        lambda **ids: Qwen2Config(tie_word_embeddings=True, **_GROUPED, **ids),
        _bytes(_QWEN25_TEMPLATE),
        _BOTH,
        _BOTH,
    ),
    "qwen3": Architecture(
        lambda **ids: Qwen3Config(tie_word_embeddings=True, head_dim=32, **_GROUPED, **ids),
        _bytes(QWEN3_TEMPLATE),
        _BOTH,
        _BOTH,
    ),
    "qwen3-moe": Architecture(
        lambda **ids: Qwen3MoeConfig(
            moe_intermediate_size=64,
            num_experts=6,
            num_experts_per_tok=2,
            norm_topk_prob=True,
            mlp_only_layers=[1],
            **_GROUPED,
            **ids,
        ),
        _bytes(QWEN3_TEMPLATE),
        _BOTH,
        _BOTH,
    ),
    "gemma2": Architecture(
        lambda **ids: Gemma2Config(
            layer_types=_LAYERS,
            # low enough to bend what these models compute
            attn_logit_softcapping=2.0,
            final_logit_softcapping=4.0,
            **_GEMMA,
            **ids,
        ),
        _GEMMA_TOKENIZER,
        _GEMMA_STOPS,
        ("</s>",),  # as Gemma 2's own settings: the template alone tells the other one
    ),
    "gemma3": Architecture(
        lambda **ids: Gemma3TextConfig(layer_types=_LAYERS, **_GEMMA, **ids),
        _GEMMA_TOKENIZER,
        _GEMMA_STOPS,
        _GEMMA_STOPS,
    ),
    # what is loaded of a Gemma 3 that can see: a tower for pictures beside the text model
    "gemma3-vision": Architecture(
        _gemma3_with_vision, _GEMMA_TOKENIZER, _GEMMA_STOPS, _GEMMA_STOPS
    ),
    "mistral": Architecture(
        lambda **ids: MistralConfig(sliding_window=WINDOW, **_GROUPED, **ids),
        _spelled(_MISTRAL_TEMPLATE, "[INST]", "[/INST]"),
        ("</s>",),
        ("</s>",),
    ),
    "phi": Architecture(
        lambda **ids: PhiConfig(
            **_SIZES, resid_pdrop=0.1, embd_pdrop=0.1, attention_dropout=0.1, **ids
        ),
        _bytes(None, eos="<|endoftext|>", pad=None),
        ("<|endoftext|>",),
        ("<|endoftext|>",),
    ),
    "phi3": Architecture(
        lambda **ids: Phi3Config(sliding_window=WINDOW, **_GROUPED, **ids),
        _spelled(_PHI3_TEMPLATE, "<|end|>"),
        ("</s>", "<|end|>"),
        ("</s>",),
    ),
    "smollm3": Architecture(
        lambda **ids: SmolLM3Config(
            **{**_GROUPED, "num_hidden_layers": 3}, no_rope_layers=[1, 0, 1], **ids
        ),
        _bytes(SMOLLM3_TEMPLATE),
        _IM_END,
        _IM_END,
    ),
    "olmo2": Architecture(
        lambda **ids: Olmo2Config(**_GROUPED, **ids),
        _spelled(_OLMO_TEMPLATE),
        ("</s>",),
        ("</s>",),
    ),
    "granite": Architecture(
        lambda **ids: GraniteConfig(
            tie_word_embeddings=True,
            embedding_multiplier=4.0,
            logits_scaling=3.0,
            residual_multiplier=0.5,
            attention_multiplier=0.1,
            **_GROUPED,
            **ids,
        ),
        _spelled(_GRANITE_TEMPLATE, "<|start_of_role|>", "<|end_of_role|>"),
        ("</s>",),
        ("</s>",),
    ),
    "gpt-neox": Architecture(
        lambda **ids: GPTNeoXConfig(**_SIZES, **ids),
        _bytes(None, eos="<|endoftext|>", pad=None),
        ("<|endoftext|>",),
        ("<|endoftext|>",),
    ),
    # latent attention: values have fewer numbers than queries and keys
    "deepseek-v3": Architecture(
        lambda **ids: DeepseekV3Config(
            **_SIZES,
            num_key_value_heads=4,
            moe_intermediate_size=64,
            first_k_dense_replace=1,
            n_routed_experts=4,
            num_experts_per_tok=2,
            n_group=1,
            topk_group=1,
            q_lora_rank=32,
            kv_lora_rank=32,
            qk_rope_head_dim=16,
            qk_nope_head_dim=16,
            v_head_dim=24,
            **ids,
        ),
        _bytes(QWEN3_TEMPLATE),
        _BOTH,
        _BOTH,
    ),
    # several streams of hidden states, changed in place; inputs for each layer; shared KV
    "gemma3n": Architecture(
        lambda **ids: Gemma3nTextConfig(
            **{**_GROUPED, "num_hidden_layers": 4},
            head_dim=16,
            sliding_window=WINDOW,
            layer_types=[*_LAYERS, *_LAYERS],
            hidden_size_per_layer_input=16,
            vocab_size_per_layer_input=ids["vocab_size"],
            laurel_rank=8,
            num_kv_shared_layers=2,
            activation_sparsity_pattern=[0.5, 0.0, 0.0, 0.0],
            **ids,
        ),
        _GEMMA_TOKENIZER,
        _GEMMA_STOPS,
        _GEMMA_STOPS,
    ),
    # attention in chunks; layers without positions; one expert a token, and a shared one
    "llama4": Architecture(
        lambda **ids: Llama4TextConfig(
            **{**_GROUPED, "num_hidden_layers": 4},
            intermediate_size_mlp=128,
            head_dim=16,
            num_local_experts=4,
            attention_chunk_size=WINDOW,
            **ids,
        ),
        _spelled(_LLAMA_TEMPLATE, "<|header|>", "<|end_header|>", "<|eot_id|>"),
        ("</s>", "<|eot_id|>"),
        ("</s>", "<|eot_id|>"),
    ),
    # a router that is a linear layer and returns three tensors
    "phimoe": Architecture(
        lambda **ids: PhimoeConfig(num_local_experts=4, **_GROUPED, **ids),
        _spelled(_PHI3_TEMPLATE, "<|end|>"),
        ("</s>", "<|end|>"),
        ("</s>",),
    ),
    # states in place of keys and values: linear attention, Mamba
    "qwen3.5": Architecture(
        lambda **ids: Qwen3_5TextConfig(
            layer_types=["linear_attention", "full_attention"],
            linear_num_key_heads=2,
            linear_num_value_heads=4,
            linear_key_head_dim=16,
            linear_value_head_dim=16,
            head_dim=32,
            **_GROUPED,
            **ids,
        ),
        _bytes(QWEN3_TEMPLATE),
        _BOTH,
        _BOTH,
    ),
    "granite-hybrid": Architecture(
        lambda **ids: GraniteMoeHybridConfig(
            layer_types=["mamba", "attention"],
            mamba_n_heads=8,
            mamba_d_head=16,
            mamba_d_state=16,
            shared_intermediate_size=128,
            num_local_experts=0,
            **_GROUPED,
            **ids,
        ),
        _spelled(_GRANITE_TEMPLATE, "<|start_of_role|>", "<|end_of_role|>"),
        ("</s>",),
        ("</s>",),
    ),
    "gpt-oss": Architecture(
        lambda **ids: GptOssConfig(
            layer_types=_LAYERS,
            sliding_window=WINDOW,
            num_local_experts=4,
            num_experts_per_tok=2,
            head_dim=16,
            **_GROUPED,
            **ids,
        ),
        _spelled(_GPT_OSS_TEMPLATE, *_GPT_OSS_CONTROLS),
        ("</s>", "<|return|>"),
        ("</s>", "<|return|>"),
    ),
}


def build(name: str, folder: Path, seed: int = 0) -> Path:
    """The random model ``name`` in ``folder``, with its tokenizer and generation settings."""
    architecture = ARCHITECTURES[name]
    tokenizer = architecture.tokenizer()
    config = architecture.config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
        _make_uneven(model)
    ends = tokenizer.convert_tokens_to_ids(list(architecture.configured))
    model.generation_config.eos_token_id = ends if len(ends) > 1 else ends[0]
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _make_uneven(model: torch.nn.Module) -> None:
    """Norms and biases as if learned: where they are new, tied models repeat what they read."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1 and "norm" in name:
                parameter.add_(2 * torch.rand(parameter.shape))
            elif parameter.dim() == 1:
                parameter.add_(0.3 * torch.randn(parameter.shape))
