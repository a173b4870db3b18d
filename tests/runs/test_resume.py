"""What a checkpoint says of its run, and Lightning's private keys in it."""

import pytest
from lightning.pytorch import LightningModule, Trainer
from torch import nn, optim

from lsp_lightning import Paper
from lsp_lightning.errors import ConfigError
from lsp_lightning.training import resume
from lsp_lightning.training.stream import RoundStream


class Learner(LightningModule):
    """A module whose batches are rounds, as the real one's are."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.saved = []

    def training_step(self, batch, batch_idx):
        return self.layer.weight.sum()

    def configure_optimizers(self):
        return optim.SGD(self.parameters(), lr=0.1)

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.trainer.save_checkpoint(self.path)

    def on_save_checkpoint(self, checkpoint):
        resume.stay_open(checkpoint)
        self.saved.append(resume.rounds_of(checkpoint))


def play(module, path, rounds, checkpoint=None):
    module.path = path
    trainer = Trainer(
        max_epochs=1, max_steps=rounds, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=path.parent,
    )  # fmt: skip
    trainer.fit(module, RoundStream(float, rounds), ckpt_path=checkpoint, weights_only=False)
    return trainer.global_step


def test_lightning_keeps_the_keys_that_are_read_and_changed(tmp_path):
    first, second = Learner(), Learner()
    path = tmp_path / "last.ckpt"
    assert play(first, path, 3) == 3
    assert first.saved == [1, 2, 3]
    # stay_open lets a run that was over be extended
    assert play(second, path, 5, checkpoint=path) == 5
    assert second.saved == [4, 5]


def test_a_checkpoint_without_the_number_of_rounds_is_one_line():
    with pytest.raises(ConfigError, match=r"^ckpt_path: does not say how many rounds"):
        resume.rounds_of({"loops": {"fit_loop": {"state_dict": {}}}, "global_step": 3})
    for rounds in (-5, 10**40, "x", None):
        stream = {"combined_loader": [{"next_round": rounds}]}
        with pytest.raises(ConfigError, match=r"^ckpt_path: does not say how many rounds"):
            resume.rounds_of({"loops": {"fit_loop": {"state_dict": stream}}})


BEFORE = {
    "base": "a",
    "lora": {"rank": 8, "alpha": 16},
    "solver": {"temperature": 1.0, "top_k": 0},
    "beta": 0.05,
    "optimizer": {"class": "AdamW", "lr": 0.001},
    "heldout_reward": None,
}


def told(capsys, **now):
    resume.compare_settings({"lsp_lightning": BEFORE}, {**BEFORE, **now})
    return capsys.readouterr().out.splitlines()


def test_changed_settings_are_named_with_both_values(capsys):
    assert told(capsys) == []
    assert told(capsys, beta=0.1, solver={"temperature": 0.5, "top_k": 0}) == [
        "beta changed: 0.05 in the checkpoint, 0.1 now",
        "solver.temperature changed: 1.0 in the checkpoint, 0.5 now",
    ]
    assert told(capsys, optimizer={"class": "AdamW", "lr": 0.0001}) == [
        "optimizer.lr changed: 0.001 in the checkpoint, 0.0001 now"
    ]
    assert told(capsys, heldout_reward="maths") == [
        "heldout_reward changed: null in the checkpoint, 'maths' now"
    ]


def test_changed_settings_are_printable(capsys):
    hostile = {"lsp_lightning": {"solver": {"\x1b[2J": "\x1b[2J\u202e"}}}
    resume.compare_settings(hostile, {"solver": {}})
    assert capsys.readouterr().out == (
        "solver.\\x1b[2J changed: '\\x1b[2J\\u202e' in the checkpoint, null now\n"
    )


class Counting(Paper):
    """An objective with a setting, and a count of rounds that any run changes."""

    def __init__(self, rate: float = 0.5):
        super().__init__("std")
        self.rate, self.rounds = rate, 0


def test_what_an_objective_counts_is_not_one_of_its_settings():
    assert resume.plain_settings(Counting(0.25)) == {
        "class": "Counting",
        "advantage_scale": "std",
        "invalid_query": "lowest",
        "penalty": 0.0,
        "rate": 0.25,
    }


@pytest.mark.parametrize(
    ("now", "line"),
    [
        ({"base": "b"}, "model.base: is 'b', but 'a' in the checkpoint; resume with the check"),
        ({"lora": {"rank": 4, "alpha": 16}}, "model.lora.rank: is 4, but 8 in the checkpoint;"),
        ({"lora": None}, "model.lora: is null, but {'rank': 8, 'alpha': 16} in the checkpoint;"),
        ({"optimizer": {"class": "SGD"}}, "model.optimizer: is SGD, but the checkpoint's is Adam"),
    ],
)
def test_another_model_or_optimiser_is_refused_in_one_line(now, line):
    with pytest.raises(ConfigError) as error:
        resume.compare_settings({"lsp_lightning": BEFORE}, {**BEFORE, **now})
    assert str(error.value).startswith(line)


def test_every_fixed_setting_is_one_of_the_policy():
    from lsp_lightning.models.settings import PolicySettings

    assert {*resume.FIXED_SETTINGS} - {"base_sha256"} <= set(PolicySettings.__dataclass_fields__)


def test_a_new_rate_keeps_a_schedules_place():
    groups = [{"lr": 0.25, "initial_lr": 0.5, "betas": (0.9, 0.95)}]
    checkpoint = {
        "optimizer_states": [{"param_groups": groups}],
        "lr_schedulers": [{"base_lrs": [0.5], "_last_lr": [0.25]}],
    }
    before = {"class": "AdamW", "lr": 0.5, "betas": [0.9, 0.95]}
    now = {"class": "AdamW", "lr": 1.0, "betas": [0.8, 0.95]}
    resume.override_optimizer(checkpoint, before, now)
    assert groups == [{"lr": 0.5, "initial_lr": 1.0, "betas": (0.8, 0.95)}]
    assert checkpoint["lr_schedulers"] == [{"base_lrs": [1.0], "_last_lr": [0.5]}]
