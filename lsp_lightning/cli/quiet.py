"""Messages of other libraries that you can do nothing about, silenced one by one.

``tests/cli/test_quiet.py`` fails on an entry that no run prints any more, and on a message that is
missing here.
"""

import logging
import warnings

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
