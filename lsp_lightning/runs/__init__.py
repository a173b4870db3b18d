"""Reading the folder that a run writes."""

from lsp_lightning.runs.folder import RunFolder

__all__ = ["RunFolder"]
