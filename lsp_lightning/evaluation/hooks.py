"""The hooks by which a LightningModule scores held-out tasks."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from lightning.pytorch import LightningModule

from lsp_lightning.errors import ConfigError, in_one_line, warn
from lsp_lightning.evaluation.exam import Exam
from lsp_lightning.evaluation.heldout import HeldOutBoard, answer_greedily, heldout_reward
from lsp_lightning.game.known_queries import Query
from lsp_lightning.game.player import FrozenPlayer, Player
from lsp_lightning.rewards import Reward
from lsp_lightning.seeding import derive_seed


class ScoresHeldOut(LightningModule):
    """Scores held-out tasks before, during and after a run, and answers them.

    A failure before the first round ends the run, as nothing is lost. After a later failure only
    the scores are missing, and a warning says what failed.
    """

    rewards: Sequence[Reward]

    def __init__(self) -> None:
        super().__init__()
        self.heldout = HeldOutBoard()
        #: Number of rounds played at the last scoring; None before any, and before the first round.
        self.scored_round: int | None = None
        self._failed = False

    @property
    def data(self) -> Any:
        """The DataModule."""
        raise NotImplementedError

    @property
    def player(self) -> Player:
        """The policy."""
        raise NotImplementedError

    @property
    def reference_player(self) -> FrozenPlayer:
        """The frozen reference."""
        raise NotImplementedError

    def check_heldout(self, stage: str) -> None:
        """Raise ConfigError if the reward can score none of the held-out tasks.

        Args:
            stage: the command; only the tasks that it scores are checked, in "fit" all.
        """
        data = self.data
        found = heldout_reward(self.rewards, data.heldout_reward)
        sets = {"validate": ["heldout"], "test": ["test"], "fit": ["heldout", "test"]}
        for name in sets.get(stage, []):
            tasks: list[Query] = getattr(data, name)
            if found is not None:
                _require_scorable(found[0], tasks, f"data.{name}")
            elif tasks and stage == "fit":
                warn(
                    f"data.{name} is not scored: no reward can score a single answer; add one that "
                    "can, with weight 0"
                )

    def score_heldout(self, tasks: list[Query]) -> None:
        """Score some held-out tasks; do nothing if no reward can score single answers."""
        data, player = self.data, self.player
        found = heldout_reward(self.rewards, data.heldout_reward)
        if found is None:
            return
        reward, kind = found
        scorable = [task for task in tasks if reward.scores_alone(task.solution)]
        if not scorable:
            return
        exam = Exam.of(
            player.codec,
            scorable,
            reward,
            data.solver,
            data.solver_prompt,
            data.heldout_draws,
            derive_seed(data.seed, self.global_rank, "heldout"),
        )
        self.heldout.score(player, exam, kind, self.reference_player)

    def validation_step(self, tasks: list[Query], batch_idx: int) -> None:
        """Score a batch of held-out tasks."""
        self._attempt(lambda: self.score_heldout(tasks))

    def on_validation_epoch_end(self) -> None:
        """Log the held-out scores."""
        self._close()
        self.log_dict(self.heldout.scores, batch_size=1)

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def on_train_end(self) -> None:
        """Score the held-out tasks again if rounds were played since the last scoring.

        This hook follows those of all callbacks, so what was trained is on the disk by now.
        """
        if self.scored_round != self._rounds:
            self.score_at_the_end()

    def score_at_the_end(self, rounds: int | None = None) -> None:
        """Score as many tasks of ``data.heldout`` as a validation does, after ``rounds`` rounds.

        Args:
            rounds: None is the number of rounds played by this process's stream.
        """
        for tasks in self._validated():
            self._attempt(partial(self.score_heldout, tasks))
        self._close()
        self.scored_round = self._rounds if rounds is None else rounds

    def predict_step(self, tasks: list[Query], batch_idx: int) -> list[dict[str, str]]:
        """Answer a batch of queries greedily."""
        return answer_greedily(self.player, tasks, self.data.solver, self.data.solver_prompt)

    def _attempt(self, step: Callable[[], None]) -> None:
        """Run a step of a scoring, unless an earlier step of this pass has failed."""
        if self._failed:
            return
        try:
            step()
        except Exception as error:
            if self.trainer.state.fn != "fit" or self.trainer.sanity_checking:
                raise
            self._failed = True
            reason = in_one_line(f"{type(error).__name__}: {error}")
            warn(
                f"the held-out tasks were not scored after round {self._rounds} ({reason}); what "
                "was trained is kept"
            )

    def _close(self) -> None:
        """End a pass over the tasks; without scores if a step of it has failed."""
        self._attempt(self.heldout.close)
        if self._failed:
            self.heldout.drop()
        if not self.trainer.sanity_checking:
            self.scored_round = self._rounds
        self._failed = False

    @property
    def _rounds(self) -> int:
        """Rounds played so far."""
        stream = self.data.stream
        return 0 if stream is None else int(stream.next_round)

    def _validated(self) -> list[list[Query]]:
        """The batches of a validation, see ``trainer.limit_val_batches``."""
        batches, limit = list(self.data.val_dataloader()), self.trainer.limit_val_batches
        return batches[: limit if isinstance(limit, int) else int(limit * len(batches))]


def _require_scorable(reward: Reward, tasks: Sequence[Query], key: str) -> None:
    """Raise ConfigError if the reward can score none of the tasks; warn if it can score some."""
    count = sum(reward.scores_alone(task.solution) for task in tasks)
    if tasks and not count:
        remedy = "set data.heldout_reward to another reward, or leave it out"
        if reward.needs_passage:
            problem = f"{reward.name!r} can score none of its {len(tasks)} tasks, because it needs"
            raise ConfigError(key, f"{problem} a passage, and held-out tasks have none", remedy)
        problem = f"none of its {len(tasks)} tasks has a solution, so {reward.name!r} can score"
        raise ConfigError(key, f"{problem} none", f"add solutions, {remedy}")
    if count < len(tasks):
        warn(f"{key}: {reward.name!r} scores the {count} of {len(tasks)} tasks with a solution")
