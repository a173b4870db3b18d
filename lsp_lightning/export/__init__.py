"""Exporting a trained policy: as an adapter or as a whole model."""

from lsp_lightning.export.folder import Form, check_target, export_run
from lsp_lightning.export.record import run_record

__all__ = ["Form", "check_target", "export_run", "run_record"]
