"""Held-out scores in whole runs: what they depend on, and what a failure costs."""

import json
import math
from types import SimpleNamespace

import pytest
import torch
from small_game import SHORT_PROMPT, Checksum, tiny_trainer

from lsp_lightning import (
    Challenger,
    ConfigError,
    Lora,
    MathVerifier,
    PromptFile,
    Sampling,
    SelfPlayDataModule,
    SelfPlayModule,
    SpanVerifier,
    VerifiableReward,
    errors,
)
from lsp_lightning.callbacks import RoundCheckpoint, RunSummary, Transcripts
from lsp_lightning.evaluation import tasks as evaluation_tasks
from lsp_lightning.evaluation.hooks import ScoresHeldOut
from lsp_lightning.rewards import RewardError, RoundVerifier, Verdict

TASKS = [{"query": f"question {i}", "solution": str(i)} for i in range(7)]


class Flaky(Checksum):
    """Fails at queries of the held-out tasks in the calls that are listed."""

    def __init__(self, fails=()):
        self.calls, self.fails = 0, fails

    def check(self, query, answers, solution):
        self.calls += query == "question 0"
        if query.startswith("question") and self.calls in self.fails:
            raise OSError("the disk is gone")
        return super().check(query, answers, solution)


class Torn(RoundVerifier):
    """Never finds a majority for a held-out task."""

    def judge(self, groups):
        def verdict(group):
            n = len(group.answers)
            held_out = group.query.startswith("question")
            return Verdict.undecided(n) if held_out else Verdict.of([i % 2 for i in range(n)])

        return [verdict(group) for group in groups]


class Killed(BaseException):
    """Nothing in the package catches it, like a kill."""


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    return write(tmp_path_factory.mktemp("tasks") / "tasks.jsonl", TASKS)


@pytest.fixture
def told(monkeypatch):
    """The warnings of the package."""
    lines = []
    monkeypatch.setattr(errors, "show_warning", lines.append)
    return lines


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def parts(base, tasks, verifier=None, **data):
    torch.manual_seed(3)
    module = SelfPlayModule(
        str(base),
        [VerifiableReward(verifier or Checksum())],
        lora=Lora(rank=2, alpha=4),
        micro_batch_tokens=400,
    )
    settings = {
        "queries": Challenger(prompt=SHORT_PROMPT, sampling=Sampling(max_new_tokens=6)),
        "num_queries": 2,
        "group_size": 2,
        "solver": Sampling(max_new_tokens=6),
        "heldout": tasks,
    }
    return module, SelfPlayDataModule(**{**settings, **data})


def fit(folder, base, tasks, verifier=None, rounds=2, ckpt_path=None, validates=True, **data):
    module, data_module = parts(base, tasks, verifier, **data)
    trainer = tiny_trainer(folder, rounds, [RoundCheckpoint(), RunSummary(), Transcripts()])
    if validates == "each round":
        trainer.val_check_interval = 1
    if not validates:
        trainer.check_val_every_n_epoch = 2
    trainer.fit(module, datamodule=data_module, ckpt_path=ckpt_path)
    return json.loads((folder / "summary.json").read_text())


# -- what the scores depend on ---------------------------------------------------------------------


def test_the_batch_size_changes_no_score(brief_folder, tasks, tmp_path, monkeypatch):
    found = []
    for size in (1, 3, 128):
        monkeypatch.setattr(evaluation_tasks, "HELDOUT_BATCH", size)
        module, data = parts(brief_folder, tasks, heldout_draws=4)
        trainer = tiny_trainer(tmp_path, 1)
        trainer.validate(module, datamodule=data, verbose=False)
        found.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    assert found[0] == found[1] == found[2]
    assert 0 < found[0]["heldout/sampled"] < 1  # there is something to tell apart
    assert found[0]["heldout/sampled"] <= found[0]["heldout/pass@4"]
    assert found[0]["heldout/pass@4_se"] >= 0
    assert found[0]["heldout/tasks"] == len(TASKS)


