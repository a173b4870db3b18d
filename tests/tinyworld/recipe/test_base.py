"""The shipped base loads like any model, knows most answers, and often answers carelessly."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lsp_lightning.tinyworld import BASE_DIR, DATA_DIR
from lsp_lightning.tinyworld.recipe.measure import (
    challenger_summary,
    expected_scores,
    judge_summary,
    load_tasks,
    replies,
    solver_marks,
    solver_table,
)


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(BASE_DIR)


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(BASE_DIR).eval()


@pytest.fixture(scope="module")
def tasks():
    return load_tasks(DATA_DIR / "dev.jsonl")[::4]


def test_no_sampling_settings_are_shipped(model):
    settings = model.generation_config.to_diff_dict()
    settings.pop("transformers_version", None)
    assert settings == {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def test_greedy_answers_are_better_than_sampled_ones(model, tokenizer, tasks):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sampled, greedy = solver_marks(model, tokenizer, tasks, samples=2)
    assert sampled.shape == (len(tasks), 2)
    assert greedy.float().mean() > 0.75
    assert 0.35 < sampled.float().mean() < 0.65


def test_the_judge_scores_malformed_queries_low_and_prefers_right_answers(model, tokenizer, tasks):
    summary = judge_summary(model, tokenizer, tasks)
    assert summary["malformed"] < 0.15
    assert summary["right"] > summary["wrong"] > summary["idk"] > summary["malformed"]


def test_expected_scores_do_not_depend_on_the_padding(model, tokenizer):
    pairs = [("7+5=?", "12"), ("a=3;b=a+4;c=b-1;print(c+2)", "8")]
    together = expected_scores(model, tokenizer, pairs)
    alone = torch.cat([expected_scores(model, tokenizer, [pair]) for pair in pairs])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_the_judge_writes_scores_in_tags(model, tokenizer):
    [text] = replies(model, tokenizer, ["<|judge|>7+5=?<|answer|>12"], 10, sample=False)
    assert text.endswith("</Score>")


def test_the_challenger_writes_mostly_well_formed_queries(model, tokenizer):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        summary = challenger_summary(model, tokenizer, count=128)
    assert summary["malformed"] < 0.35
    assert set(summary["levels"]) == {1, 2, 3}


def test_solver_table_has_a_line_for_each_cell(model, tokenizer, tasks):
    lines = solver_table(model, tokenizer, tasks[:3]).splitlines()
    # two lines of heading, then at least one cell, its family, its level, all
    assert len(lines) >= 6
    assert lines[-1].startswith("| all | 3 |")
