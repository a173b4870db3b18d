"""A run prints no warning of another library, none but the known ones are silenced, and the
package's own are always shown."""

import ast
import re
import warnings

import pytest
from test_cli import fit_args
from test_floors import FILES

from lsp_lightning.cli import app, quiet
from lsp_lightning.cli.main import main
from lsp_lightning.errors import SelfPlayWarning, warn

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
        for command in ("fit", "export"):
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


@pytest.mark.parametrize("ignore", ["", "module", "all"])
def test_a_biased_setting_is_told_whatever_is_ignored(ignore, tmp_path, capfd, monkeypatch):
    # the warning comes while the config is parsed; the run is refused after that
    monkeypatch.setattr(app, "silence_known", lambda: None)
    if ignore:
        warnings.filterwarnings("ignore", module="lightning" if ignore == "module" else "")
    main(fit_args(tmp_path / "run", "nowhere.jsonl", "--data.solver.top_p", "0.9"))
    shown = capfd.readouterr().err
    assert shown.splitlines()[0].startswith("warning: data.solver: top_p below 1 or top_k above 0")
    assert shown.count("biases training") == 1


def test_a_warning_is_one_harmless_line_once(capfd):
    with quiet.one_line_warnings():
        for count in (1, 2):
            warn("a\nb \x1b[2J")
            warn(f"{count} of 3 failed", kind="failed")
    assert capfd.readouterr().err == "warning: a b \\x1b[2J\nwarning: 1 of 3 failed\n"


def test_without_the_command_line_it_passes_pythons_filters():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn("something")
        warn("something")
    assert [w.category for w in caught] == [SelfPlayWarning]
    text = warnings.formatwarning(caught[0].message, caught[0].category, caught[0].filename, 1)
    assert text.count("\n") == 1
    assert text.startswith("lsp_lightning:1: ")


@pytest.mark.parametrize("name", sorted(set(FILES) - {"errors.py"}))
def test_all_warnings_of_the_package_go_that_way(name):
    tree = ast.parse(FILES[name].read_text(encoding="utf-8"))
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    others = ("warnings.warn", "warnings.warn_explicit", "rank_zero_warn", "rank_zero_deprecation")
    assert not set(calls) & set(others)
