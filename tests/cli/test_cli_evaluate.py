"""The command ``evaluate``: its files, its output, and mistakes in one line."""

import json
import re
from pathlib import Path

import pytest
from small_game import make_policy, stir

from lsp_lightning.cli.main import main, with_json
from lsp_lightning.evaluation.answers import Contestant

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs" / "tiny_lsp.yaml")
PREFERENCE = str(ROOT / "configs" / "tiny_preference.yaml")
RM = "pkg:lsp_lightning/tinyworld/reward_model"

pytestmark = pytest.mark.usefixtures("untouched_process")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Eight of the tiny world's held-out tasks, in two subsets."""
    lines = (ROOT / "lsp_lightning/tinyworld/data/dev.jsonl").read_text().splitlines()
    path = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    rows = [{**json.loads(line), "dataset": "ab"[i % 2]} for i, line in enumerate(lines[:8])]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def adapter(tmp_path):
    """A start adapter that has moved away from the base."""
    policy = make_policy(ROOT / "lsp_lightning/tinyworld/base")
    stir(policy, 0.02)
    policy.save(tmp_path / "adapter")
    return str(tmp_path / "adapter")


def evaluate(folder, *more, config=PREFERENCE):
    return main(["evaluate", "--config", config, "--trainer.default_root_dir", str(folder), *more])


def one_line(capfd):
    return capfd.readouterr().err.strip().splitlines()[-1]


def test_win_rates_and_pass_at_k_are_written_printed_and_done_once(
    adapter, tasks, tmp_path, capfd, monkeypatch
):
    moved = ["--model.init_adapter", adapter, "--model.reference", "base"]
    flags = [*moved, "--prompts", tasks, "--tasks", tasks, "--draws", "2"]
    assert evaluate(tmp_path / "run", *flags, "--json") == 0
    printed = capfd.readouterr()
    found = json.loads(printed.out)
    assert list(found) == ["win_rate", "pass_at_k"]
    assert "policy answers 16/16" in printed.err
    assert "'preference' is also what this run trains on" in printed.err
    folder = tmp_path / "run" / "evaluations"
    files = {json.loads(path.read_text())["kind"]: path for path in folder.glob("*.json")}
    for kind, document in found.items():
        assert json.loads(files[kind].read_text()) == document
        assert files[kind].name.startswith(f"{kind}-")
        assert document["rounds"] == 0
        assert all(
            len(row) == len(document["table"]["columns"]) for row in document["table"]["rows"]
        )
    rows = [row[0] for row in found["win_rate"]["table"]["rows"]]
    assert rows == ["all", "a", "b", "base vs base"]
    assert list(found["pass_at_k"]["results"]["tasks"]) == ["greedy", "pass@1", "pass@2"]
    assert found["win_rate"]["settings"]["judge"]["model"] == RM
    outputs = files["win_rate"].with_suffix("")
    for name in ("model", "base"):
        rows = json.loads((outputs / f"{name}_outputs.json").read_text())
        assert len(rows) == 8
        assert all(set(row) == {"instruction", "output", "generator", "dataset"} for row in rows)

    monkeypatch.setattr(Contestant, "_drawn", lambda *args: pytest.fail("sampled again"))
    assert evaluate(tmp_path / "run", *flags) == 0
    printed = capfd.readouterr()
    assert "Win rate against the base, judged by PreferenceReward 'preference'" in printed.out
    assert "tasks: pass@2" in printed.out
    assert len(list(folder.glob("*.json"))) == 2
    again = {json.loads(path.read_text())["kind"]: path for path in folder.glob("*.json")}
    for kind, path in again.items():
        assert json.loads(path.read_text())["results"] == found[kind]["results"]


def test_the_title_says_that_the_opponent_is_the_start_adapter(adapter, tasks, tmp_path, capfd):
    flags = ["--model.init_adapter", adapter, "--tasks", tasks, "--draws", "1", "--limit", "3"]
    assert evaluate(tmp_path, *flags, config=TINY) == 0
    shown = capfd.readouterr().out
    assert "Tasks solved by the policy and by the start adapter" in shown
    assert "tasks: greedy  3 " in shown


