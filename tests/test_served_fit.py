"""Whole runs with rollouts from a test server: vLLM's protocol, a real small model."""

import csv
import io
import json
import shutil
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from few import few
from lightning.pytorch import Callback
from loopback import free_port, hangs, hangs_up
from rollout_server import RolloutServer, as_json
from small_game import SHORT_PROMPT, Checksum, tiny_trainer

from lsp_lightning import (
    Challenger,
    Lora,
    Sampling,
    SelfPlayDataModule,
    SelfPlayModule,
    ServedRollouts,
    VerifiableReward,
    planning,
)
from lsp_lightning.cli.main import main
from lsp_lightning.generation.served import adapters as publishing
from lsp_lightning.generation.served import client as served_client
from lsp_lightning.paths import resolve
from lsp_lightning.runtime import http
from lsp_lightning.runtime.http import Client

pytestmark = pytest.mark.usefixtures("short_pauses", "one_retry")

ROOT = Path(__file__).parent.parent
TINY = str(ROOT / "configs" / "tiny_lsp.yaml")
WORLD = resolve("pkg:lsp_lightning/tinyworld/base")
N, G = 3, 2
#: Requests of a round: one for all queries, one for the answers to each.
REQUESTS = 1 + N


@pytest.fixture(scope="module")
def base(brief_folder):
    return brief_folder


@pytest.fixture
def server(base):
    with RolloutServer(base) as server:
        yield server


@pytest.fixture
def one_retry(monkeypatch):
    monkeypatch.setattr(http, "RETRIES", 1)


def served(server, folder, **client):
    return ServedRollouts(server.url, "base", str(folder), Client(**{"timeout": 20.0, **client}))


def make_module(base, lr, **kwargs):
    torch.manual_seed(3)  # as seed_everything does, for the adapter's first weights
    return SelfPlayModule(
        str(base),
        **{
            "lora": Lora(rank=4, alpha=8),
            "rewards": [VerifiableReward(Checksum())],
            "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=lr),
            "max_grad_norm": None,
            **kwargs,
        },
    )


def make_data(**kwargs):
    return SelfPlayDataModule(
        queries=Challenger(prompt=SHORT_PROMPT, sampling=Sampling(max_new_tokens=8)),
        num_queries=N,
        group_size=G,
        solver=Sampling(max_new_tokens=6),
        seed=11,
        **kwargs,
    )


def trained(module):
    return torch.cat([p.detach().flatten() for p in module.parameters() if p.requires_grad])


class Diary(Callback):
    """Records the metrics and the adapter names of each round."""

    def __init__(self, server):
        self.server, self.seen = server, 0
        self.metrics, self.adapters = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        asked, self.seen = self.server.requests[self.seen :], len(self.server.requests)
        self.adapters.append({request["model"] for request in asked})
        self.metrics.append({k: float(v) for k, v in trainer.callback_metrics.items()})


# Under Lightning's own Trainer.


def test_every_round_is_drawn_by_the_weights_of_the_step_before(base, server, tmp_path):
    tasks = tmp_path / "tasks.jsonl"
    tasks.write_text('{"query": "one"}\n{"query": "two"}\n')
    # large steps, so that the log-probs of older weights would differ clearly
    module = make_module(base, lr=2.0, rollouts=served(server, tmp_path / "adapters"))
    diary = Diary(server)
    tiny_trainer(tmp_path, 3, [diary]).fit(module, datamodule=make_data(heldout=str(tasks)))
    names = [name for (name,) in diary.adapters]
    run = names[0].rpartition("-")[0]
    # held-out answers before the first round use its adapter; those at the end the last one
    assert names == [f"{run}-{version:06d}" for version in (1, 2, 3)]
    assert server.log[-2:] == [f"load {run}-000004", f"unload {run}-000004"]
    for metrics in diary.metrics:
        assert metrics["importance/logprob_gap"] < 1e-4
        assert metrics["importance/weight"] == pytest.approx(1.0, abs=1e-3)
        assert metrics["importance/capped"] == 0.0
    assert server.most_loaded == 1
    assert not server.adapters
    assert not list((tmp_path / "adapters").glob("*/*"))


