"""Getting a model and its tokenizer: safetensors only, no code from the hub, faults said in one
line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lsp_lightning.errors import ConfigError
from lsp_lightning.paths import resolve

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_KEY = "model.base"


def check_base(base: str) -> None:
    """What can be known of ``base`` without loading it.

    Raises:
        ConfigError: no such folder, or one without a config or without safetensors weights.
    """
    try:
        folder = resolve(base)
    except ModuleNotFoundError as error:
        raise ConfigError(
            _KEY, f"no package for {base!r}", "check the name after 'pkg:'"
        ) from error
    if not folder.is_dir():
        if _HUB_ID.fullmatch(base) and not base.startswith("."):
            return
        raise ConfigError(
            _KEY, f"no folder {base!r}", "give a model folder, or a hub id like Qwen/Qwen3-1.7B"
        )
    if not (folder / "config.json").is_file():
        raise ConfigError(
            _KEY, f"folder {base!r} has no config.json", "give a Hugging Face model folder"
        )
    if not any(folder.glob("*.safetensors")):
        raise ConfigError(
            _KEY,
            f"folder {base!r} has no safetensors weights (pickled ones can run code)",
            "save the model again with save_pretrained(..., safe_serialization=True)",
        )


def check_adapter(folder: str | None, key: str) -> None:
    """Whether ``folder`` holds an adapter in peft's layout with safetensors weights.

    Raises:
        ConfigError: it does not.
    """
    if folder is None:
        return
    path = resolve(folder)
    if not (path / "adapter_config.json").is_file() or not any(path.glob("*.safetensors")):
        raise ConfigError(
            key,
            f"{folder!r} is not a peft adapter (adapter_config.json and adapter_model.safetensors)",
            "give the 'adapter' folder of a finished run",
        )


def load_model(base: str, dtype: torch.dtype) -> Any:
    """The causal LM, in eval mode, on the CPU.

    Raises:
        ConfigError: it cannot be had (missing, gated, without safetensors).
    """
    from transformers import AutoModelForCausalLM

    check_base(base)
    with _one_line(base):
        return AutoModelForCausalLM.from_pretrained(
            _source(base), dtype=dtype, use_safetensors=True, trust_remote_code=False
        )


def load_tokenizer(base: str, model: Any) -> tuple[int, list[int], Any]:
    """Padding id, the ids that end a turn (tokenizer's and generation config's), and the
    tokenizer."""
    from transformers import AutoTokenizer

    with _one_line(base):
        tokenizer = AutoTokenizer.from_pretrained(_source(base), trust_remote_code=False)
    configured = model.generation_config.eos_token_id
    stops = configured if isinstance(configured, list) else [configured]
    stop_ids = sorted({i for i in [*stops, tokenizer.eos_token_id] if i is not None})
    if not stop_ids:
        raise ConfigError(
            _KEY,
            f"{base!r} names no token that ends a turn",
            "set eos_token_id in its generation config",
        )
    pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else stop_ids[0]
    return pad_id, stop_ids, tokenizer


def _source(base: str) -> str:
    folder = resolve(base)
    return str(folder) if Path(folder).is_dir() else base


@contextmanager
def _one_line(base: str) -> Iterator[None]:
    """The loaders' many ways to fail, as one line that names the key."""
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        if "gated" in str(error).lower():
            remedy = "accept its licence on the hub and log in (hf auth login)"
        else:
            remedy = "check the id and the connection, or give a folder"
        first_line = (
            str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        )
        raise ConfigError(_KEY, f"cannot load {base!r} ({first_line})", remedy) from error
