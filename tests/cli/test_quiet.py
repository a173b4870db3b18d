"""A run prints no warning of another library, and none but the known ones are silenced."""

import re
import warnings

import pytest
from test_cli import fit_args

from lsp_lightning.cli import app, quiet
from lsp_lightning.cli.main import main

pytestmark = pytest.mark.usefixtures("untouched_process")


def shown_by_default(caught):
    """The messages that Python shows to a user who has set no filter."""
    hidden = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
    return {str(w.message) for w in caught if not issubclass(w.category, hidden)}


def known(message):
    return [pattern for _, pattern in quiet.KNOWN if re.match(pattern, message)]


@pytest.mark.slow
def test_the_known_messages_are_all_that_the_commands_print(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(app, "silence_known", lambda: None)
    args = fit_args(tmp_path / "run", "null", "--data.test", "null")
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(args) == 0
        for command in ("fit", "validate", "export"):
            assert main([command, "--ckpt_path", checkpoint]) == 0
        assert main(["plan", *args[1:3], "--gpu_gib", "8"]) == 0
    messages = shown_by_default(caught)
    assert [message for message in messages if not known(message)] == []
    seen = {pattern for message in messages for pattern in known(message)}
    assert seen == {pattern for _, pattern in quiet.KNOWN}


def test_other_warnings_of_the_same_libraries_are_shown():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet.silence_known()
        for library in ("lightning.pytorch", "transformers", "peft"):
            warnings.warn_explicit("the rate is odd", UserWarning, "f.py", 1, module=library)
        message = "`is_gradient_checkpointing` is deprecated and will be removed"
        warnings.warn_explicit(message, FutureWarning, "f.py", 2, module="transformers.models")
    assert [str(w.message) for w in caught] == ["the rate is odd"] * 3
