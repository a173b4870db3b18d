"""Language Self-Play on PyTorch Lightning: data-free RL for language models on one consumer GPU.

One language model plays Challenger (writes queries that the Solver does badly at) and Solver
(answers them). Names load when they are first used, so that importing the package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "BubblewrapSandbox": "sandbox",
    "Challenger": "game.queries",
    "CodeVerifier": "rewards.verifiers",
    "ConfigError": "errors",
    "FormReward": "rewards",
    "FrozenPlayer": "game.player",
    "FunctionReward": "rewards",
    "InstructionVerifier": "rewards.verifiers",
    "JudgeReward": "rewards",
    "LengthReward": "rewards",
    "LocalEngine": "generation",
    "LocalRollouts": "generation",
    "Lora": "models.settings",
    "MathVerifier": "rewards.verifiers",
    "MontySandbox": "sandbox",
    "NoveltyReward": "rewards",
    "PayoffSettings": "game.payoffs",
    "Player": "game.player",
    "Policy": "models.policy",
    "PreferenceReward": "rewards",
    "ProgramOutputVerifier": "rewards.verifiers",
    "PromptFile": "game.queries",
    "Reward": "rewards",
    "Sampling": "types",
    "SelfPlayDataModule": "datamodule",
    "SelfPlayModule": "module",
    "SelfReward": "rewards",
    "ServedRollouts": "generation",
    "VerifiableReward": "rewards",
    "Verifier": "rewards",
    "play_round": "game.round",
    "round_advantages": "game.payoffs",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from lsp_lightning.datamodule import SelfPlayDataModule as SelfPlayDataModule
    from lsp_lightning.errors import ConfigError as ConfigError
    from lsp_lightning.game.payoffs import PayoffSettings as PayoffSettings
    from lsp_lightning.game.payoffs import round_advantages as round_advantages
    from lsp_lightning.game.player import FrozenPlayer as FrozenPlayer
    from lsp_lightning.game.player import Player as Player
    from lsp_lightning.game.queries import Challenger as Challenger
    from lsp_lightning.game.queries import PromptFile as PromptFile
    from lsp_lightning.game.round import play_round as play_round
    from lsp_lightning.generation import LocalEngine as LocalEngine
    from lsp_lightning.generation import LocalRollouts as LocalRollouts
    from lsp_lightning.generation import ServedRollouts as ServedRollouts
    from lsp_lightning.models.policy import Policy as Policy
    from lsp_lightning.models.settings import Lora as Lora
    from lsp_lightning.module import SelfPlayModule as SelfPlayModule
    from lsp_lightning.rewards import FormReward as FormReward
    from lsp_lightning.rewards import FunctionReward as FunctionReward
    from lsp_lightning.rewards import JudgeReward as JudgeReward
    from lsp_lightning.rewards import LengthReward as LengthReward
    from lsp_lightning.rewards import NoveltyReward as NoveltyReward
    from lsp_lightning.rewards import PreferenceReward as PreferenceReward
    from lsp_lightning.rewards import Reward as Reward
    from lsp_lightning.rewards import SelfReward as SelfReward
    from lsp_lightning.rewards import VerifiableReward as VerifiableReward
    from lsp_lightning.rewards import Verifier as Verifier
    from lsp_lightning.rewards.verifiers import CodeVerifier as CodeVerifier
    from lsp_lightning.rewards.verifiers import InstructionVerifier as InstructionVerifier
    from lsp_lightning.rewards.verifiers import MathVerifier as MathVerifier
    from lsp_lightning.rewards.verifiers import ProgramOutputVerifier as ProgramOutputVerifier
    from lsp_lightning.sandbox import BubblewrapSandbox as BubblewrapSandbox
    from lsp_lightning.sandbox import MontySandbox as MontySandbox
    from lsp_lightning.types import Sampling as Sampling


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
