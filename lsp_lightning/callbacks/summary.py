"""The result of a run: summary.json, and the lines printed at its end."""

import json
import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lsp_lightning.callbacks.checkpoint import save_weights
from lsp_lightning.callbacks.closing import (
    Scores,
    curves_line,
    next_line,
    queries_lines,
    result_lines,
    resume_line,
    without_nan,
)
from lsp_lightning.callbacks.transcripts import close_shard
from lsp_lightning.datamodule import rounds_played
from lsp_lightning.errors import ConfigError, Diverged
from lsp_lightning.evaluation.heldout import heldout_reward
from lsp_lightning.planning import memory_line
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.writing import write_text, writing
from lsp_lightning.text.terminal import width_of
from lsp_lightning.training.resume import rounds_of

#: Bytes of a GiB.
_GIB = 2**30


class RunSummary(Callback):
    """Writes ``summary.json``: rounds, seconds, held-out scores before and after, GPU memory.

    Args:
        trust: whether commands that load the run need the flag ``--trust``.
    """

    def __init__(self, trust: bool = False) -> None:
        self._trust = trust
        self._before: Scores | None = None
        self._scored_with: dict[str, Any] = {}
        self._seconds_before_resume = 0.0
        self._fitting = self._trained = False
        self._loaded_rounds = 0
        self._start = time.perf_counter()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the size of the run and its memory estimate."""
        module: Any = pl_module
        self._fitting = True
        device = trainer.strategy.root_device
        if device.type == "cuda":  # leave out the peak of loading the model
            torch.cuda.reset_peak_memory_stats(device)
        if trainer.is_global_zero and self._loaded_rounds < trainer.max_steps:
            data: Any = getattr(trainer, "datamodule", None)
            every, trained = parameter_counts(pl_module)
            print(
                f"playing {trainer.max_steps} rounds of {data.num_queries} queries x "
                f"{data.group_size} answers; training {trained:,} of {every:,} parameters; "
                f"writing to {trainer.default_root_dir}/"
            )
            print(memory_line(module, data, device), flush=True)
        self._finish(trainer, module)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Remember how many rounds the checkpoint's run has played."""
        if trainer.state.fn == "fit":
            self._loaded_rounds = rounds_of(checkpoint)

    def _finish(self, trainer: Trainer, module: Any) -> None:
        """Finish a resumed run that has played all rounds but was stopped before its end.

        For example in its last scoring. With no round to play, Lightning calls no training hook.
        """
        rounds, folder = self._loaded_rounds, RunFolder(trainer.default_root_dir)
        resumed = rounds >= trainer.max_steps and folder.checkpoint_path.is_file()
        if not resumed or _is_summarised(folder, rounds):
            return
        if trainer.is_global_zero:
            print(f"all {rounds} rounds are played; finishing the run", flush=True)
            close_shard(folder.transcripts_path)
        save_weights(trainer, module)
        self._compare_scoring(module)
        module.score_at_the_end(rounds)
        self._trained = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the first scores if the resumed run's scoring differs: they are not comparable."""
        self._trained = True
        self._compare_scoring(pl_module)

    def _compare_scoring(self, pl_module: LightningModule) -> None:
        if self._before is not None:
            now = _scored_with(pl_module, self._before["kind"])
            if self._scored_with not in ({}, now):
                self._before = None
            self._scored_with = now

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the held-out scores from before the first round."""
        if trainer.sanity_checking:
            self._before = heldout_scores(pl_module)
            self._start = time.perf_counter()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the summary and print it, after all other files are written."""
        if not trainer.is_global_zero:
            return
        if not self._trained:
            print(
                f"nothing to play: this run has played {self._loaded_rounds} rounds; "
                f"to play more, set trainer.max_steps above {self._loaded_rounds}"
            )
            return
        folder = RunFolder(trainer.default_root_dir)
        module: Any = pl_module
        scored = module.scored_round == rounds_played(trainer)
        after = heldout_scores(pl_module) if scored else None
        if self._before and after and self._before["kind"] != after["kind"]:
            self._before = None  # the rewards changed: a share and a win rate are not comparable
        summary = {
            "rounds": rounds_played(trainer),
            "seconds": round(self._seconds(), 3),
            "heldout_before": self._before,
            "heldout_after": after,
            "gpu_peak_gib": gpu_peak(trainer.strategy.root_device),
        }
        text = json.dumps(without_nan(summary), indent=2)
        with writing(folder.summary_path):
            write_text(folder.summary_path, text + "\n")
        reward = heldout_reward(module.rewards, module.data.heldout_reward)
        varied = module.data.queries.selfplay
        lines = [
            *(queries_lines(folder, width_of(sys.stdout) - 1) if varied else []),
            *result_lines(summary, folder, opponent_of(pl_module)),
            next_line(folder, bool(module.data.test) and reward is not None, self._trust),
            curves_line(folder),
        ]
        print("\n".join(["", *filter(None, lines)]))

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Say how to resume a run that was stopped."""
        checkpoint = RunFolder(trainer.default_root_dir).checkpoint_path
        refused = isinstance(exception, (ConfigError, Diverged))
        stopped = self._fitting and trainer.is_global_zero and not refused
        if stopped and checkpoint.is_file():
            print(
                f"\nthe run was stopped; resume it with:\n  {resume_line(checkpoint, self._trust)}"
            )

    def state_dict(self) -> dict[str, Any]:
        """The first scores and the time so far, for a resumed run."""
        return {
            "before": self._before,
            "seconds": self._seconds(),
            "scored_with": self._scored_with,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from ``state_dict``."""
        self._before = state_dict["before"]
        self._scored_with = state_dict["scored_with"]
        self._seconds_before_resume = float(state_dict["seconds"])
        self._start = time.perf_counter()

    def _seconds(self) -> float:
        return self._seconds_before_resume + time.perf_counter() - self._start


