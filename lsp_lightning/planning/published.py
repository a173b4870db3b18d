"""Published sizes of the presets' models, so that they can be planned without a connection."""

import functools
import json
from importlib.resources import files
from typing import Any

from lsp_lightning.models import loading
from lsp_lightning.paths import resolve


@functools.lru_cache(maxsize=1)
def published_sizes() -> dict[str, dict[str, Any]]:
    """The contents of ``config.json`` by Hub id, as in ``data/model_sizes.json``."""
    text = (files("lsp_lightning") / "data" / "model_sizes.json").read_text(encoding="utf-8")
    sizes: dict[str, dict[str, Any]] = json.loads(text)
    return sizes


def planned_config(source: str, key: str = "model.base") -> Any:
    """The config of a model to plan: from the published sizes, else loaded.

    Raises:
        ConfigError: it could not be loaded.
    """
    from transformers import AutoConfig

    sizes = published_sizes().get(source)
    if sizes is None or resolve(source).is_dir():
        return loading.load_config(source, key)
    return AutoConfig.for_model(**sizes)
