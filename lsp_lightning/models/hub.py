"""Access to the Hub: tried once, without long retries, and its errors in one line."""

import functools
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lsp_lightning.errors import ConfigError
from lsp_lightning.models.gguf import content_hash, is_gguf
from lsp_lightning.models.gguf_folder import converted, described
from lsp_lightning.models.sources import ADAPTER_CONFIG, KEY, check_no_adapter, read_json
from lsp_lightning.models.support import first_line
from lsp_lightning.paths import resolve
from lsp_lightning.runtime.memory import is_out_of_memory

#: Seconds in which the Hub must answer once; its client would try for 23 s for every file.
_SECONDS = 5.0
_OFFLINE = "HF_HUB_OFFLINE"


@functools.lru_cache(maxsize=1)
def reachable() -> bool:
    """Whether the Hub answers; asked once in a process."""
    from huggingface_hub import constants, get_session

    if offline():
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
    except Exception:  # no network, no such host, a proxy that refuses
        return False
    return True


def offline() -> bool:
    """Whether the environment forbids access to the Hub."""
    return os.environ.get(_OFFLINE, "0").lower() in ("1", "true", "yes", "on")


def is_local(base: str) -> bool:
    """Whether a model is a folder or file on this machine, and not a Hub id."""
    return resolve(base).exists()


def gguf_sha256(base: str) -> str | None:
    """The SHA-256 of a base that is a GGUF file, which identifies it in any place; else None."""
    path = resolve(base)
    return content_hash(path) if path.is_file() and is_gguf(path) else None


def location(base: str) -> str:
    """Where a model can be loaded from elsewhere: a Hub id unchanged, a path as an absolute one."""
    path = resolve(base)
    return str(path.resolve()) if path.exists() else base


def source(base: str, dtype: torch.dtype | None = None) -> tuple[str, dict[str, Any]]:
    """Where transformers loads a model from: its folder or Hub id, and options.

    A GGUF file becomes a folder here. If the Hub does not answer, only files that are cached are
    looked for.

    Args:
        base: folder, GGUF file or Hub id.
        dtype: the type of the weights; None if only config and tokenizer are loaded.
    """
    folder = resolve(base)
    if is_gguf(folder):
        folder = described(base, KEY) if dtype is None else converted(base, dtype, KEY)
    if folder.is_dir():
        return str(folder), {"local_files_only": True}
    return base, {"local_files_only": not reachable()}


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what transformers' loaders report of a folder: this package says it in one line."""
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def one_line(base: str, key: str) -> Iterator[None]:
    """Turn the errors of transformers' loaders into one line with the key and the remedy.

    Errors of any class: a folder's files can hold anything, and the loaders trust them.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ConfigError) or is_out_of_memory(error):
            raise
        if not is_local(base):
            check_no_adapter(base, _cached_adapter(base), key)
        if "ignore_mismatched_sizes" in str(error):  # it points to a report that is not shown
            problem = f"the weights of {base!r} have other sizes than its config says"
            raise ConfigError(key, problem, "use config.json and weights of one model") from error
        problem = f"cannot load {base!r} ({first_line(error)})"
        raise ConfigError(key, problem, _remedy(base, str(error).lower())) from error


def _remedy(base: str, said: str) -> str:
    """What to do about an error with this text."""
    page = f"https://huggingface.co/{base}"
    if is_local(base):
        return "check its files"
    if "gated" in said:
        return f"accept its licence at {page}, then log in: hf auth login"
    if "not a valid model identifier" in said:
        return f"check that {page} exists; if it is private, log in: hf auth login"
    if offline():
        return f"unset {_OFFLINE}, or download it while online: hf download {base}"
    if not reachable():
        return "it is not cached, and the Hub cannot be reached: check your connection"
    return "check the Hub id and your connection"


def _cached_adapter(base: str) -> dict[str, Any] | None:
    """The adapter_config.json of a Hub id, from the cache or the Hub; None without one."""
    from transformers.utils import cached_file

    try:
        path = cached_file(base, ADAPTER_CONFIG, local_files_only=not reachable())
    except (OSError, ValueError):
        return None
    return None if path is None else read_json(resolve(str(path)), "model.base")
