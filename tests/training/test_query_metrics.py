"""What is logged about queries is about what the Challenger wrote in the round."""

from dataclasses import replace

import pytest
import torch
from handmade import gated, scored_round

from lsp_lightning import Paper
from lsp_lightning.training.gradient import UpdateStats
from lsp_lightning.training.metrics import round_metrics
from lsp_lightning.training.query_metrics import query_metrics, refusals
from lsp_lightning.types import Role

TEXTS = ["ab", "ab", "xy", "not text"]
REFUSED = {1: "repeated", 3: "invalid"}
VALID = [True, True, True, False]


def round_(refused=None, **more):
    """Four written queries, two of them played, and a replayed one."""
    refused = REFUSED if refused is None else refused
    return gated(TEXTS, refused, valid=VALID, replayed=["replayed text"], **more)


def means(played):
    return {
        name: float(torch.as_tensor(value).mean()) for name, value in query_metrics(played).items()
    }


def test_refused_queries_count_and_replayed_ones_do_not():
    found = means(round_())
    assert found["queries/invalid"] == pytest.approx(1 / 4)
    assert found["queries/duplicate"] == pytest.approx(1 / 4)  # ab is written twice
    assert found["queries/characters"] == pytest.approx((2 + 2 + 2 + 8) / 4)
    # ab, ab, xy, (not text): three different pairs of four
    assert found["queries/distinct_2"] == pytest.approx(3 / 4)
    # of six pairs, ab and ab are equal, and xy and "not text" share the x: 8 of 10 letters go
    assert found["queries/similarity"] == pytest.approx((1 + 0.2) / 6)
    assert found["gate/passed"] == pytest.approx(2 / 4)
    assert found["gate/repeated"] == found["gate/invalid"] == pytest.approx(1 / 4)
    assert (found["gate/drawn"], found["gate/played"]) == (4, 3)


def test_copies_of_examples_are_counted_where_examples_are_shown():
    assert "queries/near_example" not in means(round_())
    # both ab, of the four that were written; the replayed query is a copy too, but not written
    found = means(round_(examples=("AB", "replayed text")))
    assert found["queries/near_example"] == pytest.approx(2 / 4)


def test_a_round_in_which_everything_was_refused_and_only_the_pool_played():
    found = means(round_(dict.fromkeys(range(4), "malformed")))
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
    written = gated(list("xyzwv"), {0: "b", 1: "a", 2: "a", 3: "c"}).playout.written
    assert list(refusals(written).items()) == [("a", 2), ("b", 1), ("c", 1)]


def test_the_challengers_rewards_count_for_what_it_wrote():
    # 1 and 0 for the written queries; whatever the replayed one has
    played = round_()
    components = {"novelty": torch.tensor([1.0, 0.0, 0.5])}
    rows = len(TEXTS) + 2 * 3
    stats = UpdateStats(
        0.0,
        torch.zeros(rows),
        torch.zeros(rows),
        {Role.CHALLENGER: slice(0, 4), Role.SOLVER: slice(4, rows)},
    )
    played = replace(played, components=components)
    found = round_metrics(
        played, Paper().advantages(played), stats, torch.tensor(1.0), {"answers": 1.0}
    )
    assert found["reward/novelty"].tolist() == [1, 0]
    assert found["unjudged/novelty"].tolist() == [0, 0]
