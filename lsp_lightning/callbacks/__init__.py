"""Callbacks of a run: checkpoints, transcripts, progress, examples, table and summary."""

from lsp_lightning.callbacks.checkpoint import RoundCheckpoint
from lsp_lightning.callbacks.examples import Examples
from lsp_lightning.callbacks.pilot import FirstRound, Pilot
from lsp_lightning.callbacks.progress import RoundProgress
from lsp_lightning.callbacks.summary import RunSummary
from lsp_lightning.callbacks.table import RunCurves, RunTable
from lsp_lightning.callbacks.transcripts import Transcripts

__all__ = [
    "Examples",
    "FirstRound",
    "Pilot",
    "RoundCheckpoint",
    "RoundProgress",
    "RunCurves",
    "RunSummary",
    "RunTable",
    "Transcripts",
]
