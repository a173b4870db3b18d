"""Rewards: Lightning callbacks that score the answers of a whole round."""

from lsp_lightning.rewards.base import Judgement, LoadedModel, Reward, RewardError
from lsp_lightning.rewards.function import FunctionReward
from lsp_lightning.rewards.judge.local import LocalJudge
from lsp_lightning.rewards.judge.reward import JudgeReward
from lsp_lightning.rewards.length import LengthReward
from lsp_lightning.rewards.limits import require_limits
from lsp_lightning.rewards.preference import PreferenceReward
from lsp_lightning.rewards.query_rewards import FormReward, NoveltyReward
from lsp_lightning.rewards.rarity import RarityReward
from lsp_lightning.rewards.scoring import (
    Scored,
    check_rewards,
    fill_unjudged,
    in_unit_range,
    is_binary,
    judge_playout,
    require_unit_range,
    score_all,
    span_of_R,
    unjudged,
)
from lsp_lightning.rewards.self_reward import SelfReward
from lsp_lightning.rewards.verdict import Group, Verdict
from lsp_lightning.rewards.verifiable import RoundVerifier, VerifiableReward, Verifier

__all__ = [
    "FormReward",
    "FunctionReward",
    "Group",
    "JudgeReward",
    "Judgement",
    "LengthReward",
    "LoadedModel",
    "LocalJudge",
    "NoveltyReward",
    "PreferenceReward",
    "RarityReward",
    "Reward",
    "RewardError",
    "RoundVerifier",
    "Scored",
    "SelfReward",
    "Verdict",
    "VerifiableReward",
    "Verifier",
    "check_rewards",
    "fill_unjudged",
    "in_unit_range",
    "is_binary",
    "judge_playout",
    "require_limits",
    "require_unit_range",
    "score_all",
    "span_of_R",
    "unjudged",
]
