"""The command ``pilot``: one round of ``fit``, a verdict as exit status, nothing on the disk."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from handmade import scored_round

from lsp_lightning import Player, Sampling, SelfPlayModule
from lsp_lightning.callbacks.pilot import FirstRound, _Counted
from lsp_lightning.cli.main import main

ROOT = Path(__file__).parents[2]
TINY = str(ROOT / "configs" / "tiny_lsp.yaml")
SUBJECTS = ["queries", "R", "Q", "length", "time"]

pytestmark = pytest.mark.usefixtures("untouched_process")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(shown):
    """The word of each line of the verdict by subject, in order."""
    found = re.findall(rf"^({'|'.join(SUBJECTS)})  +(ok|-|[a-z]+( [a-z]+)?)  ", shown, re.MULTILINE)
    return {subject: word for subject, word, _ in found}


def test_the_tiny_world_can_start(here, capfd):
    assert main(["pilot", "--config", TINY]) == 0
    shown = capfd.readouterr().out
    assert words(shown) == dict.fromkeys(SUBJECTS, "ok")
    assert re.search(r", update [\d.]+\); 100 rounds take (about|less)", " ".join(shown.split()))
    assert shown.endswith("\nthe game can start\n")
    assert list(here.iterdir()) == []


def test_a_game_without_a_well_formed_query_cannot_start(here, capfd):
    (here / "prompt.txt").write_text("Say anything.")
    prompt = ["--data.queries.init_args.prompt", "prompt.txt"]
    size = ["--data.num_queries", "4", "--data.group_size", "2", "--trainer.min_steps", "3"]
    assert main(["pilot", "--config", TINY, *prompt, *size]) == 1
    refused = capfd.readouterr().out
    assert "every query was refused by the gate (16 malformed)" in " ".join(refused.split())
    plain = ["--data.gate", "null", "--data.pool", "null"]
    assert main(["pilot", "--config", TINY, *prompt, *size, *plain]) == 1
    shown = capfd.readouterr().out
    assert shown.count("query (malformed)") == 3  # of one round
    assert words(shown)["queries"] == words(refused)["queries"] == "none"
    assert "data.queries.init_args.examples" in shown
    assert shown.endswith("\nthe game cannot start\n")
    assert [path.name for path in here.iterdir()] == ["prompt.txt"]


@pytest.mark.slow
def test_a_mistake_is_status_2_before_a_model_is_loaded(here, no_model, capfd):
    judge = '[{"class_path": "lsp_lightning.SelfReward"}]'
    assert main(["pilot", "--config", TINY, "--model.rewards", judge]) == 2
    assert "model.rewards: no task reward" in capfd.readouterr().err


def test_a_pilot_of_a_run_that_has_begun_is_refused(here, no_model, capfd):
    torch.save({"state_dict": {}, "lsp_lightning": {}}, here / "last.ckpt")
    assert main(["pilot", "--config", TINY, "--ckpt_path", "last.ckpt"]) == 2
    assert capfd.readouterr().err.startswith("error: ckpt_path: is set, but a pilot plays the")


def small(command, *more):
    flags = ["--data.num_queries", "4", "--data.group_size", "2", "--trainer.max_steps", "2"]
    tasks = ["--data.heldout", "null", "--data.test", "null"]
    return [command, "--config", TINY, *tasks, *flags, *more]


@pytest.mark.slow
def test_fit_plays_the_same_round_and_says_once_what_it_promises(here, capfd, monkeypatch):
    def note(module, batch, batch_idx):
        print("PLAYED", batch.index, batch.playout.query_texts, batch.playout.answers.texts)

    monkeypatch.setattr(SelfPlayModule, "on_train_batch_start", note)
    assert main(small("pilot")) == 0
    piloted = re.findall("^PLAYED.*", capfd.readouterr().out, re.MULTILINE)
    assert main(small("fit")) == 0
    shown, said = capfd.readouterr()
    assert len(piloted) == 1
    assert re.findall("^PLAYED.*", shown, re.MULTILINE)[0] == piloted[0]
    assert len(re.findall("^pilot: ", said, re.MULTILINE)) == 1
    last = str(here / "runs" / "tiny_lsp" / "checkpoints" / "last.ckpt")
    assert main(["fit", "--ckpt_path", last, "--trainer.max_steps", "3"]) == 0
    shown, said = capfd.readouterr()
    assert "PLAYED 2" in shown
    assert "pilot: " not in said


def test_only_the_first_round_is_judged_in_fit(capfd):
    module = SimpleNamespace(rewards=[], data=None)
    played = scored_round([[0.0, 1.0]])
    for index in (1, 0, 2):
        FirstRound().on_train_batch_start(None, module, replace(played, index=index), 0)
    said = capfd.readouterr().err
    assert said == "pilot: queries 1 of 1 well-formed; R differs in 1 of 1 groups, mean 0.50\n"


class Silent:
    """A line that only counts."""

    n, total = 0, 6

    def show(self, done):
        self.n = done


def test_completions_are_counted_and_stay_the_same(tiny_policy):
    plain, line = Player.local(tiny_policy), Silent()
    counted = replace(plain, engine=_Counted(plain.engine, line))
    prompts, sampling, told = [[5, 6, 7], [8, 9]], Sampling(max_new_tokens=5), []
    drawn = counted.respond(prompts, 3, sampling, 1, lambda row, text: told.append(row))
    assert (line.n, line.note) == (6, "rewards")
    assert sorted(told) == list(range(6))
    assert drawn.texts == plain.respond(prompts, 3, sampling, 1).texts