def test_a_server_with_older_weights_is_seen_in_the_metrics(base, server, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "fingerprint", lambda policy: "always the same")
    module = make_module(base, lr=2.0, rollouts=served(server, tmp_path / "adapters"))
    diary = Diary(server)
    tiny_trainer(tmp_path, 2, [diary]).fit(module, datamodule=make_data())
    assert [len(names) for names in diary.adapters] == [1, 1]
    gaps = [metrics["importance/logprob_gap"] for metrics in diary.metrics]
    assert gaps[0] < 1e-4
    assert gaps[1] > 0.01


class Recorded:
    """An engine that records its samples by prompt, in order."""

    def __init__(self, engine):
        self.engine, self.drawn = engine, defaultdict(list)

    def generate(self, prompts, draws, sampling, seed, finished=None):
        found = self.engine.generate(prompts, draws, sampling, seed, finished)
        for i, prompt in enumerate(prompts):
            rows = range(i * draws, (i + 1) * draws)
            self.drawn[tuple(prompt)].append(
                [
                    (found.ids[r][found.mask[r]].tolist(), found.logprobs[r][found.mask[r]])
                    for r in rows
                ]
            )
        return found


def replaying(drawn):
    """A server script that replays recorded samples."""

    def script(k, request):
        completions = drawn[tuple(request["prompt"])].pop(0)
        choices = [
            {
                "index": j,
                "text": "",
                "token_ids": ids,
                "logprobs": {"token_logprobs": logprobs.tolist()},
            }
            for j, (ids, logprobs) in enumerate(completions)
        ]
        return as_json({"model": request["model"], "choices": choices})

    return script


@pytest.mark.parametrize("kl", few(1, ["k1_in_reward", "k2_loss"]))
def test_the_same_draws_by_a_server_make_the_same_run(base, server, tmp_path, kl):
    """Two rounds through the server give the same weights as without it."""
    here = make_module(base, lr=1.0, kl=kl, beta=0.2)
    here.configure_model()
    start = trained(here)
    recorded = Recorded(here.player.engine)
    here._player = replace(here.player, engine=recorded)
    tiny_trainer(tmp_path / "here", 2).fit(here, datamodule=make_data())
    assert (trained(here) - start).norm() > 0.1

    server.script = replaying(recorded.drawn)
    rollouts = served(server, tmp_path / "adapters", concurrency=1)
    there = make_module(base, lr=1.0, kl=kl, beta=0.2, rollouts=rollouts)
    diary = Diary(server)
    tiny_trainer(tmp_path / "there", 2, [diary]).fit(there, datamodule=make_data())
    assert not any(recorded.drawn.values())
    assert len(set.union(*diary.adapters)) == 2
    difference = (trained(there) - trained(here)).norm() / (trained(here) - start).norm()
    assert difference < 1e-4


class Falls(Checksum):
    """Fails in the second round."""

    calls = 0

    def check(self, query, answers, solution):
        self.calls += 1
        if self.calls > N:
            raise RuntimeError("it fell")
        return super().check(query, answers, solution)


def test_a_run_that_fails_unloads_its_adapter_from_the_server(base, server, tmp_path):
    rollouts = served(server, tmp_path / "adapters")
    module = make_module(base, 1.0, rewards=[VerifiableReward(Falls())], rollouts=rollouts)
    with pytest.raises(Exception, match="it fell"):
        tiny_trainer(tmp_path, 3).fit(module, datamodule=make_data())
    assert [line.split()[0] for line in server.log] == ["load", "unload"] * 2
    assert not server.adapters
    assert not list((tmp_path / "adapters").glob("*/*"))


def test_the_end_of_a_run_does_not_wait_for_a_server_that_hangs(
    base, server, tmp_path, monkeypatch
):
    monkeypatch.setattr(served_client, "_QUICK_SECONDS", 0.2)
    monkeypatch.setattr(http, "RETRIES", 9)
    rollouts = served(server, tmp_path / "adapters", timeout=60.0)
    module = make_module(base, 1.0, rollouts=rollouts)
    module.player.engine.generate([[5, 6]], 1, Sampling(max_new_tokens=2), seed=0)
    monkeypatch.setattr(server, "unload", lambda request: server.closing.wait(30))
    with pytest.warns(
        UserWarning, match=r"stays loaded on the rollout server \(.*did not answer within 0\.2 s\)"
    ):
        module.player.engine.close()


# On the command line.


