"""The maths verifier gives each answer of the tables its score."""

import maths_table
import maths_table_notation
import maths_table_prose
import pytest

from lsp_lightning import MathVerifier
from lsp_lightning.rewards import Group

TABLE = maths_table.TABLE + maths_table_notation.TABLE + maths_table_prose.TABLE


@pytest.fixture(scope="module")
def scores(checker):
    """All scores of the tables, from one round."""
    verifier = MathVerifier()
    verifier._checker = checker
    verdicts = verifier.judge([Group("", (answer,), solution) for solution, answer, _ in TABLE])
    return [verdict.scores[0] for verdict in verdicts]


@pytest.mark.parametrize("row", range(len(TABLE)), ids=lambda row: ascii(TABLE[row][:2]))
def test_the_score_of(scores, row):
    assert scores[row] == TABLE[row][2]
