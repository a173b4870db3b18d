"""Runs Python that a model wrote, behind a boundary, and brings back plain values only."""

from lsp_lightning.sandbox.base import Limits, Outcome, Program, Sandbox, SandboxError, Status
from lsp_lightning.sandbox.bubblewrap import BubblewrapSandbox
from lsp_lightning.sandbox.monty import MontySandbox

__all__ = [
    "BubblewrapSandbox",
    "Limits",
    "MontySandbox",
    "Outcome",
    "Program",
    "Sandbox",
    "SandboxError",
    "Status",
]
