"""Rewards: Lightning callbacks that judge a whole round."""

from lsp_lightning.rewards.base import (
    Reward,
    RewardError,
    Scored,
    check_rewards,
    fill_unjudged,
    in_unit_range,
    is_binary,
    score_all,
)
from lsp_lightning.rewards.preference import PreferenceReward
from lsp_lightning.rewards.self_reward import SelfReward
from lsp_lightning.rewards.verifiable import VerifiableReward, Verifier

__all__ = [
    "PreferenceReward",
    "Reward",
    "RewardError",
    "Scored",
    "SelfReward",
    "VerifiableReward",
    "Verifier",
    "check_rewards",
    "fill_unjudged",
    "in_unit_range",
    "is_binary",
    "score_all",
]
