"""Skip tests of the bubblewrap sandbox on machines that cannot run bubblewrap."""

import functools
import shutil
import subprocess

import pytest


@functools.cache
def _why_not() -> str | None:
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
    trial = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"bubblewrap fails here: {trial.stderr.strip()}" if trial.returncode else None


def require_bubblewrap() -> None:
    """Skip the test, with the reason, if bubblewrap does not work here."""
    reason = _why_not()
    if reason:
        pytest.skip(reason)
