"""``lsp-lightning report RUN [RUN ...]``: runs as one HTML page. Imports nothing heavy."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from lsp_lightning.errors import ConfigError, WriteError, in_one_line
from lsp_lightning.reporting.page import ROWS, page
from lsp_lightning.reporting.reading import read_runs
from lsp_lightning.runs import RunFolder
from lsp_lightning.runs.writing import write_text, writing

_USAGE = "write lsp-lightning report runs/NAME [runs/OTHER ...] [--out FILE] [--rows N]"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError("report", in_one_line(message), _USAGE)


def report(args: Sequence[str]) -> int:
    """Write the page and print its path and size. -> the exit status.

    Raises:
        ConfigError: a folder is not a run's, a flag is wrong, or the page cannot be written.
    """
    parser = _Parser(prog="lsp-lightning report", description=report_help(), allow_abbrev=False)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN", help="the folder of a run, such as runs/tiny_lsp"
    )
    parser.add_argument("--out", help="the HTML file; the default is report.html in the first run")
    parser.add_argument(
        "--rows",
        type=int,
        default=ROWS,
        help=f"most answers of all runs together; 0 is all, the default {ROWS:,}",
    )
    typed = parser.parse_args(args)
    if typed.rows < 0:
        raise ConfigError("report --rows", f"is {typed.rows}", "set 0 (all) or more")
    out = RunFolder(typed.runs[0]).report_path if typed.out is None else Path(typed.out)
    runs = read_runs(typed.runs)
    _check_out(out)
    text = page(runs, typed.rows)
    try:
        with writing(out):
            write_text(out, text)
    except WriteError as error:
        raise ConfigError("report --out", str(error), "or choose another file") from error
    print(f"{out} ({len(text.encode()) / 1e6:.1f} MB)")
    return 0


def report_help() -> str:
    """What the command does, in one sentence."""
    return (
        "Write one HTML page about runs that opens offline: verdicts, curves, signs of a collapse, "
        "and the queries and answers."
    )


def _check_out(out: Path) -> None:
    """Raise ConfigError unless a file can be there; called before the page is made."""
    if out.is_dir():
        remedy = f"name a file, such as {out / 'report.html'}"
        raise ConfigError("report --out", f"{str(out)!r} is a folder", remedy)
    if not out.parent.is_dir():
        remedy = "create it, or choose another folder"
        raise ConfigError("report --out", f"no folder {str(out.parent)!r}", remedy)