# -- failures --------------------------------------------------------------------------------------


def test_a_scoring_that_fails_before_the_first_round_ends_the_run(brief_folder, tasks, tmp_path):
    with pytest.raises(RewardError, match="the disk is gone"):
        fit(tmp_path, brief_folder, tasks, Flaky(fails=[1]))
    assert not (tmp_path / "checkpoints").exists()


def test_a_scoring_that_fails_at_the_end_costs_its_scores_alone(
    brief_folder, tasks, tmp_path, told
):
    # calls 1 and 2 are the sampled and greedy answers before the first round
    summary = fit(tmp_path, brief_folder, tasks, Flaky(fails=range(3, 99)))
    assert summary["rounds"] == 2
    assert summary["heldout_before"]["n"] == len(TASKS)
    assert summary["heldout_after"] is None
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()
    [line] = [line for line in told if "not scored" in line]
    assert line.startswith("the held-out tasks were not scored after round 2 (RewardError: ")
    assert "the disk is gone" in line
    assert line.endswith("; what was trained is kept")


def test_a_scoring_that_fails_during_the_run_does_not_end_it(brief_folder, tasks, tmp_path, told):
    summary = fit(tmp_path, brief_folder, tasks, Flaky(fails=[3]), validates="each round")
    assert summary["heldout_after"]["n"] == len(TASKS)
    assert len([line for line in told if "not scored after round 1" in line]) == 1


def test_a_reward_without_a_finding_gives_no_score_and_ends_nothing(brief_folder, tasks, tmp_path):
    summary = fit(tmp_path, brief_folder, tasks, Torn())
    assert summary["heldout_before"] == summary["heldout_after"]
    assert summary["heldout_after"] == {
        **dict.fromkeys(["sampled", "sampled_se", "greedy", "greedy_se"]),
        "n": 0,
        "kind": "solved",
    }


def kill_scoring_after(rounds, monkeypatch):
    score = ScoresHeldOut.score_heldout

    def killed(self, tasks):
        if self.trainer.global_step == rounds:
            raise Killed
        score(self, tasks)

    monkeypatch.setattr(ScoresHeldOut, "score_heldout", killed)


# the last round ends with a validation, or with a scoring after it
@pytest.mark.parametrize("validates", [pytest.param(True, marks=pytest.mark.slow), False])
def test_a_run_killed_in_its_last_scoring_is_finished_by_a_resume(
    brief_folder, tasks, tmp_path, monkeypatch, capsys, validates
):
    whole = fit(tmp_path / "whole", brief_folder, tasks, validates=validates)
    folder = tmp_path / "run"
    last = folder / "checkpoints" / "last.ckpt"
    with monkeypatch.context() as patch:
        kill_scoring_after(2, patch)
        with pytest.raises(Killed):
            fit(folder, brief_folder, tasks, validates=validates)
    assert last.is_file()
    assert (folder / "adapter").is_dir() != validates
    assert not (folder / "summary.json").exists()
    finished = fit(folder, brief_folder, tasks, ckpt_path=str(last))
    assert "finishing the run" in capsys.readouterr().out
    assert {**finished, "seconds": 0} == {**whole, "seconds": 0}
    both = [f / "adapter" / "adapter_model.safetensors" for f in (folder, tmp_path / "whole")]
    assert both[0].read_bytes() == both[1].read_bytes()
    assert [path.name for path in (folder / "transcripts").iterdir()] == ["rounds-000000.parquet"]
    # now it is finished: nothing is done again
    before = (folder / "summary.json").stat().st_mtime_ns
    fit(folder, brief_folder, tasks, rounds=1, ckpt_path=str(last))
    line = (
        "nothing to play: this run has played 2 rounds; to play more, set trainer.max_steps above 2"
    )
    shown = capsys.readouterr().out
    assert line in shown
    assert "playing" not in shown
    assert (folder / "summary.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_longer_run_killed_in_its_last_scoring_is_finished_too(
    brief_folder, tasks, tmp_path, monkeypatch
):
    """The summary of the shorter run is there already."""
    last = str(tmp_path / "checkpoints" / "last.ckpt")
    assert fit(tmp_path, brief_folder, tasks, rounds=1)["rounds"] == 1
    with monkeypatch.context() as patch:
        kill_scoring_after(2, patch)
        with pytest.raises(Killed):
            fit(tmp_path, brief_folder, tasks, ckpt_path=last)
    assert fit(tmp_path, brief_folder, tasks, ckpt_path=last)["rounds"] == 2


