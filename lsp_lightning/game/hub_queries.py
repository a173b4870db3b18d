"""Rows of a dataset of the Hugging Face Hub: ``hf:openai/gsm8k:main:train``."""

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lsp_lightning.errors import ConfigError
from lsp_lightning.game.query_keys import Row

HUB_SCHEME = "hf:"
_NAME = re.compile(r"hf:([\w.-]+(?:/[\w.-]+)?)(?::([\w.-]+))?:(\w+(?:\[[\w:%-]*\])?)")
#: In seconds; the first request tells whether the Hub can be reached at all.
_FIRST_REQUEST = 10.0


def hub_rows(path: str, key: str, is_column: Callable[[str], bool]) -> Iterator[tuple[str, Row]]:
    """The rows of a split, downloaded or from the cache.

    Args:
        path: ``hf:NAME:SPLIT`` or ``hf:NAME:CONFIG:SPLIT``.
        key: the config key.
        is_column: whether a column is read; of others only the names are.

    Raises:
        ConfigError: the path has another form, ``datasets`` is not installed, or it cannot load
            the split.
    """
    parts = _NAME.fullmatch(path)
    if parts is None:
        remedy = "write hf:NAME:SPLIT or hf:NAME:CONFIG:SPLIT, such as hf:openai/gsm8k:main:train"
        raise ConfigError(key, f"{path!r} does not name a split of a dataset", remedy)
    try:
        import datasets
    except ImportError as error:
        problem = f"{path!r} needs the package datasets"
        raise ConfigError(key, problem, "run `pip install datasets`") from error
    name, config, split = parts.groups()
    try:
        with _patient_only_online(name):
            found: Any = datasets.load_dataset(name, config, split=split)
    except Exception as error:
        problem = f"cannot load {path!r} ({type(error).__name__}: {error})"
        remedy = "check name, config, split and connection, or give a file"
        raise ConfigError(key, problem, remedy) from error
    others = dict.fromkeys(column for column in found.column_names if not is_column(column))
    columns = [column for column in found.column_names if is_column(column)]
    for number, entry in enumerate(found.select_columns(columns), start=1):
        yield f"row {number}", others | entry


@contextmanager
def _patient_only_online(name: str) -> Iterator[None]:
    """Use only the cache if the Hub cannot be reached: datasets would retry every request."""
    import datasets.config
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    settings = datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE
    try:
        HfApi().dataset_info(name, timeout=_FIRST_REQUEST)
    except HfHubHTTPError:  # the Hub answers; load_dataset says what is wrong
        pass
    except Exception:
        datasets.config.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE = True
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        datasets.config.HF_HUB_OFFLINE, constants.HF_HUB_OFFLINE = settings
