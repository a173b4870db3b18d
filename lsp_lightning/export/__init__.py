"""What a run has learned, written for use elsewhere: an adapter, or a model of its own."""

from lsp_lightning.export.folder import Form, check_target, export_run
from lsp_lightning.export.record import run_record

__all__ = ["Form", "check_target", "export_run", "run_record"]
