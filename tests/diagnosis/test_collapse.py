"""A run that collapses says so, once, in its folder too; resuming changes nothing of it."""

import csv
import json
import warnings
from collections.abc import Sequence

import pytest
import torch
from few import few
from lightning.pytorch import Trainer
from small_game import SHORT_PROMPT, tiny_trainer

from lsp_lightning import (
    Challenger,
    Lora,
    PromptFile,
    Sampling,
    SelfPlayDataModule,
    SelfPlayModule,
    VerifiableReward,
)
from lsp_lightning.callbacks import RoundCheckpoint, RunTable
from lsp_lightning.cli.main import main
from lsp_lightning.diagnosis import SYMPTOMS, Finding
from lsp_lightning.diagnosis.collapse import CollapseWatch
from lsp_lightning.errors import SelfPlayWarning
from lsp_lightning.rewards import Verifier
from lsp_lightning.runs import RunFolder

#: Five first rounds and a window of ten: a symptom that begins in round 5 is found in round 14.
FOUND, ROUNDS = 14, 17


class Hardening(Verifier):
    """A game that becomes too hard: all answers are right, after five rounds only the first is."""

    def check(self, query: str, answers: Sequence[str], solution: object | None) -> list[float]:
        return [float(self.round < 5 or (i == 0 and len(answers) > 1)) for i in range(len(answers))]


class HardeningReward(VerifiableReward):
    """Knows its round, also after a resume."""

    def __init__(self) -> None:
        self.checker = Hardening()
        super().__init__(self.checker)
        self.checker.round = 0

    def observe(self, played) -> None:
        super().observe(played)
        self.checker.round = played.index + 1

    def state_dict(self):
        return {**super().state_dict(), "round": self.checker.round}

    def load_state_dict(self, state_dict) -> None:
        super().load_state_dict(state_dict)
        self.checker.round = state_dict["round"]


def fit(folder, base, rounds=ROUNDS, ckpt_path=None, queries=None, heldout=None) -> Trainer:
    torch.manual_seed(0)  # of the adapter
    challenger = Challenger(prompt=SHORT_PROMPT, sampling=Sampling(max_new_tokens=6))
    data = SelfPlayDataModule(
        queries=queries or challenger,
        num_queries=3,
        group_size=6,
        solver=Sampling(max_new_tokens=4),
        heldout=heldout,
        seed=3,
    )
    module = SelfPlayModule(str(base), [HardeningReward()], lora=Lora(rank=2, alpha=4))
    scoring = {} if heldout is None else {"val_check_interval": 6}
    table = RunTable(folder)
    trainer = tiny_trainer(folder, rounds, [RoundCheckpoint()], logger=[table], **scoring)
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    return trainer


def watch_of(trainer: Trainer) -> CollapseWatch:
    [watch] = [c for c in trainer.callbacks if isinstance(c, CollapseWatch)]
    return watch


def columns_of(folder) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


@pytest.fixture(scope="module")
def whole(brief_folder, tmp_path_factory):
    """A run in one go, with its warnings."""
    folder = tmp_path_factory.mktemp("whole")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit(folder, brief_folder)
    said = [str(w.message) for w in caught if w.category is SelfPlayWarning]
    return folder, trainer, said


def test_a_game_that_becomes_too_hard_is_warned_of_once_and_in_its_folder(whole):
    folder, _, said = whole
    [line] = [text for text in said if "solve_rate" in text]
    assert line.startswith("rounds 5-14: answers solve 17 % of the queries (solve_rate, 100 % in")
    [found] = [one for one in RunFolder(folder).warnings() if one["symptom"] == "too hard"]
    assert found == {"round": FOUND, "symptom": "too hard", "text": line}


@pytest.mark.parametrize("cut", few(1, [10, 3, FOUND + 1]))
def test_a_resumed_run_warns_and_logs_as_the_one_in_one_go(cut, whole, brief_folder, tmp_path):
    folder, trainer, _ = whole
    fit(tmp_path, brief_folder, rounds=cut)
    resumed = fit(tmp_path, brief_folder, ckpt_path=str(tmp_path / "checkpoints" / "last.ckpt"))
    assert RunFolder(tmp_path).warnings() == RunFolder(folder).warnings()
    assert watch_of(resumed).state_dict() == watch_of(trainer).state_dict()
    assert columns_of(tmp_path) == columns_of(folder)  # queries/seen among them


def test_warnings_of_rounds_that_are_played_again_are_dropped(whole, brief_folder, tmp_path):
    folder, _, _ = whole
    fit(tmp_path, brief_folder, rounds=10)
    path = RunFolder(tmp_path).warnings_path
    early = {"round": 2, "symptom": "mine", "text": "early"}
    stale = {"round": 12, "symptom": "too hard", "text": "of a crashed run"}
    path.write_text("".join(f"{json.dumps(line)}\n" for line in (early, stale)) + '{"round": 1')
    fit(tmp_path, brief_folder, ckpt_path=str(tmp_path / "checkpoints" / "last.ckpt"))
    assert RunFolder(tmp_path).warnings() == [early, *RunFolder(folder).warnings()]


