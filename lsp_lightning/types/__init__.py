"""The types of the game.

The suffix of a tensor's name is its shape. The axes are:

====  =======================================================
N     queries of a round
G     answers to each query
R     completions of a round: the C queries that were written, then the N*G answers
n     completions of one batch of rollouts
B, S  rows and positions of a packed micro-batch
C     rows that the Challenger wrote (C = N without a gate and a pool)
K, T  completions of a micro-batch and their tokens
P     prompt tokens
V     vocabulary
====  =======================================================

Rows are query-major: answer ``j`` of query ``i`` is row ``i * G + j``. "Prompt" and "completion"
are tokens; "query" and "answer" are the game's text.
"""

from lsp_lightning.types.batches import AttentionPattern, TrainBatch
from lsp_lightning.types.completions import Completions, Role, Rollouts, Sampling
from lsp_lightning.types.game import (
    Playout,
    Reference,
    Refused,
    SelfPlayRound,
    Written,
)

__all__ = [
    "AttentionPattern",
    "Completions",
    "Playout",
    "Reference",
    "Refused",
    "Role",
    "Rollouts",
    "Sampling",
    "SelfPlayRound",
    "TrainBatch",
    "Written",
]
