"""Engines: token ids in, completions with the log-probs of their tokens out."""

from lsp_lightning.generation.base import Engine
from lsp_lightning.generation.local import LocalEngine
from lsp_lightning.generation.served.errors import EngineError
from lsp_lightning.generation.settings import (
    LocalRollouts,
    RolloutSettings,
    ServedRollouts,
    close_engine,
)

__all__ = [
    "Engine",
    "EngineError",
    "LocalEngine",
    "LocalRollouts",
    "RolloutSettings",
    "ServedRollouts",
    "close_engine",
]