def test_a_held_out_score_that_fell_is_named_once_also_in_a_resumed_run(brief_folder, tmp_path):
    file = tmp_path / "tasks.jsonl"
    file.write_text("".join(f'{{"query": "say {word}"}}\n' for word in ("a", "b", "c")))
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    fit(whole, brief_folder, rounds=12, heldout=str(file))
    [line] = RunFolder(whole).warnings()
    # a single answer is right in the first five rounds only; the score is taken after the sixth
    assert (line["round"], line["symptom"]) == (5, "skill falls")
    assert "the held-out score is 0 (heldout/greedy, 1 before training)" in line["text"]
    fit(cut, brief_folder, rounds=6, heldout=str(file))
    checkpoint = str(cut / "checkpoints" / "last.ckpt")  # it is older than the scores
    fit(cut, brief_folder, rounds=12, heldout=str(file), ckpt_path=checkpoint)
    assert RunFolder(cut).warnings() == [line]


def test_queries_of_a_file_are_measured_but_not_suspected(brief_folder, tmp_path):
    file = tmp_path / "queries.jsonl"
    file.write_text("".join(f'{{"query": "say {word}"}}\n' for word in ("a", "b", "c")))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, brief_folder, queries=PromptFile(str(file)))
    # each round has the same three queries, and the rounds become hard: that is the file's doing
    assert not [w for w in caught if str(w.message).startswith("rounds ")]
    rows = columns_of(tmp_path)
    assert [float(row["queries/seen"]) for row in rows] == [0.0] + [1.0] * (ROUNDS - 1)
    assert [float(row["solve_rate"]) for row in rows[5:]] == pytest.approx([1 / 6] * (ROUNDS - 5))
    assert all(row["answers/zlib"] and row["answers/code"] for row in rows)
    assert not RunFolder(tmp_path).warnings_path.exists()


def test_without_a_run_there_is_no_file(tmp_path, monkeypatch):
    """In a notebook the Trainer's folder is the current one."""
    found = Finding(SYMPTOMS[0], "queries/a/malformed", 5, 14, 0.7, 0.1)
    trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu")
    with pytest.warns(SelfPlayWarning, match="no right answer"):
        CollapseWatch().react(trainer, found)
    assert list(tmp_path.iterdir()) == []


def test_a_hostile_name_is_escaped(tmp_path):
    (tmp_path / "config.yaml").write_text("data: {}\n")
    trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu")
    hostile = "queries/\x1b[2J\u202ename\nerror: forged\u2028/malformed"
    with pytest.warns(SelfPlayWarning) as caught:
        CollapseWatch().react(trainer, Finding(SYMPTOMS[0], hostile, 5, 14, 0.7, 0.1))
    [text] = [str(w.message) for w in caught]
    assert text.isprintable()
    assert "\\x1b[2J\\u202ename error: forged" in text
    [line] = RunFolder(tmp_path).warnings_path.read_text().splitlines()
    assert json.loads(line)["text"] == text


def test_a_reaction_is_one_method(tmp_path):
    class Stops(CollapseWatch):
        def react(self, trainer, found):
            reacted.append((found.symptom.name, found.last))
            trainer.should_stop = True

    reacted: list[tuple[str, int]] = []
    trainer = Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu")
    Stops()._tell(trainer, [Finding(SYMPTOMS[0], "queries/a/malformed", 5, 14, 0.7, 0.1)])
    assert reacted == [("malformed queries", 14)]
    assert trainer.should_stop


@pytest.mark.slow
@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize(
    ("preset", "symptom"), [("tiny_lsp_zero", "malformed queries"), ("tiny_lsp", None)]
)
def test_lsp_zero_is_called_before_half_of_its_queries_are_malformed(
    preset, symptom, tmp_path, monkeypatch
):
    arguments = ["--trainer.max_steps=60", "--seed_everything=0", "--data.heldout=null"]
    folder = f"--trainer.default_root_dir={tmp_path / 'run'}"
    assert main(["fit", "--config", f"configs/{preset}.yaml", *arguments, folder]) == 0
    run = RunFolder(tmp_path / "run")
    found = run.warnings()
    assert [line["symptom"] for line in found][:1] == ([symptom] if symptom else [])
    if symptom:
        before = [r["queries/verifiable/malformed"] for r in run.metrics()[: found[0]["round"] + 1]]
        assert sum(before[-5:]) / 5 < 0.5
