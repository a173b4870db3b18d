"""One maths worker for all tests, because it takes a second to start."""

import pytest

from lsp_lightning.checks.maths import MathChecker


@pytest.fixture(scope="session")
def checker():
    """A checker with one worker and a time limit of five seconds."""
    checker = MathChecker(processes=1, seconds=5.0)
    yield checker
    checker.close()