def test_json_alone_is_true():
    assert with_json(["evaluate", "--json"]) == ["evaluate", "--json=true"]
    assert with_json(["evaluate", "--json", "--draws", "1"])[1] == "--json=true"
    assert with_json(["evaluate", "--json", "false"]) == ["evaluate", "--json", "false"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--prompts", "no.jsonl"], "prompts: no file 'no.jsonl'"),
        (["--prompts", "EMPTY"], "prompts: 'EMPTY' contains no queries"),
        (["--tasks", "no_such_benchmark"], "tasks: "),
        (["--tasks", "TASKS,TASKS"], "names one twice"),
        (["--tasks", "TASKS,"], "has an empty name"),
        (["--tasks", "BARE"], "tasks: none of the 1 tasks of 'BARE' has a solution"),
        (["--tasks", "TASKS", "--judge", "lsp_lightning.LocalJudge"], "judge: is set, but only"),
        (["--draws", "0"], "draws: is 0"),
        (["--draws", "65"], "draws: is 65; set at most 64"),
        (["--limit", "0"], "limit: is 0"),
        (["--temperature", "0"], "temperature: is 0.0; set a finite number above 0"),
        (["--temperature", "nan"], "temperature: must be a number"),
        (["--data.solver.temperature", "0"], "data.solver.temperature: is 0"),
        (["--judge", "lsp_lightning.NoveltyReward"], "judge: 'novelty' scores queries, not"),
        (["--judge", "lsp_lightning.Nothing"], "judge: cannot import lsp_lightning.Nothing"),
        (["--prompts", "TASKS"], "judge: no reward of this run can compare two answers; give"),
        (["--out", "TASKS"], "out: cannot write to"),
        (["--data.test", "null", "--data.heldout", "null"], "evaluate: there is nothing to"),
    ],
)
def test_a_mistake_is_one_line_before_a_model_is_loaded(
    flags, message, tasks, tmp_path, capfd, no_model, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").write_text("")
    (tmp_path / "EMPTY").rename(tmp_path / "EMPTY.jsonl")
    (tmp_path / "BARE.jsonl").write_text('{"query": "1+1=?"}\n')
    files = {"EMPTY": "EMPTY.jsonl", "BARE": "BARE.jsonl", "TASKS": tasks}
    if "BARE" in flags:  # a verifier that needs solutions
        reward = {"verifier": "lsp_lightning.MathVerifier"}
        rewards = [{"class_path": "lsp_lightning.VerifiableReward", "init_args": reward}]
        flags = [*flags, "--model.rewards", json.dumps(rewards), "--data.gate", "null"]
    for name, path in files.items():
        flags = [flag.replace(name, path) for flag in flags]
        message = message.replace(f"'{name}'", f"'{path}'")
    assert evaluate(tmp_path / "run", *flags, config=TINY) == 2
    assert message in one_line(capfd)


def test_a_run_without_a_binary_reward_cannot_score_tasks(tasks, tmp_path, capfd, no_model):
    rewards = [{"class_path": "lsp_lightning.PreferenceReward", "init_args": {"model": RM}}]
    flags = ["--model.rewards", json.dumps(rewards), "--data.heldout_reward", "null"]
    assert evaluate(tmp_path, *flags, "--tasks", tasks) == 2
    assert "tasks: no reward of this run scores 0 or 1" in one_line(capfd)


def test_a_checkpoint_of_another_kind_is_refused(tmp_path, capfd, no_model):
    path = tmp_path / "x.ckpt"
    path.write_bytes(b"not a checkpoint")
    assert evaluate(tmp_path / "run", "--ckpt_path", str(path), config=TINY) == 2
    assert "is not a checkpoint" in one_line(capfd)


def test_ctrl_c_keeps_what_was_done(tasks, tmp_path, capfd, monkeypatch):
    drawn = Contestant._drawn

    def interrupted(self, exam, batch):
        if self.name == "base answers":
            raise KeyboardInterrupt
        return drawn(self, exam, batch)

    monkeypatch.setattr(Contestant, "_drawn", interrupted)
    flags = ["--prompts", tasks, "--judge", "lsp_lightning.LocalJudge", "--draws", "1"]
    assert evaluate(tmp_path, *flags) == 130
    assert "Traceback" not in capfd.readouterr().err
    kept = (tmp_path / "evaluations" / "answers.jsonl").read_text().splitlines()
    assert len(kept) == 8


def test_a_prompt_that_does_not_fit_into_the_context_is_refused(tmp_path, capfd):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"query": "1+1=? " * 3000}) + "\n")
    assert evaluate(tmp_path / "run", "--prompts", str(path)) == 2
    assert re.search(r"long.jsonl: the longest query takes \d+ tokens", one_line(capfd))
