"""Some parameters of a test for every run; the others are slow."""

from collections.abc import Iterable
from typing import Any

import pytest


def few(count: int, parameters: Iterable[Any]) -> list[Any]:
    """The parameters, all but the first ``count`` marked as slow."""
    return [
        one if place < count else pytest.param(one, marks=pytest.mark.slow)
        for place, one in enumerate(parameters)
    ]
