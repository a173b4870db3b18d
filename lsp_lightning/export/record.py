"""What is known of a run: settings, rounds, held-out scores, versions. Plain values only."""

import json
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lsp_lightning import __version__
from lsp_lightning.training import resume

_LIBRARIES = ("torch", "transformers", "peft")


def run_record(module: Any, data: Any, checkpoint: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """The record of a run by name; the checkpoint's settings hold over the config's.

    Args:
        module: a SelfPlayModule with the run's settings.
        data: its SelfPlayDataModule.
        checkpoint: as loaded.
        path: where it lies; a ``summary.json`` of the same round in the run's folder is read too.
    """
    settings = {**resume.run_settings(module, data), **checkpoint["lsp_lightning"]}
    rounds = rounds_of(checkpoint)
    return {
        **settings,
        "rounds": rounds,
        "selfplay": bool(data.queries.selfplay),
        **_heldout(path.parent.parent / "summary.json", rounds),
        "versions": {"lsp-lightning": __version__, **_versions()},
    }


def rounds_of(checkpoint: Mapping[str, Any]) -> int:
    """Rounds that a checkpoint's run has played, skipped ones too."""
    try:
        [stream] = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
        return int(stream["next_round"])
    except (KeyError, TypeError, ValueError):
        return int(checkpoint.get("global_step", 0))


def _heldout(path: Path, rounds: int) -> dict[str, Any]:
    """Held-out scores of the run's summary, if it is of this round."""
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        if summary["rounds"] != rounds:
            return {}
        return {key: summary[key] for key in ("heldout_before", "heldout_after")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
