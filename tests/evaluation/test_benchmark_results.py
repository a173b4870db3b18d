"""Benchmark scores: paired by task, with intervals, as a JSON document."""

import json
import math

import pytest
import torch

from lsp_lightning import ConfigError
from lsp_lightning.evaluation.benchmarks import (
    BenchmarkScore,
    Estimate,
    benchmark_evaluation,
    is_benchmark,
    load_benchmarks,
)

NAN = float("nan")


def test_the_difference_is_that_of_the_same_tasks():
    # 4 tasks are solved by both, 4 by the policy alone: unpaired errors would be larger
    before_T = torch.tensor([1.0] * 4 + [0.0] * 4)
    score = BenchmarkScore.paired("b", "acc", before_T, torch.ones(8))
    assert (score.n, score.before.value, score.after.value) == (8, 0.5, 1.0)
    assert score.difference.value == 0.5
    # differences are 0 or 1, half each: std with n - 1 is sqrt(8 / 4 / 7), over sqrt(8)
    assert score.difference.error == pytest.approx(math.sqrt(2 / 7) / math.sqrt(8))
    assert 0 < score.difference.low < 0.5 < score.difference.high < 1


def test_a_task_that_one_side_could_not_be_judged_at_is_left_out_on_both():
    score = BenchmarkScore.paired(
        "b", "acc", torch.tensor([1.0, NAN, 0.0]), torch.tensor([0.0, 1.0, NAN])
    )
    assert (score.n, score.before.value, score.after.value) == (1, 1.0, 0.0)


def test_intervals_of_shares_stay_between_0_and_1_and_have_a_width():
    estimate = Estimate.mean(torch.zeros(20))
    assert (estimate.value, estimate.low) == (0.0, 0.0)
    assert 0.05 < estimate.high < 0.2


def test_other_scores_get_the_normal_interval():
    estimate = Estimate.mean(torch.tensor([10.0, 20.0, 30.0]))
    assert estimate.error == pytest.approx(10 / math.sqrt(3))
    assert estimate.high - estimate.value == pytest.approx(1.959964 * 10 / math.sqrt(3))
    change = Estimate.change(torch.tensor([10.0, 20.0]), torch.tensor([10.5, 20.7]))
    assert change.value == pytest.approx(0.6)


def test_the_document_is_plain_json_also_where_errors_are_unknown():
    known = BenchmarkScore.paired("b", "acc", torch.zeros(3), torch.ones(3))
    unknown = BenchmarkScore(
        "p", "perplexity", 3, Estimate.normal(9.0, NAN), Estimate.normal(8.0, NAN), None, False
    )
    document = benchmark_evaluation([known, unknown]).document("now", 7, {"limit": 3})
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert document["kind"] == "benchmark"
    kept = [BenchmarkScore.of_plain(score) for score in document["results"]["scores"]]
    assert [score.plain() for score in kept] == document["results"]["scores"]
    assert document["table"]["rows"][1] == [
        "p",
        "perplexity (lower is better)",
        "3",
        "9.000",
        "8.000",
        "-",
    ]
    assert document["results"]["scores"][1]["before"] == {
        "value": 9.0,
        "error": None,
        "low": None,
        "high": None,
    }
    assert all(len(row) == len(document["table"]["columns"]) for row in document["table"]["rows"])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gsm8k", True),
        ("longproc_countdown_0.5k", True),
        ("folder/task.yaml", True),
        ("tasks.jsonl", False),
        ("folder/tasks", False),
        ("pkg:lsp_lightning/data/prompts.jsonl", False),
    ],
)
def test_names_are_told_from_files(name, expected):
    assert is_benchmark(name) is expected


def test_a_limit_of_0_and_no_names_are_refused_in_one_line():
    with pytest.raises(ConfigError, match="limit: is 0"):
        load_benchmarks(["humaneval"], limit=0)
    with pytest.raises(ConfigError, match="tasks: names no benchmark"):
        load_benchmarks([])
