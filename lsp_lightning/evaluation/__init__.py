"""Judging a policy against fixed tasks."""

from lsp_lightning.evaluation.heldout import HeldOutScore, score_tasks

__all__ = ["HeldOutScore", "score_tasks"]
