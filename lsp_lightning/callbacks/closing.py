"""The lines printed at the end of a run. Their commands can be copied to a shell."""

import math
import os
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.breadth_table import breadth_lines
from lsp_lightning.runs.folder import CLAIM
from lsp_lightning.runs.transcripts import read_transcripts

Scores = dict[str, Any]

_SCRIPT = "lsp-lightning"
_EVENTS = "events.out.*"
#: Larger transcripts would take long to read at the end of a run.
_MOST_BYTES = 20_000_000


def result_lines(summary: dict[str, Any], folder: RunFolder, opponent: str) -> list[str]:
    """What was played, learned and written.

    Args:
        summary: the content of ``summary.json``.
        folder: the run's folder.
        opponent: the name of the reference.
    """
    minutes, seconds = divmod(round(summary["seconds"]), 60)
    lines = [f"played {summary['rounds']} rounds in {minutes} min {seconds:02d} s"]
    before, after, peak = (summary[k] for k in ("heldout_before", "heldout_after", "gpu_peak_gib"))
    if before and after:
        names = [name for name in ("sampled", "greedy") if name in before and name in after]
        lines += [heldout_line(name, before, after, opponent) for name in names]
    if peak:
        lines.append(
            f"peak GPU memory: {peak['allocated']:.2f} GiB allocated, "
            f"{peak['reserved']:.2f} GiB reserved"
        )
    found = {path.name.partition(".out.")[0] for path in folder.path.iterdir()} - {CLAIM}
    names = sorted("TensorBoard events" if name == "events" else name for name in found)
    return [*lines, f"written to {folder.path}/: {', '.join(names)}"]


def queries_lines(folder: RunFolder, width: int) -> list[str]:
    """How varied the queries were during the run; nothing for one round or without transcripts."""
    files = list(folder.transcripts_path.glob("*.parquet"))
    if not files:
        return []
    if sum(file.stat().st_size for file in files) > _MOST_BYTES:
        run = shlex.quote(str(folder.path))
        return [f"how varied the queries were: {command_line()} show {run} --breadth"]
    rows = read_transcripts(folder.transcripts_path, lambda line: None)
    return list(breadth_lines(rows, width)) if len({row["round"] for row in rows}) > 1 else []


def heldout_line(name: str, before: Scores, after: Scores, opponent: str) -> str:
    """The scores of ``sampled`` or ``greedy`` answers before and after the run, in one line."""
    style = ".3f" if after["kind"] == "mean" else ".1%"
    change = " -> ".join(
        "not judged" if math.isnan(scores[name]) else format(scores[name], style)
        for scores in (before, after)
    )
    counts = " -> ".join(dict.fromkeys(str(scores["n"]) for scores in (before, after)))
    errors = [scores.get(f"{name}_se", math.nan) for scores in (before, after)]
    known = [] if any(map(math.isnan, errors)) else [format(error, style) for error in errors]
    beside = f", standard error {' -> '.join(known)}" if known else ""
    if after["kind"] == "win_rate":
        counted = f"{counts} prompts{beside}; the reference is {opponent}"
        return f"win rate against the reference, {name} answers: {change}  ({counted})"
    what = {"solved": "held-out tasks solved by", "mean": "mean held-out reward of"}[after["kind"]]
    return f"{what} {name} answers: {change}  ({counts} tasks{beside})"


def next_line(folder: RunFolder, can_test: bool, trust: bool = False) -> str | None:
    """The next command to try: score the test tasks if there are any, else chat with the model.

    None if the run has no checkpoint or no config, so that no command can load it.
    """
    if not (folder.checkpoint_path.is_file() and folder.config_path.is_file()):
        return None
    command = "test" if can_test else "chat"
    return f"next: {command_line()} {command} {_checkpoint_flags(folder.checkpoint_path, trust)}"


def curves_line(folder: RunFolder) -> str | None:
    """The command that shows the run's curves; None without TensorBoard or without events."""
    if find_spec("tensorboard") is None or not any(folder.path.rglob(_EVENTS)):
        return None
    script = _script_of_this_python("tensorboard")
    module = f"{shlex.quote(sys.executable)} -m tensorboard.main"
    return f"curves: {script or module} --logdir {shlex.quote(str(folder.path))}"


def resume_line(checkpoint: Path, trust: bool = False) -> str:
    """The command that resumes a run."""
    return f"{command_line()} fit {_checkpoint_flags(checkpoint, trust)}"


def _checkpoint_flags(checkpoint: Path, trust: bool) -> str:
    """The flags that load a run; ``trust`` adds ``--trust``, for a config that names user code."""
    return f"--ckpt_path {shlex.quote(str(checkpoint))}{' --trust' if trust else ''}"


def command_line() -> str:
    """How a shell starts ``lsp-lightning`` as this process was started, quoted.

    Only the name if the shell finds this installation's program by it, else the program's path.
    ``python -m lsp_lightning`` if it was started that way, or if there is no such program.
    """
    started = Path(sys.argv[0])
    if started.name != "__main__.py":
        if started.name == _SCRIPT and os.access(started, os.X_OK) and not shutil.which(_SCRIPT):
            return shlex.quote(sys.argv[0])
        script = _script_of_this_python(_SCRIPT)
        if script:
            return script
    return f"{_python()} -m lsp_lightning"


def _script_of_this_python(name: str) -> str | None:
    """How a shell starts a program that is installed beside this Python; None without it."""
    path = Path(sys.executable).with_name(name)
    if not os.access(path, os.X_OK):
        return None
    on_path = shutil.which(name)
    return name if on_path and Path(on_path).samefile(path) else shlex.quote(str(path))


def _python() -> str:
    """This Python, by its name if the PATH leads to it."""
    for name in ("python", "python3"):
        found = shutil.which(name)
        # by folder, not by file: the Pythons of two environments are links to one file
        if found and os.path.dirname(found) == os.path.dirname(sys.executable):
            return name
    return shlex.quote(sys.executable)


def without_nan(value: Any) -> Any:
    """The value with None in place of NaN, which JSON cannot write."""
    if isinstance(value, dict):
        return {name: without_nan(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
