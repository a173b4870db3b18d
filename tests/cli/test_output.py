"""What a command writes is printable and in few lines, however it ends."""

import logging
import os
import re
import signal
import subprocess
import sys
import time
import warnings

import pytest

from lsp_lightning.cli import main as script
from lsp_lightning.cli.app import run_command
from lsp_lightning.cli.messages import hidden_config_error
from lsp_lightning.cli.output import (
    complain,
    escape_messages,
    flush_stdout,
    ready_streams,
    show_traceback,
)
from lsp_lightning.errors import ConfigError, in_one_line, printable

pytestmark = pytest.mark.usefixtures("untouched_process", "untouched_messages")

HOSTILE = "clear \x1b[2J back \r bell \x07 left \u202e zero \u200b half \ud800 c1 \x9b1m \U000e0041"
UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ud800-\udfff\U000e0041]"
)


@pytest.fixture
def untouched_messages(monkeypatch):
    """What :func:`escape_messages` changes is undone after the test."""
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    factory = logging.getLogRecordFactory()
    yield
    logging.setLogRecordFactory(factory)


def test_an_error_that_quotes_several_lines_is_one_line(capsys):
    complain(RuntimeError("cannot score\n  this\x1b[2J\r\ntext"))
    assert capsys.readouterr().err == "error: cannot score this\\x1b[2J text\n"


def test_an_unsafe_character_becomes_its_escape():
    assert printable("a\x1b[2Jb") == r"a\x1b[2Jb"
    assert printable("\r\u202e\u200b\ud800\u2028\ufeff") == r"\r\u202e\u200b\ud800\u2028\ufeff"
    assert printable("two\r\nlines\tand a tab") == "two\nlines\tand a tab"
    assert printable("naïve 漢字 عربي 😀 a\u00a0b") == "naïve 漢字 عربي 😀 a\u00a0b"
    assert not UNSAFE.search(printable(HOSTILE))


def test_one_line_stays_one_line():
    assert in_one_line("a:\n   b\r\n\n c\x1b") == r"a: b c\x1b"
    error = ConfigError("data", f"holds {HOSTILE}\nand more", "fix it")
    assert len(str(error).splitlines()) == 1
    assert not UNSAFE.search(str(error))
    assert len(str(ConfigError("data", "x" * 10**6, "fix it"))) < 3000
    assert str(ConfigError("data", "x" * 10**6, "fix it")).endswith("; fix it")


def test_warnings_log_lines_and_tracebacks_are_printable(capsys):
    escape_messages()
    escape_messages()  # a second time changes nothing
    log = logging.getLogger("a library")
    handler = logging.StreamHandler(sys.stderr)
    log.addHandler(handler)
    try:
        raise ValueError(f"cannot score {HOSTILE}\nsecond line")
    except ValueError as error:
        sys.stderr.write(warnings.formatwarning(str(error), UserWarning, "file.py", 1))
        log.error("reply: %s", error)
        log.exception("failed")
        show_traceback(error)
        sys.excepthook(ValueError, error, error.__traceback__)
    finally:
        log.removeHandler(handler)
    shown = capsys.readouterr().err
    assert shown.count(r"clear \x1b[2J back") == 5
    assert shown.count("\nsecond line\n") >= 4  # several lines stay several lines
    assert not UNSAFE.search(shown)


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_ring_of_errors_ends(depth):
    ring = [OSError(f"disk full {i}") for i in range(depth)]
    for i, error in enumerate(ring):
        error.__context__ = ring[(i + 1) % depth]
    assert hidden_config_error(ring[0]) is None
    # a tail that leads into the ring
    outer = RuntimeError("outer")
    outer.__cause__ = ring[0]
    assert hidden_config_error(outer) is None


def test_an_error_behind_a_ring_reaches_the_user(monkeypatch):
    error, other = OSError(2, "No such file"), OSError("flush")
    error.__context__, other.__context__ = other, error

    def full(args, policy):
        raise error

    monkeypatch.setattr("lsp_lightning.cli.app.SelfPlayCLI", full)
    with pytest.raises(OSError, match="No such file"):
        run_command(["fit"])


def test_ctrl_c_while_loading_is_status_130(monkeypatch, capsys):
    def stopped(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "ready_configs", stopped)
    assert script.main(["fit"]) == 130
    assert capsys.readouterr() == ("", "")


def test_ctrl_c_in_a_run_is_status_130(monkeypatch):
    def lightning(args, policy):
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            exit(1)  # as in lightning/pytorch/trainer/call.py

    monkeypatch.setattr("lsp_lightning.cli.app.SelfPlayCLI", lightning)
    assert run_command(["fit"]) == 130


def in_shell(line, **settings):
    """Run a line of shell in which ``LSP`` is this program."""
    program = f"{sys.executable} -m lsp_lightning"
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line.replace('LSP', program)}"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **settings},
    )


def test_a_reader_that_leaves_is_no_traceback():
    done = in_shell("{ sleep 0.05; LSP --help; } | true")
    assert done.stderr == ""
    assert done.returncode == 141


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_a_closed_stream_is_no_traceback(closed):
    done = in_shell(f"LSP --help {closed}")
    assert done.returncode == 0
    assert done.stderr == ""


def test_a_terminal_without_unicode_is_no_traceback():
    done = in_shell("LSP fit --config $'no\\xffsuch\\u202efile'", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert done.stderr.startswith("error: config: no file ")
    assert len(done.stderr.splitlines()) == 1


def test_the_rest_of_the_output_is_dropped_when_the_reader_has_left(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        print("one line")
        assert not flush_stdout()
        assert flush_stdout()  # what it left goes nowhere


def test_streams_that_are_missing_are_replaced(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    ready_streams()
    print("to nobody")
    sys.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.1, 1.0, 2.5])
def test_ctrl_c_at_any_moment_of_the_start_leaves_no_traceback(delay, tmp_path):
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "lsp_lightning", "--help"], check=True)
    start = time.perf_counter() - begin  # Python's own start, which is slow on a busy machine
    folder = ["--trainer.default_root_dir", str(tmp_path / "run")]
    command = ["-m", "lsp_lightning", "fit", "--config", "configs/tiny_lsp.yaml", *folder]
    process = subprocess.Popen(
        [sys.executable, *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(start + delay)
    process.send_signal(signal.SIGINT)
    _, shown = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in shown


def test_a_run_that_is_terminated_is_no_success(monkeypatch):
    """SIGTERMException is a SystemExit with status 0."""
    from lightning.pytorch.utilities.exceptions import SIGTERMException

    from lsp_lightning.cli import app

    def terminated(args, policy):
        raise SIGTERMException

    monkeypatch.setattr(app, "SelfPlayCLI", terminated)
    assert app.run_command(["fit"]) == 143
