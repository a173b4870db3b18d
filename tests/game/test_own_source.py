"""Your own query source and your own objective are one short file each, and a run takes them."""

import csv
import json
from pathlib import Path

import pytest

from lsp_lightning.cli.main import main

ROOT = Path(__file__).parents[2]
MOST_LINES = 20

SOURCE = '''\
from lsp_lightning import QueryBatch, QuerySource, Sampling, Written
from lsp_lightning.seeding import derive_seed


class Topics(QuerySource):
    """The Challenger writes about another topic in each round."""

    selfplay = True
    sampling = Sampling(max_new_tokens=16)

    def draw(self, player, num_queries, index, seed):
        assert player.pad_id is not None  # the real player: no code of yours runs against a fake
        topic = ("sums", "letters")[index % 2]
        prompt = player.codec.encode("ask: {topic}", {"topic": topic})
        rollouts = player.respond([prompt], num_queries, self.sampling, derive_seed(seed, index))
        valid = [bool(text.strip()) for text in rollouts.texts]
        return QueryBatch(rollouts.texts, Written.all_answered(rollouts, valid))
'''

OBJECTIVE = '''\
from lsp_lightning import Objective


class Best(Objective):
    """Pays for queries whose best answer stands out."""

    def challenger_rewards(self, played):
        return played.rewards_NG.amax(dim=1) - played.values_N
'''

FROM_ELSEWHERE = '''\
from lsp_lightning import QueryBatch, QuerySource


class Sums(QuerySource):
    """Sums with their solutions, from no file."""

    def draw(self, player, num_queries, index, seed):
        pairs = [(index + i, i) for i in range(num_queries)]
        queries = tuple(f"{a}+{b}=?" for a, b in pairs)
        return QueryBatch(queries, solutions=tuple(str(a + b) for a, b in pairs))
'''


def play(folder, monkeypatch, *arguments) -> list[dict[str, str]]:
    """Two rounds by the command line in ``folder``; the rows of its metrics."""
    for name, text in (("topics", SOURCE), ("best", OBJECTIVE), ("sums", FROM_ELSEWHERE)):
        assert len(text.splitlines()) <= MOST_LINES
        (folder / f"own_{name}.py").write_text(text)
    monkeypatch.chdir(folder)
    fixed = [
        *("--trainer.max_steps", "2", "--trainer.default_root_dir", "run"),
        *("--data.num_queries", "4", "--data.group_size", "2", "--data.heldout", "null"),
    ]
    config = str(ROOT / "configs" / "tiny_lsp_zero.yaml")
    assert main(["fit", "--config", config, *fixed, *arguments]) == 0
    with (folder / "run" / "metrics.csv").open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["reward"]]


@pytest.mark.usefixtures("untouched_process")
def test_a_source_and_an_objective_outside_of_the_package_play_by_dotted_path(
    tmp_path, monkeypatch, capfd
):
    rows = play(
        tmp_path,
        monkeypatch,
        *("--data.queries", json.dumps({"class_path": "own_topics.Topics"})),
        *("--model.objective", json.dumps({"class_path": "own_best.Best"})),
    )
    assert len(rows) == 2
    assert all(float(row["queries/tokens"]) <= 16 for row in rows)
    assert all(row["advantage_std/challenger"] for row in rows)
    assert "Topics" not in capfd.readouterr().err  # no warning about a source it does not know


@pytest.mark.usefixtures("untouched_process")
def test_a_source_without_a_challenger_trains_the_solver_alone(tmp_path, monkeypatch):
    source = ("--data.queries", json.dumps({"class_path": "own_sums.Sums"}))
    rows = play(tmp_path, monkeypatch, *source)
    assert len(rows) == 2
    assert not any(row.get("advantage_std/challenger") for row in rows)
