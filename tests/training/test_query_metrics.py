"""What is logged about queries is about what the Challenger wrote in the round."""

from dataclasses import replace

import pytest
import torch
from handmade import playout, rollouts, scored_round

from lsp_lightning.training.query_metrics import query_metrics, refusals
from lsp_lightning.types import Refused, Written


def gated(refused=None, answered=(0, -1, 1, -1), replayed=("replayed text",), **playout_):
    """Four written rows, two of them played, and a replayed query."""
    written_texts = ["ab", "ab", "xy", "not text"]
    played_texts = [written_texts[answered.index(i)] for i in range(max(answered) + 1)]
    queries = [*played_texts, *replayed]
    made = playout(queries, [["a", "b"]] * len(queries))
    written = Written(
        rollouts(written_texts),
        torch.tensor([True, True, True, False]),
        torch.tensor(answered),
        torch.zeros(4, dtype=torch.long),
        {1: Refused("ab", "repeated"), 3: Refused("not text", "invalid")}
        if refused is None
        else refused,
    )
    n = len(queries)
    played = scored_round([[1.0, 0.0]] * n)
    return replace(
        played,
        playout=replace(made, written=written, **playout_),
        admitted_N=torch.ones(n, dtype=torch.bool),
    )


def means(played):
    return {
        name: float(torch.as_tensor(value).mean()) for name, value in query_metrics(played).items()
    }


def test_refused_queries_count_and_replayed_ones_do_not():
    found = means(gated())
    assert found["queries/invalid"] == pytest.approx(1 / 4)
    assert found["queries/duplicate"] == pytest.approx(1 / 4)  # ab is written twice
    assert found["queries/characters"] == pytest.approx((2 + 2 + 2 + 8) / 4)
    # ab, ab, xy, (not text): three different pairs of four
    assert found["queries/distinct_2"] == pytest.approx(3 / 4)
    # of six pairs, ab and ab are equal, and xy and "not text" share the x: 8 of 10 letters go
    assert found["queries/similarity"] == pytest.approx((1 + 0.2) / 6)
    assert found["gate/passed"] == pytest.approx(2 / 4)
    assert found["gate/repeated"] == found["gate/invalid"] == pytest.approx(1 / 4)
    assert (found["gate/drawn"], found["gate/played"], found["gate/replayed"]) == (4, 3, 1)


def test_copies_of_examples_are_counted_where_examples_are_shown():
    assert "queries/near_example" not in means(gated())
    # both ab, of the four that were written; the replayed query is a copy too, but not written
    found = means(gated(examples=("AB", "replayed text")))
    assert found["queries/near_example"] == pytest.approx(2 / 4)


def test_a_round_in_which_everything_was_refused_and_only_the_pool_played():
    every = {i: Refused(text, "malformed") for i, text in enumerate(["ab", "ab", "xy", "not text"])}
    found = means(gated(every, (-1,) * 4))
    assert found["gate/passed"] == 0
    assert found["queries/duplicate"] == pytest.approx(1 / 4)
    assert found["gate/malformed"] == 1


def test_queries_of_a_file_are_looked_at_as_they_are():
    found = means(scored_round([[1.0, 0.0]] * 2, from_file=True))
    # query 0 and query 1: two different pairs; one of seven characters is another
    assert found["queries/distinct_2"] == 1
    assert found["queries/similarity"] == pytest.approx(1 - 2 / 14)
    assert found["queries/invalid"] == 0
    assert not [name for name in found if name.startswith("gate/")]


def test_the_most_frequent_reason_comes_first():
    reasons = ["b", "a", "a", "c"]
    refused = {i: Refused("x", reason) for i, reason in enumerate(reasons)}
    written = gated(refused).playout.written
    assert refusals(written) == {"a": 2, "b": 1, "c": 1}
    assert next(iter(refusals(written))) == "a"
