"""What the progress line shows, and that it fits the terminal."""

import io
import os
import pty
import select
from types import SimpleNamespace

import pytest
import torch

from lsp_lightning.callbacks import progress
from lsp_lightning.callbacks.progress import RoundProgress, StatusLine, fitted, say
from lsp_lightning.text.terminal import columns

FULL = {
    "reward": 0.85,
    "value_std": 0.31,
    "quality": 0.77,
    "kl/solver": 0.68,
    "kl/challenger": 0.21,
    "queries/invalid": 0.0,
    "queries/verifiable/malformed": 0.06,
    "queries/similarity": 0.34,
}
GATED = {**FULL, "gate/passed": 0.83, "gate/played": 16.0}


def trainer(metrics=None, **more):
    named = {name: torch.tensor(value) for name, value in (metrics or {}).items()}
    return SimpleNamespace(callback_metrics=named, max_steps=100, sanity_checking=False, **more)


def shown(**metrics: float) -> dict[str, str]:
    """The labels and values of the line; two underscores stand for a slash."""
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    return RoundProgress().get_metrics(trainer(named), None)


def test_the_share_of_malformed_queries_is_shown_whatever_the_rewards_name():
    found = shown(reward=0.5, queries__truth__malformed=0.25, queries__truth__level=2.0)
    assert found == {"reward": "0.50", "malformed": "0.25"}


def test_two_rewards_that_tell_malformed_queries_are_told_apart():
    found = shown(queries__a__malformed=0.25, queries__b__malformed=0.75)
    assert found == {"malformed (a)": "0.25", "malformed (b)": "0.75"}
    found = shown(queries__a__malformed=0.25, queries__b__malformed=0.25)
    assert found == {"malformed": "0.25"}


