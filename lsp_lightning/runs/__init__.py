"""The folder of a run: the names of its files, reading them, and writing them safely."""

from lsp_lightning.runs.folder import RunFolder

__all__ = ["RunFolder"]
