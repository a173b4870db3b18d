"""Warns while a run collapses: each symptom once, with its numbers and the setting to change."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lsp_lightning.datamodule import rounds_played
from lsp_lightning.diagnosis.windows import Finding, Windows
from lsp_lightning.errors import in_one_line, warn
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.writing import write_text, writing

#: Settings of a run that decide whether two of its held-out scores are comparable.
_SCORED_WITH = ("heldout", "heldout_reward", "solver", "solver_prompt")


class CollapseWatch(Callback):
    """Warns of each symptom of a collapse, and again if it returns after it was gone.

    Each warning is also appended to ``warnings.jsonl`` in the run's folder. To react to a symptom,
    override :meth:`react`.

    Args:
        stalls: why the last round teaches nothing, and whether a warning has said so. A symptom
            that one of these reasons explains is not named.
    """

    def __init__(self, stalls: Callable[[], Mapping[str, bool]] = dict) -> None:
        self._stalls = stalls
        self._windows = Windows()
        self._scored_with: dict[str, Any] = {}
        self._scored_round = -1

    def react(self, trainer: Trainer, found: Finding) -> None:
        """Warn of a symptom; called once each time that a run gets it."""
        text = in_one_line(found.text)
        warn(text, kind=f"{text} in {trainer.default_root_dir}")
        _append(RunFolder(trainer.default_root_dir), found, text)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget warnings of rounds that will be played again."""
        if not trainer.is_global_zero:
            return
        folder, played = RunFolder(trainer.default_root_dir), rounds_played(trainer)
        lines = folder.warnings()
        kept = [line for line in lines if line["round"] < played]
        if len(kept) < len(lines):
            _write(folder.warnings_path, kept)
        # a scoring follows the checkpoint of its round, so the checkpoint does not know its result
        self._windows.mark(line["symptom"] for line in kept if line["round"] == played - 1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look at the round."""
        module: Any = pl_module
        row = {name: float(value) for name, value in module.logged.items()}
        self._tell(trainer, self._windows.observe(batch.index, row, self._stalls()))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare held-out scores with those before training."""
        if trainer.sanity_checking:
            self._scored_with = _scored_with(pl_module)
            self._windows.start(_scores(pl_module))
        elif trainer.state.fn == "fit":
            self._score(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare the last scores: the module takes them after all other hooks."""
        module: Any = pl_module
        if module.scored_round == rounds_played(trainer):
            self._score(trainer, pl_module)

    def _score(self, trainer: Trainer, pl_module: LightningModule) -> None:
        played = rounds_played(trainer)
        if played != self._scored_round and self._scored_with == _scored_with(pl_module):
            self._scored_round = played
            self._tell(trainer, self._windows.score(played - 1, _scores(pl_module)))

    def _tell(self, trainer: Trainer, found: list[Finding]) -> None:
        if trainer.is_global_zero:
            for finding in found:
                self.react(trainer, finding)

    def state_dict(self) -> dict[str, Any]:
        """The windows, and how the first held-out scores were taken."""
        return {**self._windows.state_dict(), "scored_with": self._scored_with}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._windows.load_state_dict(state_dict)
        self._scored_with = state_dict["scored_with"]


def _scores(pl_module: LightningModule) -> dict[str, float]:
    module: Any = pl_module
    return {name: float(value) for name, value in module.heldout.scores.items()}


def _scored_with(pl_module: LightningModule) -> dict[str, Any]:
    """What held-out scores depend on; scores are comparable if it is the same."""
    module: Any = pl_module
    settings = module.resume_settings()
    plain = {name: settings.get(name) for name in _SCORED_WITH}
    return {**plain, "kind": module.heldout.kind, "rewards": settings.get("rewards")}


def _append(folder: RunFolder, found: Finding, text: str) -> None:
    """Append a warning to the run's file; where no run is written, there is none."""
    if folder.config_path.is_file() or folder.metrics_path.is_file():
        line = {"round": found.last, "symptom": found.symptom.name, "text": text}
        _write(folder.warnings_path, [*folder.warnings(), line])


def _write(path: Path, lines: list[dict[str, Any]]) -> None:
    with writing(path):
        write_text(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
