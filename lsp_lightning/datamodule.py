"""Batches that the model makes itself: a stream of rounds in place of a data set."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer

from lsp_lightning.errors import ConfigError, require_at_least
from lsp_lightning.game.queries import Challenger, Query, QuerySource, check_sampling, read_queries
from lsp_lightning.seeding import derive_seed
from lsp_lightning.text.prompts import SOLVER, read_template
from lsp_lightning.types import Sampling, SelfPlayRound


class RoundStream:
    """Rounds played when they are asked for, so that each one comes from the current weights.

    Its length matters: Lightning reads loaders without one a batch ahead, and every round would
    come from weights one update old.

    Args:
        play: plays round number ``t``.
        rounds: how many there are in all.
    """

    def __init__(self, play: Callable[[int], SelfPlayRound], rounds: int) -> None:
        self._play = play
        self._rounds = rounds
        self._next = 0

    def __len__(self) -> int:
        return self._rounds

    def __iter__(self) -> Iterator[SelfPlayRound]:
        while self._next < self._rounds:
            index = self._next
            self._next += 1
            yield self._play(index)

    @property
    def next_round(self) -> int:
        """The number of the round that comes next, which is how many were played."""
        return self._next

    def state_dict(self) -> dict[str, Any]:
        """Which round comes next; all else follows from the seed."""
        return {"next_round": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self._next = int(state["next_round"])


class HeldOutTasks:
    """Batches of held-out queries.

    Args:
        queries: all of them.
        batch_size: how many are answered together.
    """

    def __init__(self, queries: list[Query], batch_size: int) -> None:
        self._queries = queries
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._queries) // self._batch_size)

    def __iter__(self) -> Iterator[list[Query]]:
        for start in range(0, len(self._queries), self._batch_size):
            yield self._queries[start : start + self._batch_size]


class SelfPlayDataModule(LightningDataModule):
    """Self-generated rounds to train on, and held-out tasks to check against.

    Args:
        queries: who supplies the queries: the Challenger (self-play) or a prompt file (GRPO).
        num_queries: N, queries of a round.
        group_size: G, answers to each query; at least 2, as each is measured against its group.
        solver: how answers are sampled.
        solver_prompt: file with the Solver's prompt, slot {query}; None is the bare query.
        heldout: JSONL file of held-out tasks for choosing settings; scored before, during and after
            a run, and by ``validate``.
        test: JSONL file of held-out tasks for reporting, scored by ``test``.
        heldout_draws: sampled answers to each held-out task.
        heldout_batch: held-out tasks answered together.
        seed: seed of all that is drawn; None takes the one of seed_everything.
    """

    def __init__(
        self,
        queries: QuerySource | None = None,
        num_queries: int = 8,
        group_size: int = 8,
        solver: Sampling = Sampling(),  # noqa: B008 - frozen
        solver_prompt: str | None = None,
        heldout: str | None = None,
        test: str | None = None,
        heldout_draws: int = 1,
        heldout_batch: int = 128,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        require_at_least(num_queries, 1, "data.num_queries", "a round needs a query")
        require_at_least(
            group_size, 2, "data.group_size", "answers are measured against each other"
        )
        require_at_least(heldout_draws, 1, "data.heldout_draws", "nothing would be sampled")
        require_at_least(heldout_batch, 1, "data.heldout_batch", "nothing would be answered")
        check_sampling(solver, "data.solver", for_training=True)
        self.queries: QuerySource = queries if queries is not None else Challenger()
        if self.queries.selfplay:
            require_at_least(
                num_queries, 2, "data.num_queries", "queries are measured against each other"
            )
        self.num_queries = num_queries
        self.group_size = group_size
        self.solver = solver
        self.solver_prompt = read_template(solver_prompt, SOLVER, "data.solver_prompt", ("query",))
        self.heldout = read_queries(heldout, "data.heldout") if heldout else []
        self.test = read_queries(test, "data.test") if test else []
        self.heldout_draws = heldout_draws
        self.heldout_batch = heldout_batch
        _warn_of_overlap(self.queries, [*self.heldout, *self.test])
        self.stream: RoundStream | None = None
        self.seed = seed if seed is not None else int(os.environ.get("PL_GLOBAL_SEED", "0"))

    def train_dataloader(self) -> RoundStream:
        """The stream of all rounds of the run, ``trainer.max_steps`` of them."""
        trainer: Any = self.trainer
        self.check_rounds(trainer)
        self.stream = RoundStream(trainer.lightning_module.play, trainer.max_steps)
        return self.stream

    def check_rounds(self, trainer: Trainer) -> None:
        """Whether the trainer knows how many rounds to play, in one process.

        Raises:
            ConfigError: it does not, or there are several.
        """
        if trainer.world_size > 1:
            raise ConfigError(
                "trainer.devices",
                f"makes {trainer.world_size} processes, which is not supported yet",
                "leave it at 1",
            )
        if trainer.max_steps < 1:
            raise ConfigError("trainer.max_steps", "is not set", "set the number of rounds to play")

    def check_solutions(self, require: Callable[[object | None], None]) -> None:
        """Show ``require`` what is known of each query that is known beforehand.

        Raises:
            ConfigError: it raised a ValueError; names the key and the query.
        """
        sets = {
            "data.queries": self.queries.known(),
            "data.heldout": self.heldout,
            "data.test": self.test,
        }
        for key, queries in sets.items():
            for query in queries:
                try:
                    require(query.solution)
                except ValueError as error:
                    text = query.text if len(query.text) <= 40 else f"{query.text[:40]}..."
                    why = " ".join(str(error).split())
                    raise ConfigError(
                        key, f"the solution of {text!r} {why}", "mend the file"
                    ) from error

    def resume_settings(self) -> dict[str, Any]:
        """The settings that a resumed run is compared by: plain values only."""
        heldout = "".join(query.text for query in self.heldout)
        return {
            "queries": self.queries.describe(),
            "num_queries": self.num_queries,
            "group_size": self.group_size,
            "solver": dict(vars(self.solver)),
            "solver_prompt": self.solver_prompt,
            "heldout": f"{len(self.heldout)} tasks, {derive_seed(0, heldout):x}",
            "seed": self.seed,
        }

    def val_dataloader(self) -> HeldOutTasks | list[Any]:
        """The held-out tasks for choosing settings."""
        return HeldOutTasks(self.heldout, self.heldout_batch) if self.heldout else []

    def test_dataloader(self) -> HeldOutTasks:
        """The held-out tasks for reporting."""
        if not self.test:
            raise ConfigError("data.test", "is not set", "give a JSONL file of tasks to report on")
        return HeldOutTasks(self.test, self.heldout_batch)

    def predict_dataloader(self) -> HeldOutTasks:
        """The tasks that ``predict`` answers: those for reporting, else those for choosing."""
        tasks = self.test or self.heldout
        if not tasks:
            raise ConfigError("data.test", "is not set", "give a JSONL file of queries to answer")
        return HeldOutTasks(tasks, self.heldout_batch)


def check_precision(precision: object) -> None:
    """Whether the Trainer leaves number formats to the policy.

    Its autocast would train another function than the one that sampled, and its loss scale would
    come on top of ours.

    Raises:
        ConfigError: it does not.
    """
    if precision not in (None, "32-true", 32, "32"):
        raise ConfigError(
            "trainer.precision", f"is {precision!r}", "leave it out and set model.dtype"
        )


def rounds_played(trainer: Trainer) -> int:
    """Rounds of this run so far, the skipped ones too (``global_step`` does not count those)."""
    stream = getattr(getattr(trainer, "datamodule", None), "stream", None)
    return 0 if stream is None else int(stream.next_round)


def _warn_of_overlap(source: QuerySource, heldout: Sequence[Query]) -> None:
    """Say so when a file that is trained on holds tasks that are scored as held out."""
    shared = {query.text for query in heldout} & {query.text for query in source.known()}
    if shared:
        warnings.warn(
            f"data.queries holds {len(shared)} of the tasks in data.heldout and data.test: their "
            "scores will not be held-out scores",
            stacklevel=3,
        )
