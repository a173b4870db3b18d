"""The first round of a run, judged: before a run by the command ``pilot``, and in its beginning."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lsp_lightning.callbacks.examples import example_lines
from lsp_lightning.callbacks.progress import StatusLine, say
from lsp_lightning.callbacks.verdict import PilotVerdict, pilot_verdict
from lsp_lightning.game.player import Player
from lsp_lightning.generation import Engine
from lsp_lightning.generation.base import Finished, Seed
from lsp_lightning.text.terminal import width_of
from lsp_lightning.types import Completions, Sampling

#: Queries that are printed.
_SHOWN = 3


class FirstRound(Callback):
    """Says what the first round of a run promises, before its update. A resumed run says nothing.

    It is one line if all is well, else the lines that are wrong.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Judge the round if it is the first of the run."""
        if batch.index == 0:
            module: Any = pl_module
            say("\n".join(pilot_verdict(batch, module.rewards, module.data).short()))


class Pilot(Callback):
    """Plays the first round with its update, prints three queries and the verdict."""

    def __init__(self) -> None:
        self.verdict: PilotVerdict | None = None
        self._player: Player | None = None
        self._line: StatusLine | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what is played, and count completions on a terminal."""
        module: Any = pl_module
        data = module.data
        n, g = data.num_queries, data.group_size
        print(f"playing one round of {n} queries x {g} answers; no run is written", flush=True)
        if sys.stderr.isatty():
            self._player = module.player
            self._line = StatusLine("completions", n * g + n * data.queries.selfplay)
            module._player = replace(
                self._player, engine=_Counted(module.player.engine, self._line)
            )

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Stop counting: what follows is the update."""
        self._restore(pl_module)
        if self._line is not None:
            self._line.note = "update"
            self._line.refresh()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print queries and the verdict."""
        self._end()
        module: Any = pl_module
        seconds = {**batch.seconds, "update": float(module.logged["seconds/update"])}
        self.verdict = pilot_verdict(batch, module.rewards, module.data, seconds, trainer.max_steps)
        width = width_of(sys.stdout) - 1
        shown = example_lines(batch, width, _SHOWN)
        print("\n".join([*shown, "", *self.verdict.lines(width)]))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Remove the line, so that an error starts on a line of its own."""
        self._restore(pl_module)
        self._end()

    def _restore(self, pl_module: LightningModule) -> None:
        """Give the module back its player, whose engine is closed when the run ends."""
        if self._player is not None:
            module: Any = pl_module
            module._player = self._player

    def _end(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


class _Counted:
    """An engine that counts finished completions in a line. After the last come the rewards."""

    def __init__(self, engine: Engine, line: StatusLine) -> None:
        self._engine, self._line = engine, line

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        draws: int,
        sampling: Sampling,
        seed: Seed,
        finished: Finished | None = None,
    ) -> Completions:
        """See :meth:`lsp_lightning.generation.base.Engine.generate`."""

        def count(row: int, tokens: list[int]) -> None:
            done = self._line.n + 1
            self._line.note = "" if done < self._line.total else "rewards"
            self._line.show(done)
            if finished is not None:
                finished(row, tokens)

        # a gate has refused queries drawn again
        self._line.total = max(self._line.total, self._line.n + len(prompts) * draws)
        return self._engine.generate(prompts, draws, sampling, seed, count)
