"""What a run has learned, written for use elsewhere: an adapter, or a model of its own."""

from lsp_lightning.export.facts import run_facts
from lsp_lightning.export.folder import Form, check_target, export_run

__all__ = ["Form", "check_target", "export_run", "run_facts"]
