"""In a notebook too, every round is logged, whatever the Trainer's interval."""

import csv

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from small_game import SHORT_PROMPT

from lsp_lightning import Challenger, FunctionReward, Sampling, SelfPlayDataModule, SelfPlayModule
from lsp_lightning.callbacks import RunCurves


def length(query, answers, solution):
    """A reward that needs no model."""
    return [float(len(answer)) for answer in answers]


@pytest.mark.parametrize("interval", [None, 10])
def test_every_round_is_logged(interval, brief_folder, tmp_path):
    sampling = Sampling(max_new_tokens=4)
    queries = Challenger(prompt=SHORT_PROMPT, sampling=sampling)
    data = SelfPlayDataModule(queries=queries, num_queries=2, group_size=2, solver=sampling)
    module = SelfPlayModule(str(brief_folder), [FunctionReward(length)])
    logger = CSVLogger(tmp_path, name="", version="")
    trainer = Trainer(
        max_steps=3, accelerator="cpu", logger=logger, log_every_n_steps=interval,
        enable_checkpointing=False, enable_progress_bar=False, default_root_dir=tmp_path,
    )  # fmt: skip
    trainer.fit(module, data)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rewards = [row["reward"] for row in csv.DictReader(file)]
    assert len(rewards) == 3
    assert all(rewards)


def test_a_dollar_in_the_folder_is_no_variable(tmp_path):
    folder = tmp_path / "a $HOME run"
    curves = RunCurves(folder)
    curves.log_metrics({"reward": 0.5}, step=0)
    curves.finalize("success")
    assert [path.name for path in tmp_path.iterdir()] == ["a $HOME run"]
    assert list(folder.glob("events.out.*"))
