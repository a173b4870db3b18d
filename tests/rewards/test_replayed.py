"""Rewards for the Challenger know which queries it wrote in the round."""

import math
from dataclasses import replace

import pytest
import torch
from handmade import FixedReward, gated

from lsp_lightning import LengthReward, NoveltyReward, RarityReward
from lsp_lightning.rewards import score_all
from lsp_lightning.tinyworld.verifier import TinyWorldVerifier

ROUND = gated(["max 1 2", "sort 21"], {}, replayed=["max 3 4"])


def observed(reward, *rounds):
    for played in rounds:
        scores = torch.zeros(len(played.playout.query_texts))
        reward.observe(replace(played, components={reward.name: scores}))
    return reward


def test_a_replayed_query_enters_no_memory_a_second_time():
    memory = observed(NoveltyReward(), ROUND).state_dict()["memory"]
    assert memory == ["max 1 2", "sort 21"]
    memory = observed(RarityReward(TinyWorldVerifier()), ROUND).state_dict()["memory"]
    assert len(memory) == 2


def test_a_replayed_query_is_no_near_duplicate_of_the_challenger():
    played = gated(["max 1 2", "sort 21"], {}, replayed=["max 1 2"])
    judged = NoveltyReward().score(played.playout)
    assert judged.metrics["near_duplicates"].tolist() == [0, 0]


@pytest.mark.parametrize("reward", [NoveltyReward(), LengthReward(low=1, high=9, unit="words")])
def test_it_has_no_score_for_the_challenger(reward):
    scores = score_all([FixedReward([[1.0, 0.0]] * 3), reward], ROUND.playout)
    found = scores.components[reward.name].tolist()
    assert found[:2] == [1, 1]
    assert math.isnan(found[2])
    assert scores.challenger_N.isfinite().all()


def test_a_round_of_replayed_queries_alone_is_no_error():
    played = gated(["max 1 2"], {0: "repeated"}, replayed=["sort 21"] * 2).playout
    for reward in (NoveltyReward(), LengthReward(low=1, high=9)):
        scores = score_all([FixedReward([[1.0, 0.0]] * 2), reward], played)
        assert scores.components[reward.name].isnan().all()
        assert scores.challenger_N.tolist() == [0, 0]
