"""Engines: token ids in; completions with their sampled log-probs out."""

from lsp_lightning.generation.base import Engine
from lsp_lightning.generation.local import LocalEngine
from lsp_lightning.generation.rollouts import (
    LocalRollouts,
    RolloutSettings,
    ServedRollouts,
    close_engine,
)
from lsp_lightning.generation.served_errors import EngineError

__all__ = [
    "Engine",
    "EngineError",
    "LocalEngine",
    "LocalRollouts",
    "RolloutSettings",
    "ServedRollouts",
    "close_engine",
]
