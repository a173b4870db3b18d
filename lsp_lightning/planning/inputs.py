"""What a plan reads of a module and its data: the planner imports neither."""

from typing import Any, Protocol

from lsp_lightning.game.queries import Query, QuerySource
from lsp_lightning.generation import RolloutSettings
from lsp_lightning.models.policy import Policy
from lsp_lightning.models.settings import PolicySettings
from lsp_lightning.rewards import Reward
from lsp_lightning.runtime.memory import Budgets
from lsp_lightning.types import Sampling


class PlannedModule(Protocol):
    """A module with nothing loaded."""

    policy: Policy | None
    policy_settings: PolicySettings
    rewards: list[Reward]
    rollouts: RolloutSettings
    budgets: Budgets
    optimizer: Any


class PlannedData(Protocol):
    """The lengths and counts of a round."""

    queries: QuerySource
    num_queries: int
    group_size: int
    solver: Sampling
    solver_prompt: str
    heldout: list[Query]
    heldout_draws: int
    heldout_batch: int
