"""The command line: the files of a run, resuming it, and errors of one line."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from lightning.pytorch import Trainer

from lsp_lightning import (
    Challenger,
    ConfigError,
    LocalRollouts,
    Lora,
    PromptFile,
    Sampling,
    SelfPlayDataModule,
    SelfPlayModule,
    SelfReward,
    VerifiableReward,
)
from lsp_lightning.cli.checks import claim_run_folder
from lsp_lightning.cli.main import COMMANDS, main
from lsp_lightning.rewards import Reward
from lsp_lightning.tinyworld.verifier import TinyWorldVerifier

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs" / "tiny_lsp.yaml")
WORLD = "pkg:lsp_lightning/tinyworld/base"

pytestmark = pytest.mark.usefixtures("untouched_process")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Six of the tiny world's held-out tasks."""
    lines = (ROOT / "lsp_lightning/tinyworld/data/dev.jsonl").read_text().splitlines()
    path = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    path.write_text("\n".join(lines[:6]) + "\n")
    return str(path)


def fit_args(folder, tasks, *more):
    """A run of two small rounds on the tiny world."""
    return [
        "fit",
        "--config",
        TINY,
        "--data.gate",
        "null",
        "--data.pool",
        "null",
        "--trainer.default_root_dir",
        str(folder),
        "--trainer.max_steps",
        "2",
        "--data.num_queries",
        "3",
        "--data.group_size",
        "2",
        "--data.heldout",
        tasks,
        "--data.test",
        tasks,
        *more,
    ]


def status(args):
    """The exit status of a command, however it ends."""
    try:
        return main(args)
    except SystemExit as exit_:
        return exit_.code or 0


