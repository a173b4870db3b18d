"""GGUF files (of llama.cpp, Ollama, LM Studio) as models: what is wrong with one, by its header."""

import functools
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lsp_lightning.errors import ConfigError, storage_failure, warn
from lsp_lightning.models.support import first_line
from lsp_lightning.runtime.memory import is_out_of_memory

_MAGIC = b"GGUF"
_AS_FOLDER = "give the model as a Hugging Face folder with safetensors weights"
_LANGUAGE_MODEL = "give the GGUF of a causal language model"
#: Values of ``general.type`` other than "model": what such a file is, and what to do.
_OTHER_TYPES = {
    "adapter": ("an adapter", "give a whole model; model.init_adapter takes adapters of peft"),
    "mmproj": ("a projector for pictures, not a language model", _LANGUAGE_MODEL),
    "vocab": ("a vocabulary without a model", _LANGUAGE_MODEL),
    "imatrix": ("an importance matrix, not a model", _LANGUAGE_MODEL),
}
#: Ways to split text before byte pairs that are GPT-2's, which transformers takes for all that it
#: does not know. Those of the second line also split digits; their merges join none, so the tokens
#: are the same.
_AS_GPT2 = (
    *("gpt-2", "mpt", "olmo", "jais", "trillion", "phi-2", "gigachat", "exaone4"),
    *("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone"),
)


def is_gguf(path: Path) -> bool:
    """Whether a path is meant as a GGUF file, by its ending or, for Ollama's files, its content."""
    if path.suffix == ".gguf":
        return not path.is_dir()
    with suppress(OSError):
        return path.is_file() and _begins_with(path, _MAGIC)
    return False


def content_hash(path: Path) -> str:
    """The SHA-256 of a file. A file that was not changed is read once in a process."""
    state = path.stat()
    return _hash(str(path), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _hash(path: str, size: int, changed: int) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_file(base: str, path: Path, key: str) -> None:
    """Raise ConfigError unless a file exists and begins as GGUF does.

    Args:
        base: the file, as in the config.
        path: where it is.
        key: its config key.
    """
    if not path.is_file():
        raise ConfigError(
            key,
            f"no file {base!r}",
            "give the path of an existing file; to download one: hf download OWNER/NAME FILE.gguf",
        )
    with readable(base, key):
        if _begins_with(path, b"version "):
            raise ConfigError(key, f"{base!r} is a Git LFS pointer", "run git lfs pull there")
        if not _begins_with(path, _MAGIC):
            raise ConfigError(key, f"{base!r} is not a GGUF file", "download it again")


def read_header(base: str, path: Path, key: str) -> Any:
    """The ``gguf.GGUFReader`` of a file that transformers can read as a causal LM.

    Args:
        base: the file, as in the config.
        path: where it is.
        key: its config key.

    Raises:
        ConfigError: it is damaged, incomplete or one of several parts, has no tokenizer, is not a
            language model, or has a quantization or a rotary embedding that is not read.
    """
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        arch = str(_value(reader, "general.architecture"))
    except Exception as error:  # damaged bytes may raise anything
        if is_out_of_memory(error):
            raise
        raise ConfigError(
            key,
            f"{base!r} is a damaged or incomplete GGUF file, or of a newer format "
            f"({first_line(error)})",
            "copy or download it again, or upgrade the package gguf",
        ) from error
    parts = int(_value(reader, "split.count") or 1)
    if parts > 1:
        raise ConfigError(
            key,
            f"{base!r} is part {int(_value(reader, 'split.no') or 0) + 1} of {parts} of a model",
            "merge the parts first: llama-gguf-split --merge FIRST_PART.gguf WHOLE.gguf",
        )
    what = _other_kind(reader, arch)
    if what is not None:
        raise ConfigError(key, f"{base!r} is {what[0]}", what[1])
    if not reader.tensors or _value(reader, "tokenizer.ggml.model") in (None, "none", "no_vocab"):
        lacks = "tokenizer" if reader.tensors else "weights"
        raise ConfigError(key, f"{base!r} has no {lacks}", _LANGUAGE_MODEL)
    _check_types(reader, base, key)
    _check_split(reader, base, key)
    scaling = _value(reader, f"{arch}.rope.scaling.type")
    if scaling not in (None, "none") and arch != "gpt-oss":  # transformers would leave it out
        problem = f"{base!r} scales its rotary embedding ({scaling}), which is not read from GGUF"
        raise ConfigError(key, problem, _AS_FOLDER)
    return reader


@contextmanager
def readable(base: str, key: str) -> Iterator[None]:
    """Turn the errors of transformers and of the system for a GGUF file into one line."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ConfigError) or is_out_of_memory(error) or storage_failure(error):
            raise
        reason = first_line(error)
        if "above report" in reason:  # transformers logs it, but not here
            reason = "its tensor shapes do not match its header"
        problem = f"cannot read {base!r} ({reason})"
        raise ConfigError(key, problem, _AS_FOLDER) from error


def _other_kind(reader: Any, arch: str) -> tuple[str, str] | None:
    """What a file is that holds no causal LM, and what to do; None if it may hold one."""
    kind = "mmproj" if arch == "clip" else str(_value(reader, "general.type") or "model")
    if kind in _OTHER_TYPES:
        return _OTHER_TYPES[kind]
    if _value(reader, f"{arch}.pooling_type") or "bert" in arch:
        return f"an embedding model (architecture {arch})", _LANGUAGE_MODEL
    return None


def _check_types(reader: Any, base: str, key: str) -> None:
    """Raise ConfigError if tensors are of a type that ``gguf`` cannot dequantise."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, dequantize

    for kind in sorted({tensor.tensor_type for tensor in reader.tensors}):
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError as error:
            problem = f"{base!r} has weights of type {kind.name}, which cannot be dequantised"
            raise ConfigError(key, problem, "give another form, such as Q4_K_M or Q8_0") from error


def _check_split(reader: Any, base: str, key: str) -> None:
    """Warn if text would be split in another way than the model was trained with."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    split = str(_value(reader, "tokenizer.ggml.pre"))
    known = (*_AS_GPT2, *GGUF_PRE_TOKENIZER_SPLITS)
    if _value(reader, "tokenizer.ggml.model") == "gpt2" and split not in known:
        warn(
            f"{key}: the tokenizer of {base!r} splits text in a way that transformers does not "
            f"know ({split!r}); GPT-2's is used, so some words may become other tokens"
        )


def _value(reader: Any, name: str) -> Any:
    """The value of a key of a file's header; None if it is not there."""
    field = reader.get_field(name)
    return None if field is None else field.contents()


def _begins_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start
