"""In a notebook, an object of another kind is refused at once."""

import re

import pytest

from lsp_lightning import (
    ConfigError,
    Paper,
    SelfPlayDataModule,
    SelfPlayModule,
    VerifiableReward,
)
from lsp_lightning.tinyworld.verifier import TinyWorldVerifier


@pytest.mark.parametrize("objective", ["Paper", Paper])
def test_an_objective_is_an_instance(objective):
    line = re.escape(f"model.objective: is {objective!r}; pass an Objective, such as Paper()")
    with pytest.raises(ConfigError, match=f"^{line}$"):
        SelfPlayModule("anywhere", [VerifiableReward(TinyWorldVerifier())], objective=objective)


@pytest.mark.parametrize("queries", ["1+1=?", ["1+1=?"]])
def test_queries_come_from_a_source(queries):
    line = re.escape(f"data.queries: is {queries!r}; pass a QuerySource, such as Challenger()")
    with pytest.raises(ConfigError, match=f"^{line}$"):
        SelfPlayDataModule(queries=queries)
