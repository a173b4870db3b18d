"""Held-out tasks in batches."""

from collections.abc import Iterator

from lsp_lightning.evaluation.exam import HELDOUT_BATCH
from lsp_lightning.game.known_queries import Query


class HeldOutTasks:
    """Batches of held-out tasks."""

    def __init__(self, tasks: list[Query]) -> None:
        self._tasks = tasks

    def __len__(self) -> int:
        return -(-len(self._tasks) // HELDOUT_BATCH)

    def __iter__(self) -> Iterator[list[Query]]:
        for start in range(0, len(self._tasks), HELDOUT_BATCH):
            yield self._tasks[start : start + HELDOUT_BATCH]
