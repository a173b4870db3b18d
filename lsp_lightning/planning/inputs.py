"""What a plan reads from the module and the data; the planner imports neither."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import torch

from lsp_lightning.game.gate import Gate
from lsp_lightning.game.known_queries import Query
from lsp_lightning.game.queries import QuerySource
from lsp_lightning.generation import RolloutSettings
from lsp_lightning.models.policy import Policy
from lsp_lightning.models.settings import PolicySettings
from lsp_lightning.rewards import Reward
from lsp_lightning.runtime.memory import Budgets
from lsp_lightning.types import Sampling


class PlannedModule(Protocol):
    """The module; its policy need not be loaded."""

    @property
    def policy(self) -> Policy | None: ...
    @property
    def policy_settings(self) -> PolicySettings: ...
    @property
    def rewards(self) -> Sequence[Reward]: ...
    @property
    def rollouts(self) -> RolloutSettings: ...
    @property
    def budgets(self) -> Budgets: ...
    @property
    def optimizer(self) -> Callable[[Iterable[Any]], torch.optim.Optimizer]: ...


class PlannedData(Protocol):
    """The data: how many queries and answers a round has, and how they are written."""

    @property
    def queries(self) -> QuerySource: ...
    @property
    def gate(self) -> Gate | None: ...
    @property
    def num_queries(self) -> int: ...
    @property
    def group_size(self) -> int: ...
    @property
    def solver(self) -> Sampling: ...
    @property
    def solver_prompt(self) -> str: ...
    @property
    def passage_prompt(self) -> str | None: ...
    @property
    def heldout(self) -> Sequence[Query]: ...
    @property
    def heldout_draws(self) -> int: ...
