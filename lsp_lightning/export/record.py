"""The record of a run: settings, rounds, held-out scores, versions. Plain values only."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lsp_lightning import __version__
from lsp_lightning.errors import ConfigError
from lsp_lightning.runs import RunFolder
from lsp_lightning.training import resume

_LIBRARIES = ("torch", "transformers", "peft")


def run_record(module: Any, data: Any, checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The record of a run by name. The checkpoint's settings override the config's.

    Args:
        module: a SelfPlayModule with the run's settings.
        data: its SelfPlayDataModule.
        checkpoint: the loaded checkpoint.
        path: the checkpoint's file; the held-out scores come from the summary in its run's folder.
    """
    settings = {**resume.run_settings(module, data), **checkpoint["lsp_lightning"]}
    rounds = resume.rounds_of(checkpoint)
    return {
        **settings,
        "rounds": rounds,
        "selfplay": bool(data.queries.selfplay),
        **_heldout(RunFolder.of_checkpoint(path), rounds),
        "versions": {"lsp-lightning": __version__, **_versions()},
    }


def _heldout(folder: RunFolder, rounds: int) -> dict[str, Any]:
    """The held-out scores of the run's summary, if it was written after this many rounds."""
    try:
        summary = folder.summary()
    except ConfigError:  # the run was stopped, or the checkpoint was moved: no scores on the card
        return {}
    if summary.get("rounds") != rounds:
        return {}
    return {key: summary.get(key) for key in ("heldout_before", "heldout_after")}


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
