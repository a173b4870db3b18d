"""Configs of real models from their published sizes: the hub is out of reach of the tests."""

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from lsp_lightning.errors import ConfigError

FOLDER = Path(__file__).with_name("published")


def published_config(base: str, key: str = "model.base") -> Any:
    """A model's config from the sizes in the folder, as the hub would give it."""
    path = FOLDER / f"{base.replace('/', '__')}.json"
    if not path.is_file():
        raise ConfigError(key, f"no sizes of {base!r}", "write them down")
    return AutoConfig.for_model(**json.loads(path.read_text()))
