"""What a source of your own returns is checked before anything is answered."""

import pytest
import torch
from handmade import rollouts

from lsp_lightning import ConfigError, QueryBatch, QuerySource, Written, play_round

TEXTS = ("1+1=?", "1+2=?")


def written(valid=(True, True), answered=(0, 1), baseline=(0, 0)):
    return Written(rollouts(TEXTS), *(torch.tensor(x) for x in (valid, answered, baseline)))


class Returns(QuerySource):
    """Returns what it is told to."""

    selfplay = True

    def __init__(self, batch):
        self.batch = batch

    def draw(self, player, num_queries, index, seed):
        return self.batch


@pytest.mark.parametrize(
    ("batch", "problem"),
    [
        (list(TEXTS), "a list; return a QueryBatch"),
        (QueryBatch(TEXTS[:1]), r"1 texts; return 2 \(num_queries\)"),
        (QueryBatch(()), r"0 texts; return 2 \(num_queries\)"),
        (QueryBatch("12"), "texts that are not a tuple of str; "),
        (QueryBatch((1, 2)), "texts that are not a tuple of str; "),
        (QueryBatch(None), "texts that are not a tuple of str; "),
        (QueryBatch(("1", "\ud83d")), "a text with half of a surrogate pair; decode it with "),
        (QueryBatch(TEXTS, solutions=("2",)), r"1 solutions; return 2 \(num_queries\)"),
        (QueryBatch(TEXTS, solutions=("2", "3", "4")), r"3 solutions; return 2 "),
        (QueryBatch(TEXTS, written(answered=(0,))), r"a written\.answered_C that does not fit; "),
        (QueryBatch(TEXTS, written(baseline=(0,))), r"a written\.baseline_C that does not fit; "),
        (QueryBatch(TEXTS, written(valid=(1.0, 1.0))), r"a written\.valid_C of numbers; "),
        (QueryBatch(TEXTS, written(answered=(0, 2))), r"a written\.answered_C beyond the last "),
        (QueryBatch(TEXTS, written(answered=(1, 1))), r"a query twice in written\.answered_C; "),
    ],
)
def test_a_source_that_returns_something_else_is_one_line(batch, problem):
    with pytest.raises(ConfigError, match=rf"^data\.queries: draw of Returns returned {problem}"):
        play_round(None, Returns(batch), [], num_queries=2)


def test_a_source_that_writes_says_so():
    source = Returns(QueryBatch(TEXTS, written()))
    source.selfplay = False
    with pytest.raises(ConfigError, match=r"written rows without selfplay; set selfplay = True"):
        play_round(None, source, [], num_queries=2)