@pytest.fixture
def world():
    """A server with the tiny world's base model."""
    with RolloutServer(WORLD) as server:
        yield server


def fit_args(run, *more):
    """Two small rounds on the tiny world."""
    return [
        *("fit", "--config", TINY),
        *("--trainer.default_root_dir", str(run)),
        *("--trainer.max_steps", "2"),
        *("--data.num_queries", str(N)),
        *("--data.group_size", str(G)),
        *("--data.heldout", "null"),
        *("--data.queries.init_args.sampling.max_new_tokens", "12"),
        *("--data.solver.max_new_tokens", "4"),
        *more,
    ]


def by_server(url, folder, **others):
    """Flags for rollouts from a server."""
    init = {"url": url, "model": "base", "adapter_folder": str(folder), **others}
    return ["--model.rollouts", json.dumps({"class_path": "ServedRollouts", "init_args": init})]


def status(args):
    try:
        return main(args)
    except SystemExit as exit_:
        return exit_.code or 0


def rounds_in(run):
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file) if row["reward"]]


def error_lines(capfd):
    """The error lines on stderr; there must be no traceback."""
    lines = capfd.readouterr().err.splitlines()
    assert not [line for line in lines if "Traceback" in line]
    return [line for line in lines if line.startswith("error: ")]


def dies_in_round_two(server):
    """A script that stops the server in the middle of the second round's answers."""

    def script(k, request):
        if k < REQUESTS + 2:
            return None
        server.die()
        return hangs_up

    return script


