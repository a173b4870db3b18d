"""Verifiers: programs that decide whether answers are right."""

from lsp_lightning.rewards.verifiers.code import CodeVerifier
from lsp_lightning.rewards.verifiers.instructions import InstructionVerifier
from lsp_lightning.rewards.verifiers.maths import MathVerifier
from lsp_lightning.rewards.verifiers.program_output import ProgramOutputVerifier
from lsp_lightning.rewards.verifiers.span import SpanVerifier

__all__ = [
    "CodeVerifier",
    "InstructionVerifier",
    "MathVerifier",
    "ProgramOutputVerifier",
    "SpanVerifier",
]