@pytest.fixture(scope="module")
def process(tasks, tmp_path_factory):
    """A run in a process of its own: its folder, and what it wrote to its two streams."""
    folder = tmp_path_factory.mktemp("runs") / "a run"
    done = subprocess.run(
        [sys.executable, "-m", "lsp_lightning", *fit_args(folder, tasks)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return folder, done.stdout, done.stderr


@pytest.fixture(scope="module")
def finished(process):
    """The folder of a finished run of two rounds. Read only: copy it to resume it."""
    return process[0]


def rounds_in(folder):
    """The rounds of metrics.csv, in its order."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["reward"]]


def transcript(folder):
    shards = sorted((folder / "transcripts").glob("*.parquet"))
    return [row for shard in shards for row in pq.read_table(shard).to_pylist()]


# -- a light start ---------------------------------------------------------------------------------


def seconds_and_modules(code):
    """How long a fresh process takes for ``code``, and which heavy modules it has then."""
    script = (
        "import sys, time; start = time.perf_counter()\n"
        f"{code}\n"
        "heavy = {'torch', 'lightning', 'transformers', 'peft', 'pyarrow', 'jsonargparse'}\n"
        "print(time.perf_counter() - start, *sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    seconds, *heavy = out.stdout.splitlines()[-1].split()
    return float(seconds), heavy


def test_importing_the_package_loads_nothing_heavy():
    seconds, heavy = seconds_and_modules("import lsp_lightning")
    assert heavy == []
    assert seconds < 1


def test_help_loads_nothing_heavy():
    seconds, heavy = seconds_and_modules(
        "from lsp_lightning.cli.main import COMMANDS, main; assert main(['--help']) == 0"
    )
    assert heavy == []
    assert seconds < 3


def test_a_mistyped_command_loads_nothing_heavy():
    _, heavy = seconds_and_modules(
        "from lsp_lightning.cli.main import COMMANDS, main; assert main(['fitt']) == 2"
    )
    assert heavy == []


def test_help_names_every_command(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^  {command}\b", shown, flags=re.MULTILINE)


def test_the_module_runs_like_the_script():
    out = subprocess.run(
        [sys.executable, "-m", "lsp_lightning", "--version"], capture_output=True, text=True
    )
    assert out.returncode == 0
    assert out.stdout.startswith("lsp-lightning ")


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_every_key_has_a_help_text(command, capsys):
    assert status([command, "--help"]) == 0
    shown = capsys.readouterr().out
    keys = ("model", "data", "checkpoint", "transcripts")
    entries = re.findall(
        rf"^  (--(?:{'|'.join(keys)})\.[\w.]+)([^\n]*(?:\n {{10,}}[^\n]*)*)", shown, re.MULTILINE
    )
    named = {flag for flag, _ in entries}
    assert {"--model.base", "--model.rewards", "--data.num_queries", "--checkpoint.every"} <= named
    silent = []
    for flag, text in entries:
        if flag.endswith(".help"):
            continue
        # the argument's placeholder, then its meaning, then (type: ..., default: ...)
        meaning = " ".join(text.split()).partition("(")[0]
        meaning = re.sub(r"^[A-Z_]+\+?|^\{[^}]*\}|^\[[^\]]*\]|\.\.\.", "", meaning.strip())
        if len(meaning.split()) < 2:
            silent.append(flag)
    assert not silent


# -- a run -----------------------------------------------------------------------------------------


def test_a_run_writes_its_folder(finished):
    assert (finished / "config.yaml").is_file()
    assert list(finished.glob("events.out.tfevents*"))
    assert (finished / "checkpoints" / "last.ckpt").is_file()
    assert (finished / "adapter" / "adapter_model.safetensors").is_file()
    assert rounds_in(finished) == [0, 1]
    assert not list(finished.rglob("*.partial"))
    rows = transcript(finished)
    assert [row["round"] for row in rows] == [0] * 6 + [1] * 6
    assert {"query", "answer", "R", "Q", "reward/verifiable", "reward/self_reward"} <= set(rows[0])


def test_the_summary_says_what_the_run_came_to(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["rounds"] == 2
    assert summary["seconds"] > 0
    for key in ("heldout_before", "heldout_after"):
        scores = summary[key]
        assert scores["n"] == 6
        assert 0 <= scores["sampled"] <= 1
        assert (scores["greedy"] * 6) == pytest.approx(round(scores["greedy"] * 6), abs=1e-4)


def test_the_saved_config_is_the_whole_of_it(finished):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["data"]["num_queries"] == 3
    assert config["trainer"]["max_steps"] == 2
    assert config["trainer"]["default_root_dir"] == str(finished)
    assert [r["class_path"].rsplit(".", 1)[-1] for r in config["model"]["rewards"]] == [
        "VerifiableReward",
        "SelfReward",
    ]


def test_a_second_run_gets_a_folder_of_its_own(finished, tasks, tmp_path, capfd):
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert main(fit_args(folder, tasks, "--trainer.max_steps", "1")) == 0
    assert rounds_in(tmp_path / "run-2") == [0]
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert str(tmp_path / "run-2") in capfd.readouterr().out


def moved(finished, folder):
    """The finished run as if it had been played in ``folder``."""
    shutil.copytree(finished, folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace(str(finished), str(folder)))
    return folder / "checkpoints" / "last.ckpt"


def test_a_run_is_resumed_in_its_folder(finished, tasks, tmp_path):
    folder = tmp_path / "run"
    checkpoint = moved(finished, folder)
    assert main(["fit", "--ckpt_path", str(checkpoint), "--trainer.max_steps", "3"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert rounds_in(folder) == [0, 1, 2]
    assert [row["round"] for row in transcript(folder)] == [r for r in range(3) for _ in range(6)]
    summary = json.loads((folder / "summary.json").read_text())
    before = json.loads((finished / "summary.json").read_text())
    assert summary["rounds"] == 3
    assert summary["heldout_before"] == before["heldout_before"]
    assert summary["heldout_after"]["n"] == 6
    assert summary["seconds"] > 0
    # its config is the recipe of a new run
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["ckpt_path"] is None
    assert config["trainer"]["max_steps"] == 3


@pytest.mark.slow
def test_a_run_made_longer_is_the_longer_run(finished, tasks, tmp_path):
    main(fit_args(tmp_path / "whole", tasks, "--trainer.max_steps", "3"))
    checkpoint = moved(finished, tmp_path / "cut")
    assert main(["fit", "--ckpt_path", str(checkpoint), "--trainer.max_steps", "3"]) == 0
    assert transcript(tmp_path / "cut") == transcript(tmp_path / "whole")
    kinds = [f"{name}/adapter/adapter_model.safetensors" for name in ("cut", "whole")]
    assert (tmp_path / kinds[0]).read_bytes() == (tmp_path / kinds[1]).read_bytes()


def test_a_finished_run_that_is_resumed_plays_nothing_more_and_says_so(finished, tmp_path, capfd):
    checkpoint = moved(finished, tmp_path / "run")
    assert main(["fit", "--ckpt_path", str(checkpoint)]) == 0
    assert "set trainer.max_steps above 2" in capfd.readouterr().out
    assert rounds_in(tmp_path / "run") == [0, 1]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["rounds"] == 2


@pytest.mark.parametrize("command", ["validate", "test"])
def test_a_checkpoint_can_be_scored(finished, tmp_path, capfd, command):
    checkpoint = moved(finished, tmp_path / "run")
    before = sorted(p for p in (tmp_path / "run").rglob("*"))
    assert main([command, "--ckpt_path", str(checkpoint)]) == 0
    scores = json.loads(capfd.readouterr().out.strip().splitlines()[-1])
    assert scores["tasks"] == 6
    assert {"heldout/sampled", "heldout/greedy"} <= set(scores)
    assert sorted(p for p in (tmp_path / "run").rglob("*")) == before
    summary = json.loads((finished / "summary.json").read_text())
    assert scores["heldout/greedy"] == pytest.approx(summary["heldout_after"]["greedy"])


def test_a_checkpoint_can_answer(finished, tasks, tmp_path):
    checkpoint = moved(finished, tmp_path / "run")
    assert main(["predict", "--ckpt_path", str(checkpoint)]) == 0
    lines = (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()
    asked = [json.loads(line)["query"] for line in Path(tasks).read_text().splitlines()]
    assert [json.loads(line)["query"] for line in lines] == asked
    assert all(isinstance(json.loads(line)["answer"], str) for line in lines)


def test_the_base_can_be_scored_without_a_checkpoint(tasks, capfd):
    assert main(["validate", "--config", TINY, "--data.heldout", tasks]) == 0
    assert json.loads(capfd.readouterr().out.strip().splitlines()[-1])["tasks"] == 6


def test_a_run_is_quiet(process):
    """On the error stream are held-out scores, the verdict on the first round, two rounds, an
    example and nothing else."""
    _, _, shown = process
    names = [line.split("  ")[0] for line in shown.splitlines() if line[:2].strip()]
    assert [name.partition(": ")[0] for name in names] == [
        "held-out, before round 1", "pilot", "round 1/2", "round 2/2", "held-out, after round 2",
    ]  # fmt: skip
    example = [line.split()[0] for line in shown.splitlines() if not line[:2].strip()]
    assert example == ["query", "best", "worst"]


def test_a_run_ends_with_what_it_came_to_and_what_comes_next(process):
    folder, shown, _ = process
    assert "memory: about" in shown
    assert "played 2 rounds in 0 min" in shown
    assert re.search(r"solved by greedy answers: \d+\.\d% -> \d+\.\d%", shown)
    for name in ("metrics.csv", "summary.json", "config.yaml", "transcripts", "adapter"):
        assert name in shown
        assert (folder / name).exists()


def test_what_comes_next_runs_when_it_is_copied(process, capfd):
    _, shown, _ = process
    [following] = re.findall(r"^next: (.*)$", shown, re.MULTILINE)
    [curves] = re.findall(r"^curves: (.*)$", shown, re.MULTILINE)
    before, command, rest = following.partition(" test ")
    assert re.search(r"python[\d.]* -m lsp_lightning$", before)  # as it was started
    for line, said in (
        (f"{before} --version", "lsp-lightning"),
        (f"{curves} --inspect", "scalars"),
    ):
        done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
    assert main(shlex.split(command + rest)) == 0
    assert json.loads(capfd.readouterr().out.strip().splitlines()[-1])["tasks"] == 6


def test_without_tasks_to_report_the_next_command_is_another(finished, tmp_path, capfd):
    checkpoint = moved(finished, tmp_path / "run")
    more = ["--trainer.max_steps", "3", "--data.test", "null", "--data.heldout", "null"]
    assert main(["fit", "--ckpt_path", str(checkpoint), *more]) == 0
    [line] = [x for x in capfd.readouterr().out.splitlines() if x.startswith("next: ")]
    assert shlex.split(line)[-3:] == ["chat", "--ckpt_path", str(checkpoint)]


def test_the_printed_config_parses_to_itself(tasks, tmp_path, capfd):
    assert status(fit_args(tmp_path / "run", tasks, "--print_config")) == 0
    first = capfd.readouterr().out
    path = tmp_path / "config.yaml"
    path.write_text(first)
    assert status(["fit", "--config", str(path), "--print_config"]) == 0
    assert yaml.safe_load(capfd.readouterr().out) == yaml.safe_load(first)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def bare_config(tmp_path):
    """A config that leaves all that has a default to it."""
    config = {
        "model": {"base": "pkg:lsp_lightning/tinyworld/base", "rewards": [VERIFIABLE]},
        "data": {"num_queries": 2, "group_size": 2, "solver": {"max_new_tokens": 4}},
        "trainer": {
            "max_steps": 1,
            "accelerator": "cpu",
            "default_root_dir": str(tmp_path / "run"),
        },
    }
    # the challenger's own prompt has characters that the tiny world does not know, and its own
    # length is more than that world's model can read
    own = {
        "prompt": "pkg:lsp_lightning/tinyworld/prompts/challenger.txt",
        "sampling": {"max_new_tokens": 28},
    }
    config["data"]["queries"] = {"class_path": "lsp_lightning.Challenger", "init_args": own}
    path = tmp_path / "bare.yaml"
    path.write_text(yaml.safe_dump(config))
    return str(path)


def test_a_config_without_an_optimizer_prints_to_one_that_parses(bare_config, tmp_path, capfd):
    assert status(["fit", "--config", bare_config, "--print_config"]) == 0
    printed = capfd.readouterr().out
    path = tmp_path / "printed.yaml"
    path.write_text(printed)
    assert status(["fit", "--config", str(path), "--print_config"]) == 0
    assert yaml.safe_load(capfd.readouterr().out) == yaml.safe_load(printed)


def test_a_rate_can_be_typed_where_the_config_has_no_optimizer(bare_config, capfd):
    args = ["fit", "--config", bare_config, "--model.optimizer.init_args.lr", "0.125"]
    assert status([*args, "--print_config"]) == 0
    config = yaml.safe_load(capfd.readouterr().out)
    assert config["model"]["optimizer"]["init_args"]["lr"] == 0.125


@pytest.mark.slow
def test_a_run_without_an_optimizer_in_its_config_is_resumed(bare_config, tmp_path):
    assert main(["fit", "--config", bare_config]) == 0
    checkpoint = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert main(["fit", "--ckpt_path", checkpoint, "--trainer.max_steps", "2"]) == 0
    assert rounds_in(tmp_path / "run") == [0, 1]


def test_overlays_and_flags_go_over_the_config(tmp_path, capfd):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("data:\n  num_queries: 5\n  group_size: 3\n")
    args = ["fit", "--config", TINY, "--config", str(overlay), "--data.group_size", "4"]
    assert status([*args, "--print_config"]) == 0
    config = yaml.safe_load(capfd.readouterr().out)
    assert config["data"]["num_queries"] == 5
    assert config["data"]["group_size"] == 4
    assert config["data"]["solver"]["max_new_tokens"] == 8
    assert len(config["model"]["rewards"]) == 2


@pytest.mark.slow
def test_a_validation_interval_longer_than_the_run_works(tasks, tmp_path):
    args = fit_args(tmp_path / "run", tasks, "--trainer.max_steps", "1")
    assert main([*args, "--trainer.val_check_interval", "25"]) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["heldout_after"]["n"] == 6


def test_a_run_without_heldout_tasks_works(tmp_path, tasks):
    args = fit_args(tmp_path / "run", tasks, "--data.heldout", "null", "--trainer.max_steps", "1")
    assert main(args) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["heldout_before"] is None
    assert summary["heldout_after"] is None


# -- mistakes --------------------------------------------------------------------------------------


def pickled_base(folder: Path):
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    torch.save({}, folder / "pytorch_model.bin")
    return str(folder)


def file_with(path: Path, text: str):
    path.write_text(text)
    return str(path)


VERIFIER = "lsp_lightning.tinyworld.verifier.TinyWorldVerifier"
VERIFIABLE = {"class_path": "lsp_lightning.VerifiableReward", "init_args": {"verifier": VERIFIER}}
SELF_REWARD = {"class_path": "lsp_lightning.SelfReward"}

MISTAKES = {
    "missing model folder": (
        lambda tmp: ["--model.base", "./no/such/folder"],
        ("model.base", "no folder", "Hub id"),
    ),
    "pickled weights": (
        lambda tmp: ["--model.base", pickled_base(tmp / "pickled")],
        ("model.base", "safetensors", "save"),
    ),
    "unknown model key": (
        lambda tmp: ["--model.betta", "1"],
        ("model.betta", "no such key", "'model.beta'"),
    ),
    "unknown trainer key": (
        lambda tmp: ["--trainer.maxx_steps", "1"],
        ("trainer.maxx_steps", "no such key", "'trainer.max_steps'"),
    ),
    "unknown top key": (
        lambda tmp: ["--seed_everithing", "1"],
        ("seed_everithing", "no such key", "'seed_everything'"),
    ),
    "several processes": (
        lambda tmp: ["--trainer.devices", "2", "--trainer.strategy", "ddp"],
        ("trainer.devices", "2 processes", "set 1"),
    ),
    "no checkpoints": (
        lambda tmp: ["--trainer.enable_checkpointing", "false"],
        ("trainer.enable_checkpointing", "could not be resumed", "checkpoint.every"),
    ),
    "key typed in part": (
        lambda tmp: ["--trainer.max_st", "1"],
        ("trainer.max_st", "no such key", "'trainer.max_steps'"),
    ),
    "unknown data key in a file": (
        lambda tmp: ["--config", file_with(tmp / "c.yaml", "data:\n  num_query: 1\n")],
        ("data.num_query", "no such key", "'data.num_queries'"),
    ),
    "unknown nested key in a file": (
        lambda tmp: ["--config", file_with(tmp / "c.yaml", "data:\n  solver:\n    top: 1\n")],
        ("data.solver", "top"),
    ),
    "no queries": (lambda tmp: ["--data.num_queries", "0"], ("data.num_queries", "is 0", "set")),
    "wrong type": (
        lambda tmp: ["--data.num_queries", "abc"],
        ("data.num_queries", "abc", "a whole number"),
    ),
    "greedy training": (
        lambda tmp: ["--data.solver.temperature", "0"],
        ("data.solver.temperature", "above 0"),
    ),
    "unknown objective": (
        lambda tmp: ["--model.objective", "lsp_lightning.Maximin"],
        ("model.objective", "cannot import lsp_lightning.Maximin"),
    ),
    "unknown kl": (lambda tmp: ["--model.kl", "k4"], ("model.kl", "k4", "k1_in_reward")),
    "half precision": (
        lambda tmp: ["--trainer.precision", "16-mixed"],
        ("trainer.precision", "16-mixed", "model.dtype"),
    ),
    "accumulation": (
        lambda tmp: ["--trainer.accumulate_grad_batches", "2"],
        ("trainer.accumulate_grad_batches", "model.micro_batch_tokens"),
    ),
    "clipping by the trainer": (
        lambda tmp: ["--trainer.gradient_clip_val", "1.0"],
        ("trainer.gradient_clip_val", "model.max_grad_norm"),
    ),
    "no task reward": (
        lambda tmp: ["--model.rewards", json.dumps([SELF_REWARD])],
        ("model.rewards", "task", "VerifiableReward"),
    ),
    "unknown reward": (
        lambda tmp: ["--model.rewards", json.dumps([{"class_path": "lsp_lightning.NoReward"}])],
        ("model.rewards", "NoReward"),
    ),
    "line without a query in a prompt file": (
        lambda tmp: ["--data.heldout", file_with(tmp / "q.jsonl", '{"query": "a"}\n\n{}\n')],
        ("data.heldout", "line 3", "q.jsonl", "has no 'query' text"),
    ),
    "missing prompt file": (
        lambda tmp: ["--data.heldout", "no_such.jsonl"],
        ("data.heldout", "no file", "no_such.jsonl"),
    ),
    "missing checkpoint": (
        lambda tmp: ["--ckpt_path", "no/such/last.ckpt"],
        ("ckpt_path", "no/such/last.ckpt", "give"),
    ),
    "missing config": (lambda tmp: ["--config", "no_such.yaml"], ("config", "no_such.yaml")),
    "broken config": (
        lambda tmp: ["--config", file_with(tmp / "c.yaml", "model: [1, {2\n")],
        ("config", "c.yaml"),
    ),
    "config that is a list": (
        lambda tmp: ["--config", file_with(tmp / "c.yaml", "- 1\n- 2\n")],
        ("config",),
    ),
    "unknown accelerator": (
        lambda tmp: ["--trainer.accelerator", "cuba"],
        ("trainer.accelerator", "'cuba'", "cpu"),
    ),
    "no rounds": (lambda tmp: ["--trainer.max_steps", "-1"], ("trainer.max_steps", "set")),
    "unknown quantization": (
        lambda tmp: ["--model.quantization", "nf5"],
        ("model.quantization", "must be one of 'nf4'"),
    ),
    "16 bits trained whole": (
        lambda tmp: ["--model.dtype", "float16", "--model.lora", "null"],
        ("model.dtype", "float16", "set model.lora"),
    ),
    "longer than the context": (
        lambda tmp: ["--data.solver.max_new_tokens", "5000"],
        ("data.solver.max_new_tokens", "5000", "context"),
    ),
    **(
        {}
        if torch.cuda.is_available()
        else {
            "no such accelerator here": (
                lambda tmp: ["--trainer.accelerator", "gpu"],
                ("trainer.accelerator", "finds no GPU", "set cpu"),
            )
        }
    ),
}


# what the classes refuse themselves: the command shows it as it shows the mistakes above
REFUSED = {
    "one query": (
        lambda tmp: data(queries=Challenger(), num_queries=1),
        ("data.num_queries", "is 1", "set 2"),
    ),
    "one answer": (lambda tmp: data(group_size=1), ("data.group_size", "is 1", "set 2")),
    "endless round": (
        lambda tmp: data(num_queries=10**30),
        ("data.num_queries", "too many", "at most 1,000,000 answers"),
    ),
    "impossible top-p": (lambda tmp: data(solver=Sampling(top_p=0)), ("top_p", "set")),
    "greedy challenger": (
        lambda tmp: data(queries=Challenger(sampling=Sampling(temperature=0))),
        ("data.queries.init_args.sampling.temperature", "above 0"),
    ),
    "missing challenger prompt": (
        lambda tmp: data(queries=Challenger(prompt="no_ch.txt")),
        ("data.queries.init_args.prompt", "no file", "no_ch.txt"),
    ),
    "line without a query in the queries": (
        lambda tmp: data(queries=PromptFile(file_with(tmp / "q.jsonl", '\n{}\n{"query": "a"}\n'))),
        ("data.queries", "line 2", "q.jsonl", "has no 'query' text"),
    ),
    "negative beta": (lambda tmp: module(beta=-1), ("model.beta", "-1", "0 or more")),
    "negative alpha": (lambda tmp: module(alpha_ch=-1), ("model.alpha_ch", "-1", "0 or more")),
    "a gradient clipped to a negative norm": (
        lambda tmp: module(max_grad_norm=-1),
        ("model.max_grad_norm", "is -1", "null"),
    ),
    "an adapter without rank": (
        lambda tmp: module(lora=Lora(rank=0)),
        ("model.lora.rank", "is 0", "set 1 or more"),
    ),
    "no rewards": (lambda tmp: module(rewards=[]), ("model.rewards", "task")),
    "two rewards of one name": (
        lambda tmp: module(rewards=[task_reward(), task_reward()]),
        ("model.rewards", "'verifiable'", "init_args.name"),
    ),
    "missing judge prompt": (
        lambda tmp: module(rewards=[task_reward(), SelfReward(prompt="no_judge.txt")]),
        ("model.rewards", "no file", "no_judge.txt"),
    ),
    "missing adapter": (
        lambda tmp: module(init_adapter="./nowhere"),
        ("model.init_adapter", "nowhere", "adapter"),
    ),
    "adapter without lora": (
        lambda tmp: module(lora=None, init_adapter=adapter_in(tmp / "a")),
        ("model.init_adapter", "LoRA"),
    ),
    "4 bits trained whole": (
        lambda tmp: module(quantization="nf4", lora=None),
        ("model.quantization", "set model.lora"),
    ),
    "no tokens to roll out": (
        lambda tmp: module(rollouts=LocalRollouts(0)),
        ("model.rollouts.tokens", "is 0", "1 or more"),
    ),
}


def task_reward():
    return VerifiableReward(TinyWorldVerifier())


def module(**settings):
    return SelfPlayModule(WORLD, **{"rewards": [task_reward()], **settings})


def data(**settings):
    queries = PromptFile("pkg:lsp_lightning/tinyworld/data/dev.jsonl")
    return SelfPlayDataModule(**{"queries": queries, **settings})


def adapter_in(folder: Path):
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").touch()
    return str(folder)


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_is_one_line_that_names_key_and_remedy(
    mistake, tasks, tmp_path, capfd, no_model, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    make_args, words = MISTAKES[mistake]
    code = status(fit_args(tmp_path / "run", tasks, *make_args(tmp_path)))
    shown = capfd.readouterr()
    assert code == 2
    assert len(shown.err.strip().splitlines()) == 1, shown.err
    assert shown.err.startswith("error: ")
    assert len(shown.err) < 500
    for word in words:
        assert word in shown.err
    assert not (tmp_path / "run" / "config.yaml").exists()
    if mistake in ("16 bits trained whole", "longer than the context"):
        left = {path.name for path in (tmp_path / "run").iterdir()}
        assert left <= {".claimed"}  # which goes when the process ends


@pytest.mark.parametrize("mistake", sorted(REFUSED))
def test_what_a_class_refuses_is_one_line_too(mistake, tmp_path, monkeypatch, no_model):
    monkeypatch.chdir(tmp_path)
    make, words = REFUSED[mistake]
    with pytest.raises(ConfigError) as error:
        make(tmp_path)
    assert len(str(error.value).splitlines()) == 1
    assert len(str(error.value)) < 500
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["fitt"], ("fitt", "'fit'")),
        (["nonsense"], ("nonsense", "fit", "predict")),
        (["--config", TINY, "fit"], ("--config", "put the command before its flags")),
        (["fit", "--config"], ("config",)),
        (["fit", "fit"], ("fit",)),
        (["fit"], ("model",)),
        (["test", "--config", TINY, "--data.test", "null"], ("data.test", "give")),
        (["predict", "--config", TINY, "--data.test", "null", "--data.heldout", "null"], ("data",)),
    ],
    ids=lambda value: " ".join(value).replace(str(ROOT), "") if isinstance(value, list) else "",
)
def test_a_mistake_in_the_command_is_one_line_too(args, words, capfd, no_model):
    assert status(args) == 2
    shown = capfd.readouterr().err
    assert len(shown.strip().splitlines()) == 1, shown
    for word in words:
        assert word in shown


@pytest.fixture
def resumed_rates(monkeypatch):
    """The optimiser's rate at the end of every fit that was not refused."""
    rates = []
    fit = Trainer.fit

    def looked_at(self, *args, **kwargs):
        fit(self, *args, **kwargs)
        rates.append(self.optimizers[0].param_groups[0]["lr"])

    looked_at.__wrapped__ = fit
    monkeypatch.setattr(Trainer, "fit", looked_at)
    return rates


@pytest.mark.slow
def test_resuming_with_another_adapter_is_refused_and_leaves_the_run_as_it_was(
    finished, tmp_path, capfd, resumed_rates
):
    checkpoint = moved(finished, tmp_path / "run")
    config = (tmp_path / "run" / "config.yaml").read_text()
    assert status(["fit", "--ckpt_path", str(checkpoint), "--model.lora.rank", "4"]) == 2
    shown = capfd.readouterr()
    [line] = [line for line in shown.err.splitlines() if line.startswith("error: ")]
    assert "model.lora" in line
    assert "Traceback" not in shown.err
    assert "resume it with" not in shown.out
    assert (tmp_path / "run" / "config.yaml").read_text() == config
    # it can be resumed still, and a rate typed then is in force
    args = ["fit", "--ckpt_path", str(checkpoint), "--trainer.max_steps", "3"]
    assert main([*args, "--model.optimizer.init_args.lr", "0.0001"]) == 0
    assert resumed_rates == [0.0001]


@pytest.mark.slow
def test_scores_of_other_tasks_are_not_compared_after_a_resume(finished, tmp_path, capfd):
    checkpoint = moved(finished, tmp_path / "run")
    more = ["--trainer.max_steps", "3", "--data.solver.temperature", "0.3"]
    assert main(["fit", "--ckpt_path", str(checkpoint), *more]) == 0
    assert "solver.temperature changed: 1.0 in the checkpoint, 0.3 now" in capfd.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["heldout_before"] is None


def test_runs_started_together_get_a_folder_each(tmp_path):
    folders = [claim_run_folder(tmp_path / "run", None) for _ in range(3)]
    assert [folder.name for folder in folders] == ["run", "run-2", "run-3"]


@pytest.mark.parametrize("name", ["~/a run", "~/x/../a run"])
def test_a_tilde_in_the_folder_is_the_home_folder(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = claim_run_folder(Path(name), None)
    assert folder == tmp_path / "a run"
    assert claim_run_folder(Path(name), str(folder / "checkpoints" / "last.ckpt")) == folder


@pytest.mark.slow
def test_another_logger_comes_beside_the_table(tasks, tmp_path):
    logger = json.dumps(
        {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path / "csv")}}
    )
    short = ["--trainer.max_steps", "1", "--data.heldout", "null"]
    args = fit_args(tmp_path / "run", tasks, "--trainer.logger", logger, *short)
    assert main(args) == 0
    assert rounds_in(tmp_path / "run") == [0]
    assert (tmp_path / "run" / "config.yaml").is_file()
    assert main(args) == 0
    assert (tmp_path / "run-2" / "checkpoints" / "last.ckpt").is_file()


class Failing(Reward):
    """Judges one round, then nothing more."""

    def __init__(self):
        super().__init__(name="failing")
        self.rounds = 0

    def score(self, playout):
        self.rounds += 1
        if self.rounds > 1:
            raise RuntimeError("the judge has gone home")
        return torch.zeros(len(playout.query_texts), playout.group_size)


def test_a_reward_that_fails_is_shown_with_its_place_and_the_run_can_be_resumed(tmp_path, capfd):
    rewards = json.dumps([{"class_path": f"{__name__}.Failing"}])
    # without held-out tasks, which this reward would score first
    args = fit_args(tmp_path / "run", "null", "--data.test", "null")
    assert main([*args, "--model.rewards", rewards]) == 1
    shown = capfd.readouterr().err
    [line] = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert "'failing'" in line
    assert "gone home" in line
    assert "in score" in shown  # where in the user's own code it failed
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_file()
    assert rounds_in(tmp_path / "run") == [0]
    assert {row["round"] for row in transcript(tmp_path / "run")} == {0}


def test_a_run_that_diverges_ends_with_one_line_and_is_no_success(tasks, tmp_path, capfd):
    rate = ("--model.optimizer.init_args.lr", "1e39")
    assert status(fit_args(tmp_path / "run", tasks, "--data.heldout", "null", *rate)) == 1
    error = capfd.readouterr().err
    assert error.splitlines()[-1].startswith("error: training diverged: ")
    assert "Traceback" not in error
    assert not (tmp_path / "run" / "checkpoints").exists()
    assert not (tmp_path / "run" / "adapter").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGKILL", -9)])
def test_a_killed_run_is_resumed_and_ends_as_the_uninterrupted_one(tasks, tmp_path, name, code):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "lsp_lightning", *fit_args(run, tasks)]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--trainer.max_steps", "4000"],
            stdout=log,
            stderr=log,
            cwd=ROOT,
            # a process started in the background may have been told to ignore it
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            deadline = time.monotonic() + 90
            # a round has both
            while not all((run / f).is_file() for f in ("checkpoints/last.ckpt", "metrics.csv")):
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.05)
            process.send_signal(getattr(signal, name))
            assert process.wait(60) == code, (tmp_path / "log").read_text()
        finally:
            process.kill()
    checkpoint = run / "checkpoints" / "last.ckpt"
    rounds = max(rounds_in(run)) + 3
    more = ["--trainer.max_steps", str(rounds)]
    assert main(["fit", "--ckpt_path", str(checkpoint), *more]) == 0
    # the row of a round is written before its checkpoint: none is missing
    assert rounds_in(run) == [*range(rounds)]
    whole = tmp_path / "whole"
    assert main([*fit_args(whole, tasks), *more]) == 0
    weights = "adapter/adapter_model.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()


@pytest.mark.slow
def test_a_run_that_a_validation_ends_is_resumed_from_its_last_round(tasks, tmp_path):
    stop = {"monitor": "heldout/greedy", "mode": "max", "stopping_threshold": -1.0}
    callbacks = json.dumps({"class_path": "EarlyStopping", "init_args": stop})
    args = fit_args(tmp_path / "run", tasks, "--trainer.callbacks", callbacks)
    more = ["--trainer.max_steps", "6", "--trainer.val_check_interval", "2"]
    assert main([*args, *more]) == 0
    assert rounds_in(tmp_path / "run") == [0, 1]
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    on = ["--ckpt_path", str(checkpoint), "--trainer.callbacks", "null", "--trainer.max_steps", "3"]
    assert main(["fit", *on]) == 0
    assert rounds_in(tmp_path / "run") == [0, 1, 2]