# -- tasks that can never be scored ----------------------------------------------------------------


class NeedsSolution(Checksum):
    needs_solution = True


class Voting(Checksum):
    votes = True


def questions(tmp_path, known):
    rows = [{"query": f"question {i}"} | ({"answer": "1"} if i < known else {}) for i in range(4)]
    return write(tmp_path / f"{known}.jsonl", rows)


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_tasks_that_a_vote_can_never_score_are_refused_before_a_model_is_loaded(
    brief_folder, tmp_path, command
):
    key = "test" if command == "test" else "heldout"
    files = {"heldout": None, key: questions(tmp_path, 0)}
    module, data = parts(brief_folder, None, MathVerifier(), **files)
    trainer = tiny_trainer(tmp_path / "run", 1)
    with pytest.raises(ConfigError, match=rf"^data\.{key}: none of its 4 tasks has a solution"):
        getattr(trainer, command)(module, datamodule=data)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("known", [0, 4])
def test_tasks_without_a_passage_are_refused_if_the_reward_needs_one(brief_folder, tmp_path, known):
    text = tmp_path / "text.txt"
    text.write_text("Owls hunt at night.")
    source = Challenger(documents=str(text), queries_per_passage=2)
    tasks = questions(tmp_path, known)
    module, data = parts(brief_folder, tasks, SpanVerifier(), queries=source)
    with pytest.raises(ConfigError) as error:
        tiny_trainer(tmp_path / "run", 1).fit(module, datamodule=data)
    assert str(error.value) == (
        "data.heldout: 'verifiable' can score none of its 4 tasks, because it needs a passage, and "
        "held-out tasks have none; set data.heldout_reward to another reward, or leave it out"
    )


def test_tasks_with_a_solution_are_scored_and_their_number_is_said(brief_folder, tmp_path, told):
    module, data = parts(brief_folder, questions(tmp_path, 3), Voting(), heldout_draws=2)
    trainer = tiny_trainer(tmp_path, 1)
    trainer.validate(module, datamodule=data, verbose=False)
    assert float(trainer.callback_metrics["heldout/tasks"]) == 3
    assert not math.isnan(trainer.callback_metrics["heldout/sampled"])
    assert "data.heldout: 'verifiable' scores the 3 of 4 tasks with a solution" in told


@pytest.mark.parametrize(("verifier", "count"), [(Voting(), 1), (Checksum(), 0)])
def test_queries_of_a_file_whose_answers_will_vote_are_told(tmp_path, verifier, count, told):
    data = SelfPlayDataModule(PromptFile(questions(tmp_path, 3)))
    trainer = SimpleNamespace(datamodule=data)
    VerifiableReward(verifier).setup(trainer, None, "fit")
    said = "data.queries: 1 of 4 queries have no solution; there Voting pays the answer that most"
    assert len([line for line in told if line.startswith(said)]) == count


@pytest.mark.usefixtures("no_model")
@pytest.mark.parametrize("known", [0, 3])
def test_a_verifier_that_needs_solutions_says_how_many_there_are(brief_folder, tmp_path, known):
    source = PromptFile(questions(tmp_path, known))
    module, data = parts(brief_folder, None, NeedsSolution(), queries=source)
    with pytest.raises(ConfigError) as error:
        tiny_trainer(tmp_path / "run", 1).fit(module, datamodule=data)
    assert str(error.value) == (
        f"data.queries: {known} of 4 queries have a solution, NeedsSolution needs all; add a "
        "solution to each, or use another reward"
    )
