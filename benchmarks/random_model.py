"""Random Llamas with a character tokenizer, for timing: their text does not matter."""

import importlib
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<|user|>", "<|assistant|>")
_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
#: Tokens that the chat template adds to a query: one before it and one after it.
TEMPLATE_TOKENS = 2


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama; a size of 0 is derived from ``hidden``."""

    hidden: int
    layers: int
    vocabulary: int
    intermediate: int = 0
    heads: int = 0
    kv_heads: int = 0

    def config(self) -> dict[str, Any]:
        """The arguments of LlamaConfig."""
        heads = self.heads or max(1, self.hidden // 64)
        return {
            "vocab_size": self.vocabulary,
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate or self.hidden * 8 // 3 // 8 * 8,
            "num_hidden_layers": self.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": self.kv_heads or max(1, heads // 2),
            "max_position_embeddings": 2048,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "tie_word_embeddings": True,
        }


def make_random_model(
    folder: Path, shape: Shape, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> int:
    """Write a model of this shape and its tokenizer. -> the number of parameters.

    One printable character is one token; no text contains the other tokens.
    """
    transformers: Any = importlib.import_module("transformers")
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    with torch.device(device):
        config = transformers.LlamaConfig(**shape.config(), dtype=dtype)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    model.save_pretrained(folder)
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=_characters(shape.vocabulary),
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
    )
    tokenizer.chat_template = _TEMPLATE
    tokenizer.save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def _characters(vocabulary: int) -> Tokenizer:
    tokens = [*_SPECIAL, *string.printable]
    tokens += [f"<unused {i}>" for i in range(len(tokens), vocabulary)]
    backend = Tokenizer(models.WordLevel({t: i for i, t in enumerate(tokens)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    backend.decoder = decoders.Fuse()
    return backend
