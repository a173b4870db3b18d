"""Engines: token ids in; completions with their sampled log-probs out."""

from lsp_lightning.generation.base import Engine
from lsp_lightning.generation.local import LocalEngine

__all__ = ["Engine", "LocalEngine"]
