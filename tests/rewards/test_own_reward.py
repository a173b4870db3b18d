"""Your own reward and your own verifier are at most 20 lines each, and a run takes them."""

import csv
import json
from pathlib import Path

import pytest

from lsp_lightning.cli.main import main

ROOT = Path(__file__).parents[2]
MOST_LINES = 20

REWARD = '''\
import torch
from lsp_lightning import Reward


class Short(Reward):
    """1 for answers of at most three characters."""

    binary = True

    def score(self, playout):
        groups = playout.spoken_groups()
        return torch.tensor([[float(len(answer) <= 3) for answer in group] for group in groups])
'''

VERIFIER = '''\
from lsp_lightning import Verifier


class Echo(Verifier):
    """The right answer is the query's last word; a query of one word is malformed."""

    def check(self, query, answers, solution):
        words = query.split()
        return [float(len(words) > 1 and answer.strip() == words[-1]) for answer in answers]

    def describe(self, query):
        words = query.split()
        return {"words": len(words)} if len(words) > 1 else None
'''


def rewards_of(folder: Path) -> list[dict]:
    """The config of both, after writing them to the folder as a user would."""
    for name, source in (("my_reward", REWARD), ("my_verifier", VERIFIER)):
        assert len(source.splitlines()) <= MOST_LINES
        (folder / f"{name}.py").write_text(source)
    verifier = {"verifier": "my_verifier.Echo", "name": "echo"}
    return [
        {"class_path": "my_reward.Short"},
        {"class_path": "lsp_lightning.VerifiableReward", "init_args": verifier},
    ]


@pytest.mark.usefixtures("untouched_process")
def test_a_reward_and_a_verifier_outside_of_the_package_train_by_dotted_path(tmp_path, monkeypatch):
    tasks = (ROOT / "lsp_lightning/tinyworld/data/dev.jsonl").read_text().splitlines()[:3]
    (tmp_path / "tasks.jsonl").write_text("\n".join(tasks) + "\n")
    monkeypatch.chdir(tmp_path)
    arguments = [
        *("fit", "--config", str(ROOT / "configs/tiny_lsp_zero.yaml")),
        *("--model.rewards", json.dumps(rewards_of(tmp_path))),
        *("--trainer.max_steps", "1", "--trainer.default_root_dir", "run"),
        *("--data.num_queries", "4", "--data.group_size", "2"),
        *("--data.heldout", "tasks.jsonl", "--data.heldout_reward", "short"),
    ]
    assert main(arguments) == 0
    with (tmp_path / "run/metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    [row] = [row for row in rows if row["reward"]]
    for name in ("reward/short", "reward/echo", "queries/echo/malformed"):
        assert 0 <= float(row[name]) <= 1
    # R is the sum of both
    total = float(row["reward/short"]) + float(row["reward/echo"])
    assert float(row["reward"]) == pytest.approx(total)
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["heldout_after"]["kind"] == "solved"
    assert summary["heldout_after"]["n"] == 3
