"""Which queries a page shows, and what becomes of their texts."""

import json
import random

import pytest
from few import few
from report_runs import answers

from lsp_lightning.reporting.page import in_script, page
from lsp_lightning.reporting.queries import Transcript, sampled
from lsp_lightning.reporting.reading import Run
from lsp_lightning.reporting.texts import figure, shown
from lsp_lightning.runs.transcripts import by_query


def rounds_of(count, queries=2, size=4):
    rows = [
        {**row, "number": n}
        for t in range(count)
        for n in range(queries)
        for row in answers(t, texts=["x"] * size)
    ]
    return list(by_query(rows))


@pytest.mark.parametrize("most", [50, 100, 401])
def test_a_sample_has_whole_groups_evenly_over_the_rounds_and_both_ends(most):
    groups = rounds_of(60)
    kept = sampled(groups, most)
    assert all(group in groups for group in kept)
    assert most <= sum(map(len, kept)) <= most + 4
    rounds = [group[0]["round"] for group in kept]
    assert rounds == sorted(rounds)
    assert rounds.count(0) == rounds.count(59) == 2
    halves = [sum(low <= t < low + 29 for t in rounds) for low in (1, 30)]
    assert abs(halves[0] - halves[1]) <= 1
    assert kept == sampled(groups, most)


def test_a_sample_prefers_neither_refused_queries_nor_the_first_of_a_round():
    # in each round one query with four answers, and four refused queries with one row each
    refused = {"answer": None, "refused": "repeated"}
    rows = [
        row
        for t in range(402)
        for row in [*answers(t), *({**answers(t)[0], **refused, "query": str(i)} for i in range(4))]
    ]
    kept = sampled(list(by_query(rows)), 1000)
    between = [group for group in kept if 0 < group[0]["round"] < 401]
    answered = sum(len(group) == 4 for group in between) / len(between)
    assert answered == pytest.approx(1 / 5, abs=0.06)  # 400 groups, of which a fifth is answered
    assert len({group[0]["query"] for group in between if len(group) == 1}) == 4


def test_two_rounds_that_are_too_many_share_what_there_is():
    kept = sampled(rounds_of(2, queries=100), 80)
    assert [sum(g[0]["round"] == t for g in kept) for t in (0, 1)] == [10, 10]
    assert len(sampled(rounds_of(3, queries=1, size=50), 4)) == 2  # one query is the least


def test_all_are_kept_if_they_fit_or_no_limit_is_given():
    rows = [row for group in rounds_of(3) for row in group]
    for most in (0, 24):
        transcript = Transcript.of(rows, most)
        assert (transcript.shown, transcript.total) == (24, 24)


def test_marks_findings_and_scores_of_a_query():
    refused = {**answers(0)[0], "answer": None, "refused": "repeated", "number": None}
    rows = [
        *answers(0, "q", **{"query/verifiable/malformed": True}, valid=False, replayed=True),
        refused,
        *answers(1, passage="p", admitted=False, judged_answer="j"),
    ]
    first, second, third = Transcript.of(rows, 0).as_json(100)["groups"]
    assert first["m"] == ["invalid", "malformed", "replayed"]
    assert first["f"] == {"verifiable/family": "sums"}
    assert first["v"] == 0.25
    assert first["a"][0] == ["a", "malformed", 1.0, None, 1.0]
    assert (second["m"], second["a"], second["v"]) == (["refused: repeated"], [], None)
    assert third["m"] == ["not admitted"]
    assert third["f"]["passage"] == "p"
    assert third["a"][1] == ["b", "wrong", 0.0, None, 0.0, "j"]


def test_texts_are_cut_and_what_is_invisible_is_spelled_out():
    assert shown("a\nb\tc", 100) == "a\nb    c"
    assert shown("\u202e\x00\u200b\ud800", 100) == "\\u202e\\x00\\u200b\\ud800"
    assert shown("x" * 1_000_000, 10) == "xxxxxxxxxx ... (999,990 more)"
    assert len(shown("\u202e" * 500, 100)) < 130


def test_json_in_a_script_element_cannot_end_it_and_reads_back():
    text = "</script><script>alert(1)</script><!-- & \u2028\u2029 \u00e9"
    encoded = in_script({"q": text})
    assert not set("<>&\u2028\u2029") & set(encoded)
    assert json.loads(encoded) == {"q": text}
    with pytest.raises(ValueError, match="JSON compliant"):
        in_script(float("nan"))


@pytest.mark.parametrize("text", few(1, ["\u4e2d" * 2000, "<" * 2000, "\u202e" * 2000]))
def test_the_texts_of_the_default_number_of_answers_always_fit(text):
    rows = [row for t in range(30) for row in answers(t, text, [text] * 400)]
    page_of = page([Run("run", rows=rows)])
    assert len(page_of.encode()) < 15_000_000
    assert "Texts are cut after" in page_of


def test_numbers_are_short():
    values = [None, float("inf"), 0, 0.0004, 0.123, -0.5, 12.34, 1234.5]
    assert list(map(figure, values)) == [
        "-",
        "-",
        "0.00",
        "0.0004",
        "0.12",
        "-0.50",
        "12.3",
        "1,234",
    ]


def test_the_shuffle_of_a_round_leaves_the_global_generator_alone():
    before = random.getstate()
    sampled(rounds_of(20), 30)
    assert random.getstate() == before
