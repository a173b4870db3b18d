"""Configs of real models from their published sizes: the hub is out of reach of the tests."""

from typing import Any

from lsp_lightning.errors import ConfigError
from lsp_lightning.planning.published import planned_config, published_sizes


def published_config(base: str, key: str = "model.base") -> Any:
    """A model's config from the package's sizes, as the hub would give it."""
    if base not in published_sizes():
        raise ConfigError(key, f"no sizes of {base!r}", "write them down")
    return planned_config(base, key)