@pytest.mark.slow
@pytest.mark.usefixtures("untouched_process")
def test_a_run_that_loses_its_server_stops_with_one_line_and_resumes_in_both_ways(
    world, tmp_path, capfd
):
    """To the same end with a server again, or in this process, which it says."""
    whole, run = tmp_path / "whole", tmp_path / "run"
    flags = by_server(world.url, tmp_path / "adapters")
    assert main(fit_args(whole, *flags)) == 0
    assert world.adapters == {}
    with (whole / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["reward"]]
    assert all(float(row["importance/logprob_gap"]) < 1e-3 for row in rows)

    world.requests.clear()
    world.script = dies_in_round_two(world)
    capfd.readouterr()
    assert status(fit_args(run, *flags)) == 1
    [line] = error_lines(capfd)
    assert line.startswith("error: rollouts: ")
    for part in (world.url, "restart it if needed, and resume from the last checkpoint"):
        assert part in line
    assert rounds_in(run) == [0]
    checkpoint = run / "checkpoints" / "last.ckpt"
    assert checkpoint.is_file()
    here = shutil.copytree(run, tmp_path / "here")

    with RolloutServer(WORLD, port=world.port) as back:
        # its config writes adapters to a folder outside of the run's
        assert main(["fit", "--ckpt_path", str(checkpoint), "--trust"]) == 0
        assert len(back.requests) == REQUESTS
    assert rounds_in(run) == [0, 1]
    weights = "adapter/adapter_model.safetensors"
    assert (run / weights).read_bytes() == (whole / weights).read_bytes()

    config = here / "config.yaml"
    config.write_text(config.read_text().replace(str(run), str(here)))
    capfd.readouterr()
    checkpoint = str(here / "checkpoints" / "last.ckpt")
    assert main(["fit", "--ckpt_path", checkpoint, "--model.rollouts", "LocalRollouts"]) == 0
    shown = capfd.readouterr().out
    assert "rollouts.class changed: 'ServedRollouts' in the checkpoint" in shown
    assert rounds_in(here) == [0, 1]


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.slow
def test_plan_export_and_chat_need_no_server(tmp_path, capfd, monkeypatch):
    run = tmp_path / "run"
    assert main([*fit_args(run), "--trainer.max_steps", "1"]) == 0
    checkpoint = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
    nobody = by_server(f"http://127.0.0.1:{free_port()}/v1", tmp_path / "adapters")
    monkeypatch.setattr("sys.stdin", io.StringIO("1+1=\n"))
    assert main(["chat", *checkpoint, *nobody]) == 0
    assert main(["export", *checkpoint, *nobody, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()
    # the dry run that follows the settings takes seconds and has tests of its own
    monkeypatch.setattr(planning, "report", lambda settings, gpu_gib: "planned")
    capfd.readouterr()
    assert main(["plan", "--config", TINY, *nobody]) == 0
    assert "planned" in capfd.readouterr().out
    assert status(["fit", *checkpoint, *nobody]) == 2
    [line] = error_lines(capfd)
    assert "model.rollouts.url: no server at" in line


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize("misbehaviour", few(1, [hangs_up, hangs]))
def test_a_server_that_is_lost_in_the_first_round_is_one_line(world, tmp_path, capfd, misbehaviour):
    world.script = lambda k, request: misbehaviour
    flags = by_server(world.url, tmp_path / "adapters", client={"timeout": 0.5})
    assert status(fit_args(tmp_path / "run", *flags)) == 1
    [line] = error_lines(capfd)
    assert line.startswith("error: rollouts: ")


# Settings on the command line.


def printed(capfd, *args):
    """``model.rollouts`` as --print_config has it."""
    assert status(["fit", "--config", TINY, *args, "--print_config"]) == 0
    return yaml.safe_load(capfd.readouterr().out)["model"]["rollouts"]


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize(
    "args",
    [
        ["--model.rollouts.tokens", "9"],
        ["--model.rollouts.init_args.tokens", "9"],
        ["--model.rollouts", "LocalRollouts", "--model.rollouts.tokens", "9"],
        ["model: {rollouts: {tokens: 9}}"],
        ["model: {rollouts: {class_path: lsp_lightning.LocalRollouts, init_args: {tokens: 9}}}"],
    ],
)
def test_the_tokens_can_be_set_in_each_way(args, tmp_path, capfd):
    if len(args) == 1:
        (tmp_path / "overlay.yaml").write_text(args[0])
        args = ["--config", str(tmp_path / "overlay.yaml")]
    rollouts = printed(capfd, *args)
    assert rollouts["class_path"].endswith("LocalRollouts")
    assert rollouts["init_args"] == {"tokens": 9}


@pytest.mark.usefixtures("untouched_process")
def test_the_overlay_goes_over_a_preset_and_keeps_its_tokens(capfd):
    names = ["gpu24_qwen3_4b.yaml", "rollouts/vllm.yaml"]
    layers = [word for name in names for word in ("--config", str(ROOT / "configs" / name))]
    rollouts = printed(capfd, *layers, "--model.rollouts.client.timeout", "9")
    assert rollouts["class_path"].endswith("ServedRollouts")
    told = rollouts["init_args"]
    assert told["model"] == "Qwen/Qwen3-4B"
    assert told["client"] == {"api_key_env": None, "timeout": 9.0, "concurrency": 64}
    preset = yaml.safe_load((ROOT / "configs" / names[0]).read_text())
    assert told["tokens"] == preset["model"]["rollouts"]["tokens"] != 65_536


MISTAKES = {
    "tokens that are none": (
        ["--model.rollouts.tokens", "many"],
        "error: model.rollouts.init_args.tokens: must be a whole number",
    ),
    "tokens set to nothing": (
        ["--model.rollouts.tokens", "null"],
        "model.rollouts.tokens: is None",
    ),
    "no such engine": (["--model.rollouts", "Nowhere"], "model.rollouts"),
    "no such key": (
        ["--model.rollouts.token", "9"],
        "error: model.rollouts.init_args.token: there is no such key; did you mean 'tokens'",
    ),
    "another engine's key": (
        ["--model.rollouts.url", "http://127.0.0.1:1/v1"],
        "error: model.rollouts.init_args.url: there is no such key; the keys here are tokens",
    ),
    "no url": (
        ["--model.rollouts", "ServedRollouts"],
        "error: model.rollouts.init_args.url: not set",
    ),
    "whole weights": (
        [*by_server("http://127.0.0.1:1/v1", "x"), "--model.lora", "null"],
        "model.rollouts: a server can load a new adapter",
    ),
    "nobody there": (
        by_server(f"http://127.0.0.1:{free_port()}/v1", "x"),
        "model.rollouts.url: no server at",
    ),
}


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_key(mistake, tmp_path, capfd, no_model):
    args, words = MISTAKES[mistake]
    assert status(fit_args(tmp_path / "run", *args)) == 2
    [line] = error_lines(capfd)
    assert words in line
    assert len(line) < 500
    assert not (tmp_path / "run" / "config.yaml").exists()
