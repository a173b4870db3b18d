"""One pool of maths workers for all tests: they take a second to come up."""

import pytest

from lsp_lightning.checks.maths import MathChecker


@pytest.fixture(scope="session")
def checker():
    """A checker with one worker and five seconds for a comparison."""
    checker = MathChecker(processes=1, seconds=5.0)
    yield checker
    checker.close()
