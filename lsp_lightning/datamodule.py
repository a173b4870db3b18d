"""The data of self-play: a stream of rounds that the model plays, in place of a data set."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_only

from lsp_lightning.errors import ConfigError, in_one_line, require_at_least, warn
from lsp_lightning.evaluation.tasks import HeldOutTasks
from lsp_lightning.game.challenger import Challenger
from lsp_lightning.game.documents import read_passage_prompt
from lsp_lightning.game.gate import Gate
from lsp_lightning.game.known_queries import Query, counted, read_queries
from lsp_lightning.game.past import PastChallenger
from lsp_lightning.game.pool import Pool
from lsp_lightning.game.queries import QuerySource, check_sampling
from lsp_lightning.game.selection import Selection
from lsp_lightning.rewards import Verifier
from lsp_lightning.seeding import derive_seed
from lsp_lightning.text.prompts import SOLVER, read_template
from lsp_lightning.training.stream import RoundStream
from lsp_lightning.types import Sampling

#: Most answers of a round: a round with more would never end, or not fit into memory.
MOST_ANSWERS = 1_000_000


class SelfPlayDataModule(LightningDataModule):
    """Rounds of self-play to train on, and held-out tasks to score.

    Args:
        queries: where the queries come from: the Challenger (self-play), a PromptFile (GRPO), or a
            QuerySource of your own. null is the Challenger.
        num_queries: N, queries per round.
        group_size: G, answers per query; at least 2, because answers are compared within a group.
        solver: how answers are sampled.
        solver_prompt: file with the Solver's prompt, with slot {query}; null is the query alone.
        passage_prompt: file with the Solver's prompt for queries about a passage, with slots
            {passage} and {query}; null shows it the query alone.
        gate: which of the Challenger's queries enter training; null takes all, as in the paper.
        pool: good queries of earlier rounds to play again; null plays none, as in the paper.
        past: an earlier policy that writes a share of the queries; null plays without one, as in
            the paper.
        heldout: file of held-out tasks for choosing settings, in a format of PromptFile; scored
            before, during and after a run, and by ``validate``.
        test: file of held-out tasks for reporting; scored by ``test``.
        heldout_draws: sampled answers per held-out task.
        heldout_reward: name of the reward that scores held-out tasks. null takes the first binary
            task reward, or else the first comparable one, or else the first that can score a single
            answer.
        seed: the seed of everything that is sampled; commands set it to seed_everything.
    """

    def __init__(
        self,
        queries: QuerySource | None = None,
        num_queries: int = 8,
        group_size: int = 8,
        solver: Sampling = Sampling(),  # noqa: B008 - frozen
        solver_prompt: str | None = None,
        passage_prompt: str | None = None,
        gate: Gate | None = None,
        pool: Pool | None = None,
        past: PastChallenger | None = None,
        heldout: str | None = None,
        test: str | None = None,
        heldout_draws: int = 1,
        heldout_reward: str | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        _check_size(num_queries, group_size)
        require_at_least(seed, 0, "data.seed", "seeds are not negative")
        require_at_least(heldout_draws, 1, "data.heldout_draws", "a held-out task needs an answer")
        check_sampling(solver, "data.solver", for_training=True)
        self.queries: QuerySource = queries if queries is not None else Challenger()
        if not isinstance(self.queries, QuerySource):
            raise ConfigError(
                "data.queries", f"is {queries!r}", "pass a QuerySource, such as Challenger()"
            )
        self.queries.check_num_queries(num_queries)
        self.queries.pool = pool
        self.queries.shares_rounds = pool is not None or past is not None
        self.num_queries = num_queries
        self.group_size = group_size
        self.solver = solver
        self.gate, self.pool = gate, pool
        self.selection = Selection(gate, pool, past)
        self.selection.check(self.queries, num_queries)
        self.solver_prompt = read_template(solver_prompt, SOLVER, "data.solver_prompt", ("query",))
        self.passage_prompt = read_passage_prompt(passage_prompt, self.queries)
        self.heldout = read_queries(heldout, "data.heldout") if heldout else []
        self.test = read_queries(test, "data.test") if test else []
        self.heldout_draws = heldout_draws
        self.heldout_reward = heldout_reward
        self.seed = seed
        _warn_of_overlap(self.queries, [*self.heldout, *self.test])
        self.stream: RoundStream | None = None

    def announce(self, stage: str) -> None:
        """Say how many of the queries that the command uses have a solution; count passages.

        The module calls it when all settings are checked, so that an error stands alone.
        """
        answered = "data.test" if self.test else "data.heldout"
        used = {"validate": "data.heldout", "test": "data.test", "predict": answered}
        for key, queries in self._known().items():
            if queries and stage in ("fit", *(name for name, one in used.items() if one == key)):
                line = f"{key}: {counted(queries, 'queries' if key == 'data.queries' else 'tasks')}"
                # other commands print JSON
                rank_zero_only(print)(line, file=sys.stdout if stage == "fit" else sys.stderr)
        documents = getattr(self.queries, "documents", None)
        if documents is not None and stage == "fit":
            line = f"data.queries.init_args.documents: {len(documents)} passages"
            rank_zero_only(print)(line)

    def _known(self) -> dict[str, Sequence[Query]]:
        """The queries that are known before the run, by config key."""
        return {
            "data.queries": self.queries.known(),
            "data.heldout": self.heldout,
            "data.test": self.test,
        }

    def train_dataloader(self) -> RoundStream:
        """The stream of all rounds of the run, ``trainer.max_steps`` of them."""
        trainer: Any = self.trainer
        self.check_rounds(trainer)
        self.stream = RoundStream(trainer.lightning_module.play, trainer.max_steps)
        return self.stream

    def check_rounds(self, trainer: Trainer) -> None:
        """Raise ConfigError unless there is at least one round and only one process."""
        if trainer.world_size > 1:
            raise ConfigError(
                "trainer.devices",
                f"starts {trainer.world_size} processes, but only one is supported",
                "set 1",
            )
        if trainer.max_steps < 1:
            raise ConfigError("trainer.max_steps", "is below 1", "set the number of rounds to play")
        if trainer.limit_train_batches == 0:
            raise ConfigError("trainer.limit_train_batches", "is 0: no round", "leave it out")

    def check_solutions(self, verifier: Verifier) -> None:
        """Check the solution of every query that is known before the run.

        Warn if a file has queries without one, and the verifier lets the answers to them vote.

        Raises:
            ConfigError: the verifier needs a solution that is missing, or cannot use one; the
                message names the key and the query.
        """
        name = type(verifier).__name__
        for key, queries in self._known().items():
            known, count = sum(query.solution is not None for query in queries), len(queries)
            if verifier.needs_solution and known < count:
                problem = f"{known} of {count} queries have a solution, {name} needs all"
                raise ConfigError(key, problem, "add a solution to each, or use another reward")
            if verifier.votes and known < count and key == "data.queries":
                warn(
                    f"{key}: {count - known} of {count} queries have no solution; there {name} "
                    "pays the answer that most of a group agree on"
                )
            check_solutions(queries, verifier, key)

    def state_dict(self) -> dict[str, Any]:
        """The state of the gate, the pool and the earlier policy, for a checkpoint."""
        return self.selection.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the gate, the pool and the earlier policy."""
        self.selection.load_state_dict(state_dict)

    def teardown(self, stage: str) -> None:
        """Stop the gate's processes."""
        self.selection.close()

    def resume_settings(self) -> dict[str, Any]:
        """The settings to compare when a run is resumed: plain values only."""
        heldout = "".join(query.text for query in self.heldout)
        return {
            "queries": self.queries.describe(),
            "num_queries": self.num_queries,
            "group_size": self.group_size,
            "solver": dict(vars(self.solver)),
            "solver_prompt": self.solver_prompt,
            "passage_prompt": self.passage_prompt,
            **self.selection.describe(),
            "heldout": f"{len(self.heldout)} tasks, {derive_seed(0, heldout):x}",
            "heldout_reward": self.heldout_reward,
            "seed": self.seed,
        }

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Leave the round on the CPU; each micro-batch is moved to the device when it is used."""
        return batch

    def val_dataloader(self) -> HeldOutTasks | list[Any]:
        """The tasks of ``data.heldout``; none if it is not set."""
        return HeldOutTasks(self.heldout) if self.heldout else []

    def test_dataloader(self) -> HeldOutTasks:
        """The tasks of ``data.test``."""
        if not self.test:
            raise ConfigError("data.test", "is not set", "give a file of held-out tasks")
        return HeldOutTasks(self.test)

    def predict_dataloader(self) -> HeldOutTasks:
        """The tasks that ``predict`` answers: ``data.test``, or else ``data.heldout``."""
        tasks = self.test or self.heldout
        if not tasks:
            raise ConfigError("data.test", "is not set", "give a file of queries to answer")
        return HeldOutTasks(tasks)


def check_solutions(queries: Sequence[Query], verifier: Verifier, key: str) -> None:
    """Raise ConfigError unless the verifier can use all solutions; it names key and query."""
    for query in queries:
        try:
            verifier.require(query.solution)
        except ValueError as error:
            text = query.text if len(query.text) <= 40 else f"{query.text[:40]}..."
            problem = f"the solution of {text!r} {in_one_line(str(error))}"
            raise ConfigError(key, problem, "fix the file") from error


def check_precision(precision: object) -> None:
    """Raise ConfigError unless the Trainer leaves number formats to the policy.

    The Trainer's autocast would train a different function from the one that samples, and its loss
    scale would multiply the policy's.
    """
    if precision not in (None, "32-true", 32, "32"):
        raise ConfigError(
            "trainer.precision", f"is {precision!r}", "leave it out and set model.dtype"
        )


def rounds_played(trainer: Trainer) -> int:
    """Rounds of this run so far, including skipped ones, which ``global_step`` does not count."""
    stream = getattr(getattr(trainer, "datamodule", None), "stream", None)
    return 0 if stream is None else int(stream.next_round)


def _check_size(num_queries: int, group_size: int) -> None:
    """Raise ConfigError unless a round can have so many queries and answers."""
    require_at_least(num_queries, 1, "data.num_queries", "a round needs a query")
    require_at_least(group_size, 2, "data.group_size", "answers are compared within a group")
    if num_queries * group_size > MOST_ANSWERS:
        problem = f"{num_queries} queries with {group_size} answers each are too many"
        raise ConfigError("data.num_queries", problem, f"ask for at most {MOST_ANSWERS:,} answers")


def _warn_of_overlap(source: QuerySource, heldout: Sequence[Query]) -> None:
    """Warn if the queries to train on include held-out tasks."""
    shared = {query.text for query in heldout} & {query.text for query in source.known()}
    if shared:
        warn(
            f"data.queries contains {len(shared)} of the tasks in data.heldout and data.test; "
            "scores of these are not held-out scores"
        )
