"""Warnings: print this package's on one line each, hide known ones of other libraries.

``tests/cli/test_quiet.py`` fails on a known message that no run prints any more, and on one that
is missing here.
"""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from lsp_lightning import errors

#: Category and beginning of each message, as a regular expression.
KNOWN: tuple[tuple[type[Warning], str], ...] = (
    # peft reads the old name of a property of transformers
    (FutureWarning, r"`is_gradient_checkpointing` is deprecated"),
    # Lightning asks torch in the old way whether a value is a leaf
    (FutureWarning, r"`isinstance\(treespec, LeafSpec\)` is deprecated"),
    # a run without held-out tasks has no loader for them
    (UserWarning, r"Total length of `list` across ranks is zero"),
)


def silence_known() -> None:
    """Ignore the known warnings, and hide Lightning's notes about devices and products."""
    for category, message in KNOWN:
        warnings.filterwarnings("ignore", message=message, category=category)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Print this package's warnings on one line each, whatever filters other code sets.

    User code often ignores all warnings, but means those of other libraries.
    """
    before, errors.show_warning = errors.show_warning, _print
    try:
        yield
    finally:
        errors.show_warning = before


def _print(message: str) -> None:
    # tqdm.write moves a progress bar out of the way
    tqdm.write(f"warning: {errors.in_one_line(message)}", file=sys.stderr)
