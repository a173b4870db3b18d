"""A GGUF file is converted once to an ordinary Hugging Face folder, which is kept in a cache.

Two folders are kept: the config and tokenizer, which most commands need, and the whole model in
a compute type. Their names have the hash of the file's content, so a renamed file is found again
and a changed one is converted again.
"""

import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch

from lsp_lightning.errors import ConfigError, require_one_of, system_error
from lsp_lightning.models.families import check_family, check_layers
from lsp_lightning.models.gguf import check_file, content_hash, read_header, readable
from lsp_lightning.models.gguf_tensors import complete_config
from lsp_lightning.paths import resolve

#: Raise it when files are converted in another way, so that older folders are not used.
_FORMAT = 1
#: The file with the sizes of the others in a folder.
_SIZES = "sizes.json"


def gguf_folder(file: str, dtype: str) -> Path:
    """The folder of a GGUF file's model for use by other libraries, converted if need be.

    Args:
        file: the GGUF file, as in ``model.base``.
        dtype: float32, bfloat16 or float16.

    Raises:
        ConfigError: it cannot be read as a causal LM, or not be written, or there is no such type.
    """
    require_one_of(dtype, ("float32", "bfloat16", "float16"), "dtype")
    return converted(file, getattr(torch, dtype), "file")


def described(base: str, key: str) -> Path:
    """The folder with config and tokenizer of a GGUF file; its weights are not read.

    Args:
        base: the file, as in the config.
        key: its config key.

    Raises:
        ConfigError: it cannot be read as a causal LM, or the folder cannot be written.
    """
    path = resolve(base)
    check_file(base, path, key)
    folder = _cached(path, "config")

    def write(partial: Path) -> None:
        print(f"reading config and tokenizer of {base}, to be kept in {folder}", flush=True)
        _describe(base, path, key, partial)

    return _written_once(folder, write, base, key)


def converted(base: str, dtype: torch.dtype, key: str) -> Path:
    """The folder with the whole model of a GGUF file, dequantised.

    Args:
        base: the file, as in the config.
        dtype: the type of the weights.
        key: its config key.

    Raises:
        ConfigError: it cannot be read as a causal LM, or the folder cannot be written.
    """
    path, description = resolve(base), described(base, key)
    name = str(dtype).removeprefix("torch.")
    folder = _cached(path, name)

    def write(partial: Path) -> None:
        print(f"converting {base} to {name} once, to be kept in {folder}", flush=True)
        shutil.copytree(description, partial, dirs_exist_ok=True)
        _convert(path, dtype, base, key, partial)

    return _written_once(folder, write, base, key)


def _cached(path: Path, what: str) -> Path:
    """The folder in the cache for one content of a file."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return root / "lsp-lightning" / f"gguf-{_FORMAT}" / f"{content_hash(path)[:32]}-{what}"


def _written_once(folder: Path, write: Callable[[Path], None], base: str, key: str) -> Path:
    """The folder, filled by ``write`` unless it is whole.

    It is written as a whole or not at all. If several processes ask at once, one of them writes and
    the others wait.
    """
    from filelock import FileLock

    if _is_whole(folder):
        return folder
    partial = folder.with_name(f"{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # the system frees it if this process dies
            if _is_whole(folder):
                return folder
            shutil.rmtree(partial, ignore_errors=True)  # of a process that was killed
            shutil.rmtree(folder, ignore_errors=True)  # someone deleted files in it
            partial.mkdir()
            try:
                with readable(base, key):
                    write(partial)
                sizes = {
                    path.name: path.stat().st_size
                    for path in partial.iterdir()
                    if path.name != _SIZES
                }
                (partial / _SIZES).write_text(json.dumps(sizes), encoding="utf-8")
                for file in (path for path in partial.rglob("*") if path.is_file()):
                    _flush(file)
                partial.rename(folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    except Exception as error:  # each library has its own class
        cause = None if isinstance(error, ConfigError) else system_error(error)
        if cause is None:
            raise
        raise ConfigError(
            key,
            f"{base!r} cannot be converted to {str(folder)!r} ({cause.strerror})",
            "free space there, or set XDG_CACHE_HOME to another folder",
        ) from error
    return folder


def _is_whole(folder: Path) -> bool:
    """Whether a folder has all files that were written, in full."""
    try:
        sizes = json.loads((folder / _SIZES).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):  # damaged: another JSON value
        return False


def _flush(file: Path) -> None:
    with file.open("rb+") as opened:
        os.fsync(opened.fileno())


@contextmanager
def _alone(path: Path) -> Iterator[dict[str, str]]:
    """Where transformers finds the file, and nothing else: other files beside it would be read."""
    bars = sys.stderr if sys.stderr.isatty() else io.StringIO()
    with tempfile.TemporaryDirectory() as place, redirect_stderr(bars):
        (Path(place) / "model.gguf").symlink_to(path.resolve())
        yield {"pretrained_model_name_or_path": place, "gguf_file": "model.gguf"}


def _describe(base: str, path: Path, key: str, folder: Path) -> None:
    """Write config, tokenizer and generation config, after all checks that need no weights."""
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    reader = read_header(base, path, key)
    with _alone(path) as place:
        config = AutoConfig.from_pretrained(**place)
        check_family(config.to_dict(), base, key)
        check_layers(config.to_dict(), len(reader.tensors), base, key)
        complete_config(reader, config, base, key)
        config.save_pretrained(folder)
        GenerationConfig.from_model_config(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(**place).save_pretrained(folder)


def _convert(path: Path, dtype: torch.dtype, base: str, key: str, folder: Path) -> None:
    """Write the weights in a compute type into a folder with config and tokenizer."""
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    config = AutoConfig.from_pretrained(folder)
    with _alone(path) as place:
        model, found = AutoModelForCausalLM.from_pretrained(
            **place,
            config=config,
            dtype=dtype,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
        )
    missing = sorted(found["missing_keys"])
    if missing:  # transformers would leave them random
        problem = f"{base!r} has no weights for {missing[0]} of a {type(model).__name__}"
        raise ConfigError(key, problem, "give a complete model")
    plain = _skeleton(config, dtype)  # a model that knows nothing of GGUF, so it can be saved
    plain.load_state_dict(model.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(folder)


def _skeleton(config: Any, dtype: torch.dtype) -> Any:
    """The causal LM of a config on the meta device."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=dtype)
