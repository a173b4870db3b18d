"""A person sees the game: a query with its best and its worst answer, harmless and short."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from handmade import playout, scored_round

from lsp_lightning import ConfigError
from lsp_lightning.callbacks import Examples
from lsp_lightning.callbacks.examples import example_lines
from lsp_lightning.text.terminal import columns

ROUND = scored_round(
    [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0]], quality=[[0.5, 0.5, 0.6], [0.25, 0.5, 0.75]]
)


def told(played, queries, answers, **kwargs):
    return replace(played, playout=playout(queries, answers, **kwargs))


def test_it_is_the_query_whose_answers_differ_most():
    assert list(example_lines(ROUND, 79)) == [
        "  query  query 1",
        "  best   R 1.00  Q 0.50  answer 1 1",
        "  worst  R 0.00  Q 0.25  answer 1 0",
    ]


def test_more_queries_are_spread_from_the_largest_difference_to_the_least():
    played = scored_round([[0.0, 0.2], [0.0, 0.9], [0.5, 0.5], [0.0, 0.4], [0.0, 0.1]])
    played = replace(played, query_info={"r/malformed": (False, False, True, False, False)})
    shown = [line.strip() for line in example_lines(played, 79, 3) if "query" in line]
    # by difference: 1 (.9), 3 (.4), 0 (.2), 4 (.1), 2 (none)
    assert shown == ["query  query 1", "query  query 0", "query (malformed)  query 2"]
    assert sum("query  " in line for line in example_lines(scored_round([[1.0, 0.0]]), 79, 3)) == 1


def test_without_a_quality_score_or_without_a_difference():
    lines = list(example_lines(scored_round([[1.0, 1.0]]), 79))
    assert lines[1:] == ["  best   R 1.00  answer 0 0", "  worst  R 1.00  answer 0 1"]


def test_the_passage_of_a_query_stands_once_above_it_in_one_line():
    played = scored_round([[0.0, 0.9], [0.0, 0.5], [0.0, 0.1]])
    long = "Sugar is\x1b sweet.\nSalt is not. " + "And so on. " * 20
    made = replace(played.playout, passages=(long, long, "Short."))
    lines = list(example_lines(replace(played, playout=made), 60, 3))
    assert [line.strip() for line in lines if "worst" not in line and "best" not in line] == [
        "passage  Sugar is\\x1b sweet.\u23ceSalt is not. And so on....",
        "query  query 0",
        "query  query 1",
        "passage  Short.",
        "query  query 2",
    ]


@pytest.mark.parametrize("judged", [[[False, False]], [[True, False]]])
def test_what_was_not_judged_has_no_score(judged):
    lines = list(example_lines(scored_round([[0.0, 0.0]], judged=judged), 79))
    assert lines[2] == "  worst  not judged  answer 0 1"


@pytest.mark.parametrize("width", [39, 79, 119])
def test_hostile_and_long_texts_are_a_few_harmless_lines(width):
    texts = [
        "\x1b[2J\u202e" + "word " * 500,
        "\n\n\u4e2d" * 900,
        "a" + "\u0301" * 999,
        "\u200b" * 99,
    ]
    for query in texts:
        for text in texts:
            played = told(scored_round([[1.0, 0.0]]), [query], [[text, text]], valid=[False])
            lines = list(example_lines(played, width))
            assert len(lines) <= 6
            assert all(columns(line) <= width for line in lines)
            assert all(line.isprintable() for line in lines)
            assert lines[0].startswith("  query (invalid)  ")


def test_a_thought_is_left_out_unless_it_is_all_there_is():
    answers = [["<think>hmm</think>5", "<think>hmm"]]
    lines = list(example_lines(told(scored_round([[1.0, 0.0]]), ["q"], answers), 79))
    assert lines[1:] == ["  best   R 1.00  5", "  worst  R 0.00  <think>hmm"]


@pytest.mark.parametrize(("every", "rounds"), [(0, []), (1, [0, 1, 2, 3]), (3, [0, 2])])
def test_examples_come_in_the_first_and_every_nth_round(every, rounds, capfd):
    trainer = SimpleNamespace(is_global_zero=True)
    shown = []
    for index in range(4):
        played = replace(ROUND, index=index)
        Examples(every).on_train_batch_end(trainer, None, None, played, index)
        if capfd.readouterr().err:
            shown.append(index)
    assert shown == rounds


def test_a_negative_number_is_refused():
    with pytest.raises(ConfigError, match=r"examples\.every: is -1"):
        Examples(-1)