def heldout_scores(pl_module: LightningModule) -> Scores | None:
    """The module's newest held-out scores, with their count and kind; None without any.

    A score is NaN if no task could be judged; ``NAME_se`` is a score's standard error, NaN for
    fewer than two tasks.
    """
    module: Any = pl_module
    means: dict[str, Any] = module.heldout.scores
    if not means:
        return None
    scores = {name.removeprefix("heldout/"): float(value) for name, value in means.items()}
    n = int(scores.pop("tasks"))
    return {**scores, "n": n, "kind": module.heldout.kind}


def _is_summarised(folder: RunFolder, rounds: int) -> bool:
    """Whether the folder holds the summary of a run of so many rounds."""
    try:
        return folder.summary().get("rounds") == rounds
    except ConfigError:  # none, or cut off while it was written
        return False


def _scored_with(pl_module: LightningModule, kind: str) -> dict[str, Any]:
    """The settings that held-out scores of a kind depend on; scores are comparable if these
    agree."""
    module: Any = pl_module
    names = {"heldout", "solver", "solver_prompt"}
    if kind != "solved":
        names.add("rewards")
    settings = module.resume_settings()
    found = heldout_reward(module.rewards, settings["heldout_reward"])
    by_reward = {"heldout_reward": found and found[0].name}
    return by_reward | {name: value for name, value in settings.items() if name in names}


def parameter_counts(module: nn.Module) -> tuple[int, int]:
    """Numbers of all and of trained parameters; a packed 4-bit weight counts unpacked."""
    every = trained = 0
    for parameter in module.parameters():
        packed = getattr(parameter, "quant_state", None)
        count = parameter.numel() if packed is None else packed.shape.numel()
        every += count
        trained += count if parameter.requires_grad else 0
    return every, trained


def gpu_peak(device: torch.device) -> dict[str, float] | None:
    """Peak GPU memory in GiB, ``allocated`` and ``reserved``.

    None on a CPU.
    """
    if device.type != "cuda":
        return None
    peaks = {
        "allocated": torch.cuda.max_memory_allocated(device),
        "reserved": torch.cuda.max_memory_reserved(device),
    }
    return {name: round(peak / _GIB, 3) for name, peak in peaks.items()}


def opponent_of(pl_module: LightningModule) -> str:
    """The name of the reference in printed results."""
    settings = getattr(pl_module, "policy_settings", None)
    started = settings and settings.init_adapter and settings.reference == "start"
    return "the start adapter" if started else "the base"
