"""The progress line of a run."""

import math
import re
import sys
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from lsp_lightning.datamodule import rounds_played
from lsp_lightning.text.terminal import columns, cut, escaped, width_of

_LINES = 20
#: The label of each metric that the line shows, the most useful first: a narrow terminal has room
#: for some of them only.
_SHOWN = {
    "reward": "reward",
    "MALFORMED": "malformed",
    "queries/invalid": "invalid",
    "queries/similarity": "alike",
    "value_std": "spread",
    "kl/solver": "kl",
    "quality": "quality",
    "kl/challenger": "challenger kl",
}
_PASSED = "gate/passed"
#: Metrics that are numbers of queries.
_COUNTS = {"gate/played": "played", "past/queries": "past", "pool/replayed": "replayed"}
#: The metrics in a run with a gate; it lets no invalid query through.
_SHOWN_GATED = {
    "reward": "reward",
    _PASSED: "passed",
    **_COUNTS,
    **{name: label for name, label in _SHOWN.items() if name != "queries/invalid"},
}
#: The metric of malformed queries; its group is the name of the reward that found them.
_MALFORMED = re.compile(r"queries/(.+)/malformed")
#: A narrower terminal has no room for the time that is left.
_WIDTH_FOR_TIME = 60


def say(text: str) -> None:
    """Print lines to stderr without breaking a progress line."""
    tqdm.write(text, file=sys.stderr)


def fitted(head: str, figures: Mapping[str, str], width: int) -> str:
    """A line of at most ``width`` columns: ``head``, then each of the figures that still fits."""
    line = cut(head, width)
    for label, value in figures.items():
        more = f"  {label} {value}"
        if columns(line) + columns(more) <= width:
            line += more
    return line


class StatusLine(tqdm):  # type: ignore[misc] # tqdm has no types
    """One line that is updated in place: a name, a count, the time left, and figures.

    Args:
        name: what is counted.
        total: how many there are.
        initial: how many are done.
        leave: keep the line when it is closed.
    """

    def __init__(self, name: str, total: int, initial: int = 0, leave: bool = False) -> None:
        self.name, self.note = name, ""  # a note is shown instead of the figures
        self.figures: Mapping[str, str] = {}
        # tqdm shows nothing on a terminal that says it has no size, so it is not asked
        size = {"ncols": 80, "nrows": 20}
        super().__init__(total=total, initial=initial, leave=leave, file=sys.stderr, **size)

    def __str__(self) -> str:
        width = width_of(sys.stderr) - 1  # in the last column some terminals wrap
        head = f"{self.name} {self.n}/{self.total}" if self.total else self.name
        done = self.n - self.initial
        if done > 0 and width + 1 >= _WIDTH_FOR_TIME:
            left = self.format_dict["elapsed"] / done * (self.total - self.n)
            head += f" <{self.format_interval(left)}"
        return fitted(head, {self.note: ""} if self.note else self.figures, width).rstrip()

    def show(self, done: int) -> None:
        """Write the line with a new count."""
        self.n = done
        self.refresh()


