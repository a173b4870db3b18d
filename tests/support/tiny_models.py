"""Tiny random models with real tokenizers, written to a folder in seconds."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
)

BASIC_TOKENS = ("<pad>", "<s>", "</s>", "<unk>")
ROLE_TOKENS = ("<|user|>", "<|assistant|>", "<|system|>")
#: Everything that can be typed, so that text can spell every control token character by character.
CHARACTERS = "\n" + "".join(map(chr, range(32, 127)))

LLAMA_TEMPLATE = (
    "{{ bos_token }}"
    "{% if date_string is defined %}<|system|>Today is {{ date_string }}.{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}"
    "{% else %}<|assistant|>{{ message['content'] }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

QWEN_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)

_SENTENCES = (
    "user assistant system the user asks and the assistant answers",
    "write a short text about the sea and the mountains",
    "add two and three and say what the result is",
    "def f(x): return x + 1",
)


def llama_tokenizer(
    chat_template: str | None = LLAMA_TEMPLATE,
    extra_controls: Sequence[str] = (),
    characters: Iterable[str] = CHARACTERS,
) -> PreTrainedTokenizerFast:
    """One character a token, and control tokens that its characters can spell.

    Args:
        chat_template: the template, or None for a model without one.
        extra_controls: further special tokens.
        characters: all that is known; others are <unk>.
    """
    controls = (*BASIC_TOKENS, *ROLE_TOKENS, *extra_controls)
    vocabulary = {token: i for i, token in enumerate((*controls, *characters))}
    backend = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in controls])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[*ROLE_TOKENS, *extra_controls],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def qwen_tokenizer(unk_token: str | None = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE: two turn markers, and think tags that are added but not special."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(_SENTENCES, trainer)
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    backend.add_tokens(
        [AddedToken(t, special=False, normalized=False) for t in ("<think>", "</think>")]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        unk_token=unk_token,
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.chat_template = QWEN_TEMPLATE
    return tokenizer


def build_llama(
    folder: Path,
    *,
    hidden: int = 64,
    layers: int = 2,
    seed: int = 0,
    chat_template: str | None = LLAMA_TEMPLATE,
    extra_controls: Sequence[str] = (),
    characters: Iterable[str] = CHARACTERS,
) -> Path:
    """A random Llama in ``folder``. Its weights are large enough for uneven next tokens."""
    tokenizer = llama_tokenizer(chat_template, extra_controls, characters)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        initializer_range=0.15,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return save_model(LlamaForCausalLM, config, tokenizer, folder, seed)


def build_qwen3(folder: Path, *, hidden: int = 64, layers: int = 2, seed: int = 0) -> Path:
    """A random Qwen3 (tied embeddings, query and key norms) in ``folder``."""
    tokenizer = qwen_tokenizer()
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=hidden // 4,
        max_position_embeddings=4096,
        initializer_range=0.15,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    return save_model(Qwen3ForCausalLM, config, tokenizer, folder, seed)


def save_model(model_class, config, tokenizer, folder: Path, seed: int) -> Path:
    """Write a random model and its tokenizer into ``folder``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
