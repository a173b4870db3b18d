"""The progress line of a run."""

import re
import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

_LINES = 20
#: The label of each metric that the line shows.
_SHOWN = {
    "reward": "reward",
    "value_std": "value spread",
    "quality": "quality",
    "kl/solver": "kl",
    "kl/challenger": "challenger kl",
    "queries/invalid": "invalid",
}
#: The metric of malformed queries; its group is the name of the reward that found them.
_MALFORMED = re.compile(r"queries/(.+)/malformed")


class RoundProgress(TQDMProgressBar):
    """Shows the round, its reward, quality and KL, and the share of invalid queries.

    On a terminal it is a bar, elsewhere (a log file, CI) about twenty plain lines.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=1)
        if not sys.stderr.isatty():
            self.disable()
        self._plain = not sys.stderr.isatty()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Name the bar."""
        super().on_train_start(trainer, pl_module)
        if not self._plain:
            self.train_progress_bar.set_description("round")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the bar's name: a run has rounds, not epochs."""
        super().on_train_epoch_start(trainer, pl_module)
        if not self._plain:
            self.train_progress_bar.set_description("round")

    def init_validation_tqdm(self) -> Tqdm:
        """Hide the bar of validations during the run."""
        bar = super().init_validation_tqdm()
        bar.disable = True
        return bar

    def init_sanity_tqdm(self) -> Tqdm:
        """Label the bar of the scoring before the first round."""
        bar = super().init_sanity_tqdm()
        bar.set_description("scoring held-out tasks before the first round")
        return bar

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The round's main metrics, with two decimals."""
        metrics = trainer.callback_metrics
        malformed = [found for found in map(_MALFORMED.fullmatch, sorted(metrics)) if found]
        several = len(malformed) > 1
        shown = _SHOWN | {
            found[0]: f"malformed ({found[1]})" if several else "malformed" for found in malformed
        }
        return {label: f"{metrics[k]:.2f}" for k, label in shown.items() if k in metrics}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print a line about twenty times in a run if there is no terminal."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        done, total = batch.index + 1, trainer.max_steps
        every = max(1, total // _LINES)
        if self._plain and trainer.is_global_zero and (done % every == 0 or done in (1, total)):
            shown = self.get_metrics(trainer, pl_module).items()
            text = "  ".join(f"{name} {value}" for name, value in shown)
            print(f"round {done}/{total}  {text}", file=sys.stderr, flush=True)