def test_zero_has_no_sign_and_what_was_not_judged_is_nan():
    found = shown(reward=float("nan"), kl__solver=-0.001)
    assert found == {"reward": "nan", "kl": "0.00"}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A terminal; its ``width`` can be set."""
    stream = Terminal()
    stream.width = 80
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
    monkeypatch.setattr(progress, "width_of", lambda stream: stream.width)
    monkeypatch.setattr(StatusLine, "format_dict", {"elapsed": 50.0})
    return stream


def line_at(terminal, width, metrics=None, done=50, total=100):
    terminal.width = width
    bar = RoundProgress()
    bar._begin("round", total, leave=True)
    line = bar._line
    line.figures = bar.get_metrics(trainer(metrics or FULL), None)
    line.show(done)
    text = str(line)
    bar._end()
    return text


@pytest.mark.parametrize(
    ("width", "labels"),
    [
        (20, []),
        (40, ["reward", "invalid"]),
        (80, ["reward", "malformed", "invalid", "alike"]),
        (120, ["reward", "malformed", "invalid", "alike", "spread", "kl", "quality"]),
        (
            200,
            ["reward", "malformed", "invalid", "alike", "spread", "kl", "quality", "challenger kl"],
        ),
    ],
)
def test_the_most_useful_figures_that_fit_are_shown(terminal, width, labels):
    line = line_at(terminal, width)
    assert line.startswith("round 50/100")
    assert [part.rpartition(" ")[0] for part in line.split("  ")[1:]] == labels
    assert columns(line) < width
    assert ("<00:50" in line) == (width >= 60)


@pytest.mark.parametrize(
    ("width", "labels"),
    [
        (40, ["reward", "passed"]),
        (60, ["reward", "passed", "played"]),
        (80, ["reward", "passed", "played", "malformed"]),
        (100, ["reward", "passed", "played", "malformed", "alike", "spread"]),
        (120, ["reward", "passed", "played", "malformed", "alike", "spread", "kl"]),
    ],
)
def test_with_a_gate_the_share_that_passed_stands_for_the_invalid_ones(terminal, width, labels):
    line = line_at(terminal, width, GATED)
    assert [part.rpartition(" ")[0] for part in line.split("  ")[1:]] == labels
    assert columns(line) < width


def test_a_round_in_which_everything_was_refused_does_not_look_healthy():
    """Whatever is played instead may be well-formed."""
    queries = {"queries__verifiable__malformed": 0.0, "queries__invalid": 0.0}
    found = shown(reward=0.5, **queries, gate__passed=0.0, gate__played=1.0)
    assert found == {"reward": "0.50", "passed": "0.00", "played": "1"}
    found = shown(reward=0.5, **queries, gate__passed=0.0, gate__played=4.0, pool__replayed=4.0)
    assert found == {"reward": "0.50", "passed": "0.00", "played": "4", "replayed": "4"}


def test_with_a_gate_malformed_queries_are_shown_if_some_were_played():
    found = shown(queries__a__malformed=0.25, gate__passed=1.0, gate__played=8.0)
    assert found == {"passed": "1.00", "played": "8", "malformed": "0.25"}
    found = shown(queries__a__malformed=0.25, queries__b__malformed=0.0, gate__passed=1.0)
    assert found == {"passed": "1.00", "malformed (a)": "0.25"}


def test_a_pool_without_a_gate_changes_nothing():
    found = shown(reward=0.5, queries__a__malformed=0.0, pool__replayed=4.0)
    assert found == {"reward": "0.50", "malformed": "0.00"}


@pytest.mark.parametrize("width", [1, 5, 10, 21, 40, 60, 79, 80, 81, 100, 119, 120, 200])
def test_the_line_never_wraps(terminal, width):
    metrics = {**GATED, "reward": -12345.678, "queries/\u4e2d\u6587\x1b/malformed": 0.5}
    for total in (3, 100, 1_000_000):
        line = line_at(terminal, width, metrics, total - 1, total)
        assert columns(line) < max(width, 1) or width == 1
        assert "\x1b" not in line


def test_figures_that_do_not_fit_are_left_out_whole():
    assert fitted("round 1/2", {"a": "1.00", "long label": "2.00", "b": "3"}, 22) == (
        "round 1/2  a 1.00  b 3"
    )
    assert fitted("a very long head", {"a": "1"}, 10) == "a very..."


def test_the_line_is_written_again_in_place_and_lines_stand_above_it(terminal):
    bar = RoundProgress()
    played = trainer(FULL, datamodule=None)
    bar.on_train_start(played, None)
    for index in range(3):
        bar.on_train_batch_end(played, None, None, SimpleNamespace(index=index), index)
        say(f"line {index}")
    bar.on_train_end(played, None)
    written = terminal.getvalue()
    for index in range(3):
        assert f"\rline {index}\n" in written
    assert written.rstrip("\n").rpartition("\r")[2].startswith("round 3/100")
    assert written.count("\n") == 4  # three lines, and the end of the run


def test_the_scoring_before_the_first_round_has_its_name(terminal):
    bar = RoundProgress()
    scoring = trainer(num_sanity_val_batches=[2], state=SimpleNamespace(fn="fit"))
    scoring.sanity_checking = True
    board = SimpleNamespace(
        scores={
            "heldout/sampled": torch.tensor(0.5),
            "heldout/sampled_se": torch.tensor(0.125),
            "heldout/greedy": torch.tensor(1.0),
            "heldout/greedy_se": torch.tensor(torch.nan),  # of one task
            "heldout/tasks": torch.tensor(9.0),
        },
        kind="solved",
    )
    bar.on_sanity_check_start(scoring, None)
    bar.on_validation_batch_end(scoring, None, None, None, 0)
    assert "held-out, before round 1 1/2" in terminal.getvalue()
    scoring.datamodule = None
    bar.on_validation_end(scoring, SimpleNamespace(heldout=board))
    assert "held-out, before round 1: sampled 50.0% ± 12.5%  greedy 100.0%\n" in terminal.getvalue()
    assert "Sanity" not in terminal.getvalue()
    assert "DataLoader" not in terminal.getvalue()


def test_batches_that_are_counted_late_are_shown(terminal):
    """Lightning counts the held-out batches after ``on_sanity_check_start``."""
    bar = RoundProgress()
    scoring = trainer(num_sanity_val_batches=[], state=SimpleNamespace(fn="fit"))
    scoring.sanity_checking = True
    bar.on_sanity_check_start(scoring, None)
    scoring.num_sanity_val_batches = [4]
    bar.on_validation_start(scoring, None)
    bar.on_validation_batch_end(scoring, None, None, None, 0)
    assert "held-out, before round 1 1/4 <02:30" in terminal.getvalue()
    assert "/0" not in terminal.getvalue()


def test_a_scoring_during_the_run_is_a_note_in_its_line(terminal):
    bar = RoundProgress()
    played = trainer(FULL, datamodule=None, num_val_batches=[2], state=SimpleNamespace(fn="fit"))
    bar.on_train_start(played, None)
    bar._line.show(1)
    bar.on_validation_batch_end(played, None, None, None, 0)
    assert str(bar._line).endswith("  held-out 1/2")
    bar.on_validation_batch_end(played, None, None, None, 1)
    assert "held-out" not in str(bar._line)


def test_in_a_file_it_is_a_line_now_and_then(capfd):
    bar = RoundProgress()
    played = trainer(FULL, datamodule=None)
    bar.on_train_start(played, None)
    for index in range(100):
        bar.on_train_batch_end(played, None, None, SimpleNamespace(index=index), index)
    lines = capfd.readouterr().err.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["1/100", "5/100", "10/100"]
    assert len(lines) == 21
    assert "\r" not in "".join(lines)


def test_where_stdout_goes_does_not_matter(monkeypatch):
    """A run whose stdout is a file and whose stderr is a terminal has its line on the terminal.

    This one says that it has no columns.
    """
    outside, inside = pty.openpty()
    with os.fdopen(inside, "w") as stream:
        monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=stream))
        bar = RoundProgress()
        bar._begin("round", 10)
        bar._line.show(3)
        stream.flush()
        assert select.select([outside], [], [], 5)[0]
        assert os.read(outside, 4096).startswith(b"\rround ")
        bar._end()
    os.close(outside)