class RoundProgress(ProgressBar):
    """Shows the round with its main metrics, and the progress and scores of held-out tasks.

    On a terminal it is one line, elsewhere (a log file, CI) about twenty lines. Held-out scores
    always get a separate line.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._line: StatusLine | None = None

    def disable(self) -> None:
        """Show nothing from now on: Lightning calls this in all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show lines again."""
        self._enabled = True

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        """Print text without breaking the line (``LightningModule.print`` comes here)."""
        if self._enabled:
            say(sep.join(map(str, args)))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The round's main metrics as texts, by label."""
        metrics = trainer.callback_metrics
        labels: dict[str, str] = {}
        for name, label in (_SHOWN_GATED if _PASSED in metrics else _SHOWN).items():
            if name == "MALFORMED":
                labels |= _of_malformed(metrics, label)
            elif name in metrics:
                labels[name] = label
        # z: no minus before zero
        return {
            label: f"{float(metrics[name]):{'.0f' if name in _COUNTS else 'z.2f'}}"
            for name, label in labels.items()
        }

    # -- rounds ------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the line of rounds."""
        self._begin("round", trainer.max_steps, rounds_played(trainer), leave=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show the round; if there is no terminal, about twenty times in a run."""
        done, total = batch.index + 1, trainer.max_steps
        figures = self.get_metrics(trainer, pl_module)
        every = max(1, total // _LINES)
        if self._line is not None:
            self._line.figures = figures
            self._line.show(done)
        elif self._enabled and (done % every == 0 or done in (1, total)):
            text = "  ".join(f"{name} {value}" for name, value in figures.items())
            say(f"round {done}/{total}  {text}")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the line of rounds."""
        self._end()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """End the line, so that an error starts on a line of its own."""
        self._end()

    # -- held-out tasks ----------------------------------------------------------------------------

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a line for the scoring before the first round."""
        self._begin("held-out, before round 1", _sum(trainer.num_sanity_val_batches))

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End that line."""
        self._end()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show how many batches there are, and begin a line for the command ``validate``."""
        if trainer.sanity_checking:
            if self._line is not None:  # the batches are counted after on_sanity_check_start
                self._line.total = _sum(trainer.num_sanity_val_batches)
                self._line.refresh()
        elif trainer.state.fn != "fit":
            self._begin("held-out", _sum(trainer.num_val_batches))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch of tasks."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            self._count_one()
        else:
            self.show_scoring(batch_idx + 1, _sum(trainer.num_val_batches))

    def show_scoring(self, done: int, total: int) -> None:
        """Show in the line of rounds how many batches of held-out tasks are scored."""
        if self._line is not None:
            self._line.note = f"held-out {done}/{total}" if done < total else ""
            self._line.refresh()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the scores of a scoring before or during the run."""
        if trainer.state.fn != "fit":
            self._end()
            return
        board = getattr(pl_module, "heldout", None)
        if self._enabled and board is not None and board.scores:
            played = rounds_played(trainer)
            when = f"after round {played}" if played else "before round 1"
            say(f"held-out, {when}: {_scores_text(board.scores, board.kind)}")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the line of the command ``test``."""
        self._begin("held-out", _sum(trainer.num_test_batches))

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch of tasks."""
        self._count_one()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the line."""
        self._end()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the line of the command ``predict``."""
        self._begin("answers", _sum(trainer.num_predict_batches))

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch of queries."""
        self._count_one()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the line."""
        self._end()

    # -- the line ----------------------------------------------------------------------------------

    def _begin(self, name: str, total: int, done: int = 0, leave: bool = False) -> None:
        self._end()
        if self._enabled and sys.stderr.isatty():
            self._line = StatusLine(name, total, done, leave)

    def _count_one(self) -> None:
        if self._line is not None:
            self._line.show(self._line.n + 1)

    def _end(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


def _of_malformed(metrics: Mapping[str, Any], label: str) -> dict[str, str]:
    """The labels of the shares of malformed queries, by metric.

    They are about the queries that were played, so with a gate a 0 says nothing about the refused
    ones, and is left out.
    """
    found = [match for match in map(_MALFORMED.fullmatch, sorted(metrics)) if match]
    shares = {match[0]: float(metrics[match[0]]) for match in found}
    several = len(set(shares.values())) > 1  # one verifier may be used twice, for partial credit
    return {
        match[0]: f"{label} ({escaped(match[1])})" if several else label
        for match in found
        if shares[match[0]] or _PASSED not in metrics
    }


def _sum(batches: Any) -> int:
    """All batches of one or several loaders."""
    return int(sum(batches)) if isinstance(batches, list) else int(batches)


def _scores_text(scores: Mapping[str, Any], kind: str) -> str:
    """Held-out scores with their standard errors."""
    style = ".3f" if kind == "mean" else ".1%"
    shown = {name.removeprefix("heldout/"): float(value) for name, value in scores.items()}
    parts = []
    for name, value in shown.items():
        if name != "tasks" and not name.endswith("_se"):
            error = shown.get(f"{name}_se", math.nan)  # unknown for a single task
            beside = "" if math.isnan(error) else f" ± {error:{style}}"
            parts.append(f"{name} {value:{style}}{beside}")
    return "  ".join(parts)
