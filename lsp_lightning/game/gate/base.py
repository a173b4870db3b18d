"""The base class of the gate's checks."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from lsp_lightning.types import Reference, SelfPlayRound


class QueryCheck(ABC):
    """Decides before a query is answered whether it may enter training. To write one::

        class Short(QueryCheck):
            reason = "long"

            def accepts(self, queries, taken):
                return [len(query) < 200 for query in queries]

    The same queries must always get the same verdicts, or resuming is not exact.
    """

    #: What is wrong with a query that is refused, in one word; counted in the metric
    #: ``gate/REASON``.
    reason: str = "refused"

    @abstractmethod
    def accepts(self, queries: Sequence[str], taken: Sequence[str]) -> list[bool]:
        """Whether each query may enter training.

        Do not change the state of the check here; remember rounds in :meth:`observe`. If it
        raises, it is asked about each query alone, and refuses those at which it still raises.

        Args:
            queries: queries that all earlier checks accepted.
            taken: queries that the round already has.
        """

    def prepare(self) -> None:  # noqa: B027 - optional
        """Raise ConfigError unless the check can work; called before a model is loaded."""

    def connect(self, reference: Reference) -> None:  # noqa: B027 - optional
        """Receive the frozen reference after it is loaded."""

    def observe(self, played: SelfPlayRound) -> None:  # noqa: B027 - optional
        """Update the state after a round."""

    def describe(self) -> dict[str, Any]:
        """The settings to compare when a run is resumed: public attributes with plain values."""
        return {
            name: value
            for name, value in vars(self).items()
            if not name.startswith("_") and isinstance(value, bool | int | float | str | None)
        }

    def state_dict(self) -> dict[str, Any]:
        """The state to save in a checkpoint, as plain values."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - optional
        """Continue from a checkpoint's state."""

    def close(self) -> None:  # noqa: B027 - optional
        """Stop processes; the check can be used again."""
