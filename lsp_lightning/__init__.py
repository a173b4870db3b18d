"""Language Self-Play on PyTorch Lightning: data-free RL for language models on one consumer GPU.

One language model plays two roles: the Challenger writes queries that the Solver finds hard, and
the Solver answers them. Names load on first use, so importing the package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Band": "game.objectives",
    "BubblewrapSandbox": "sandbox",
    "Challenger": "game.challenger",
    "CodeVerifier": "rewards.verifiers",
    "ConfigError": "errors",
    "FormReward": "rewards",
    "Frontier": "game.objectives",
    "FrozenPlayer": "game.player",
    "FunctionReward": "rewards",
    "Gate": "game.gate",
    "InstructionVerifier": "rewards.verifiers",
    "JudgeReward": "rewards",
    "Judged": "game.gate",
    "Judgement": "rewards",
    "Learnability": "game.objectives",
    "LengthReward": "rewards",
    "LocalEngine": "generation",
    "LocalJudge": "rewards",
    "LocalRollouts": "generation",
    "Lora": "models.settings",
    "Matches": "game.gate",
    "MathVerifier": "rewards.verifiers",
    "MontySandbox": "sandbox",
    "Novel": "game.gate",
    "NoveltyReward": "rewards",
    "Objective": "game.objectives",
    "Paper": "game.objectives",
    "Player": "game.player",
    "Policy": "models.policy",
    "PastChallenger": "game.past",
    "Pool": "game.pool",
    "PreferenceReward": "rewards",
    "ProgramOutputVerifier": "rewards.verifiers",
    "PromptFile": "game.queries",
    "Query": "game.known_queries",
    "QueryBatch": "game.queries",
    "QueryCheck": "game.gate",
    "QuerySource": "game.queries",
    "RarityReward": "rewards",
    "Reward": "rewards",
    "Sampling": "types",
    "SelfPlayDataModule": "datamodule",
    "SelfPlayModule": "module",
    "SelfReward": "rewards",
    "ServedRollouts": "generation",
    "SpanVerifier": "rewards.verifiers",
    "VerifiableReward": "rewards",
    "Verifier": "rewards",
    "WellFormed": "game.gate",
    "Written": "types",
    "gguf_folder": "models.gguf_folder",
    "play_round": "game.round",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from lsp_lightning.datamodule import SelfPlayDataModule as SelfPlayDataModule
    from lsp_lightning.errors import ConfigError as ConfigError
    from lsp_lightning.game.challenger import Challenger as Challenger
    from lsp_lightning.game.gate import Gate as Gate
    from lsp_lightning.game.gate import Judged as Judged
    from lsp_lightning.game.gate import Matches as Matches
    from lsp_lightning.game.gate import Novel as Novel
    from lsp_lightning.game.gate import QueryCheck as QueryCheck
    from lsp_lightning.game.gate import WellFormed as WellFormed
    from lsp_lightning.game.known_queries import Query as Query
    from lsp_lightning.game.objectives import Band as Band
    from lsp_lightning.game.objectives import Frontier as Frontier
    from lsp_lightning.game.objectives import Learnability as Learnability
    from lsp_lightning.game.objectives import Objective as Objective
    from lsp_lightning.game.objectives import Paper as Paper
    from lsp_lightning.game.past import PastChallenger as PastChallenger
    from lsp_lightning.game.player import FrozenPlayer as FrozenPlayer
    from lsp_lightning.game.player import Player as Player
    from lsp_lightning.game.pool import Pool as Pool
    from lsp_lightning.game.queries import PromptFile as PromptFile
    from lsp_lightning.game.queries import QueryBatch as QueryBatch
    from lsp_lightning.game.queries import QuerySource as QuerySource
    from lsp_lightning.game.round import play_round as play_round
    from lsp_lightning.generation import LocalEngine as LocalEngine
    from lsp_lightning.generation import LocalRollouts as LocalRollouts
    from lsp_lightning.generation import ServedRollouts as ServedRollouts
    from lsp_lightning.models.gguf_folder import gguf_folder as gguf_folder
    from lsp_lightning.models.policy import Policy as Policy
    from lsp_lightning.models.settings import Lora as Lora
    from lsp_lightning.module import SelfPlayModule as SelfPlayModule
    from lsp_lightning.rewards import FormReward as FormReward
    from lsp_lightning.rewards import FunctionReward as FunctionReward
    from lsp_lightning.rewards import Judgement as Judgement
    from lsp_lightning.rewards import JudgeReward as JudgeReward
    from lsp_lightning.rewards import LengthReward as LengthReward
    from lsp_lightning.rewards import LocalJudge as LocalJudge
    from lsp_lightning.rewards import NoveltyReward as NoveltyReward
    from lsp_lightning.rewards import PreferenceReward as PreferenceReward
    from lsp_lightning.rewards import RarityReward as RarityReward
    from lsp_lightning.rewards import Reward as Reward
    from lsp_lightning.rewards import SelfReward as SelfReward
    from lsp_lightning.rewards import VerifiableReward as VerifiableReward
    from lsp_lightning.rewards import Verifier as Verifier
    from lsp_lightning.rewards.verifiers import CodeVerifier as CodeVerifier
    from lsp_lightning.rewards.verifiers import InstructionVerifier as InstructionVerifier
    from lsp_lightning.rewards.verifiers import MathVerifier as MathVerifier
    from lsp_lightning.rewards.verifiers import ProgramOutputVerifier as ProgramOutputVerifier
    from lsp_lightning.rewards.verifiers import SpanVerifier as SpanVerifier
    from lsp_lightning.sandbox import BubblewrapSandbox as BubblewrapSandbox
    from lsp_lightning.sandbox import MontySandbox as MontySandbox
    from lsp_lightning.types import Sampling as Sampling
    from lsp_lightning.types import Written as Written


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
