"""Queries that earlier rounds have had are counted, near copies and equal ones."""

import json
import math

import pytest
from handmade import gated, playout

from lsp_lightning.training import seen_queries
from lsp_lightning.training.seen_queries import SeenQueries

NEAR, EXACT = "queries/seen", "queries/seen_exact"
#: One letter of ten is another: .9 similar.
TEN, NEAR_TEN = "abcdefghij", "abcdefghiX"


def test_a_round_is_compared_with_earlier_rounds_and_not_with_itself():
    seen = SeenQueries()
    assert seen.measure_texts([TEN, TEN, "other"]) == {NEAR: 0.0, EXACT: 0.0}
    # a near copy, the same in another case, something new, and a word for word copy
    found = seen.measure_texts([NEAR_TEN, "ABCDEFGHIJ ", "vwxyz", "other"])
    assert found == {NEAR: pytest.approx(3 / 4), EXACT: pytest.approx(2 / 4)}
    assert seen.measure_texts([NEAR_TEN]) == {NEAR: 1.0, EXACT: 1.0}


def test_without_queries_there_is_no_number():
    assert all(map(math.isnan, SeenQueries().measure_texts([]).values()))


def test_what_the_gate_refused_counts_and_what_was_replayed_does_not():
    seen = SeenQueries()
    seen.measure_texts(["refused", "replayed"])
    played = gated(["new", "refused"], {1: "repeated"}, replayed=["replayed"])
    assert seen.measure(played.playout)[EXACT] == pytest.approx(1 / 2)


def test_queries_of_a_file_are_all_counted():
    seen, game = SeenQueries(), playout(["a", "b"], [["x"]] * 2, from_file=True)
    assert seen.measure(game)[EXACT] == 0
    assert seen.measure(game)[EXACT] == 1


def test_only_the_newest_are_remembered(monkeypatch):
    monkeypatch.setattr(seen_queries, "_REMEMBERED", 2)
    seen = SeenQueries()
    for text in ("one word", "two words", "three of them"):
        seen.measure_texts([text])
    assert seen.measure_texts(["three of them", "one word"])[EXACT] == pytest.approx(1 / 2)


def test_a_resumed_memory_goes_on():
    seen = SeenQueries()
    seen.measure_texts([TEN])
    resumed = SeenQueries()
    resumed.load_state_dict(json.loads(json.dumps(seen.state_dict())))
    assert resumed.measure_texts([TEN, "new one"]) == seen.measure_texts([TEN, "new one"])
    fresh = SeenQueries()
    fresh.load_state_dict({})  # a checkpoint of an earlier version
    assert fresh.measure_texts([TEN])[EXACT] == 0
