"""Sandboxes: run Python that a model wrote, in isolation, and return plain values only."""

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
