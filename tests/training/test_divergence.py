"""Diverged runs end with one line, and no checkpoint holds a weight that is not finite."""

import math

import pytest
import torch
from handmade import scored_round
from lightning.pytorch import Callback
from small_game import SHORT_PROMPT, Checksum, make_policy, tiny_trainer

from lsp_lightning import (
    Challenger,
    ConfigError,
    FunctionReward,
    Lora,
    Sampling,
    SelfPlayDataModule,
    SelfPlayModule,
    VerifiableReward,
)
from lsp_lightning.callbacks import RoundCheckpoint
from lsp_lightning.errors import Diverged
from lsp_lightning.training import resume
from lsp_lightning.training.divergence import (
    MOST_SKIPPED,
    SkippedRounds,
    is_finite,
    overflow_ends_the_run,
    why_skipped,
)
from lsp_lightning.training.gradient import UpdateStats

NAN, INF = math.nan, math.inf


class Spoils(Callback):
    """Writes a value into one trained weight before a round is learned from."""

    def __init__(self, round_, value):
        self.round_, self.value = round_, value

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch.index == self.round_:
            spoil(pl_module.policy, self.value)


def spoil(policy, value):
    weight = [p for p in policy.parameters() if p.requires_grad][-1]
    with torch.no_grad():
        weight.view(-1)[3] = value


def huge(query, answers, solution):
    return [1e30 * j for j in range(len(answers))]


def large(query, answers, solution):
    return [1e4 * j for j in range(len(answers))]


def fit(folder, base, rounds=9, callbacks=(), **settings):
    """A run that diverges. -> the error and the checkpoint that is left, if any."""
    settings = {"rewards": [VerifiableReward(Checksum())], "lora": Lora(rank=4, alpha=8)} | settings
    module = SelfPlayModule(str(base), **settings)
    data = SelfPlayDataModule(
        queries=Challenger(prompt=SHORT_PROMPT, sampling=Sampling(max_new_tokens=4)),
        num_queries=3,
        group_size=2,
        solver=Sampling(max_new_tokens=4),
    )
    trainer = tiny_trainer(folder, rounds, [RoundCheckpoint(), *callbacks])
    with pytest.raises(Diverged) as caught:
        trainer.fit(module, datamodule=data)
    path = folder / "checkpoints" / "last.ckpt"
    assert not (folder / "adapter").exists()
    return str(caught.value), torch.load(path) if path.exists() else None


def is_good(checkpoint):
    return all(tensor.isfinite().all() for tensor in checkpoint["state_dict"].values())


@pytest.mark.filterwarnings("ignore:round")
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_a_weight_that_is_not_finite_ends_the_run_at_once(brief_folder, tmp_path, value):
    line, left = fit(tmp_path, brief_folder, callbacks=[Spoils(1, value)])
    assert "a trained weight is not finite after round 1" in line
    assert "model.optimizer.init_args.lr" in line
    assert "\n" not in line
    assert resume.rounds_of(left) == 1
    assert is_good(left)


def test_a_step_to_a_weight_that_is_not_finite_leaves_no_checkpoint(brief_folder, tmp_path):
    steep = {"rewards": [FunctionReward(large)], "max_grad_norm": None}
    line, left = fit(tmp_path, brief_folder, optimizer=lambda p: torch.optim.SGD(p, 3e38), **steep)
    assert "after round 0" in line
    assert left is None


def test_a_step_that_the_optimiser_cannot_take_is_one_line_too(brief_folder, tmp_path):
    line, left = fit(tmp_path, brief_folder, optimizer=lambda p: torch.optim.AdamW(p, lr=1e39))
    assert "round 0 is too large" in line
    assert left is None


@pytest.mark.filterwarnings("ignore:round")
@pytest.mark.parametrize("value", [NAN, INF])
def test_a_weight_spoiled_between_step_and_checkpoint_is_not_saved(brief_folder, tmp_path, value):
    class Late(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch.index == 1:
                spoil(pl_module.policy, value)

    line, left = fit(tmp_path, brief_folder, callbacks=[Late()])
    assert "in the checkpoint" in line
    assert resume.rounds_of(left) == 1
    assert is_good(left)


@pytest.mark.filterwarnings("ignore:round")
def test_the_checkpoint_from_before_a_step_that_spoils_everything_stays(brief_folder, tmp_path):
    line, left = fit(
        tmp_path,
        brief_folder,
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda round_: 1e30 if round_ == 2 else 1.0
        ),
    )
    assert "5 rounds in a row up to round 7" in line
    before = torch.load(tmp_path / "checkpoints" / "previous.ckpt")
    assert resume.rounds_of(before) == 2
    assert largest(before) < 10 < 1e20 < largest(left)


def largest(checkpoint):
    return max(float(tensor.abs().max()) for tensor in checkpoint["state_dict"].values())


@pytest.mark.parametrize("rounds", [9, 2])
def test_rounds_skipped_one_after_the_other_end_the_run(brief_folder, tmp_path, rounds, recwarn):
    most = min(rounds, MOST_SKIPPED)
    line, left = fit(tmp_path, brief_folder, rounds, rewards=[FunctionReward(huge)])
    assert f"{most} rounds in a row up to round {most - 1} had" in line
    assert "an advantage that is not finite: rewards are as large as 1e+30" in line
    assert resume.rounds_of(left) == most - 1
    assert is_good(left)
    said = [str(w.message) for w in recwarn if "is skipped" in str(w.message)]
    assert len(said) == most - 1
    assert all("as large as" in text for text in said), said


def test_only_rounds_in_a_row_count():
    skipped = SkippedRounds()
    for first in (0, 10, 20):
        for index in range(first, first + MOST_SKIPPED - 1):
            with pytest.warns(UserWarning, match=rf"^round {index} is skipped: it has a cause$"):
                skipped.add(index, "a cause")
        skipped.end()


@pytest.mark.parametrize(
    ("advantages", "log_ratio", "words"),
    [
        ([NAN, 1.0], [0.0, 0.0], "an advantage that is not finite: rewards are as large as 3e+00"),
        ([INF, 1.0], [NAN, 0.0], "an advantage that is not finite: rewards are as large as 3e+00"),
        ([0.0, 1.0], [NAN, 0.0], "log-probs of the policy or its reference"),
        ([0.0, -1e9], [0.0, 0.0], "advantages are as large as 1e+09"),
        ([0.0, 1.0], [0.0, 0.0], "a gradient that is not finite"),
    ],
)
def test_a_skipped_round_says_its_cause(advantages, log_ratio, words):
    stats = UpdateStats(0.0, torch.tensor(log_ratio), torch.zeros(2), {})
    played = scored_round([[3.0, 0.0]])
    assert words in why_skipped(played, torch.tensor(advantages), stats)


def test_other_errors_of_an_optimiser_stay_what_they_are():
    with pytest.raises(RuntimeError, match="another"), overflow_ends_the_run(0):
        raise RuntimeError("another error")


def test_large_weights_are_finite_and_frozen_ones_do_not_count(brief_folder):
    policy = make_policy(brief_folder)
    assert is_finite(policy)
    spoil(policy, 3e38)
    assert is_finite(policy)
    frozen = next(p for p in policy.parameters() if not p.requires_grad)
    frozen.data.view(-1)[0] = NAN
    assert is_finite(policy)
    spoil(policy, NAN)
    assert not is_finite(policy)


def test_a_checkpoint_of_a_diverged_run_is_refused():
    state = {"state_dict": {"policy.a": torch.tensor([1.0, NAN]), "policy.b": torch.ones(1)}}
    one, two = torch.zeros(1), torch.zeros(2)
    resume.require_trained(state, {"b": one})
    with pytest.raises(ConfigError, match=r"^ckpt_path: holds weights that are not finite"):
        resume.require_trained(state, {"a": two, "b": one})
    with pytest.raises(ConfigError, match=r"^ckpt_path: holds 1 tensors of another size .*\(b\)"):
        resume.require_trained(state, {"b": two})


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"lr": NAN}, "model.optimizer: refuses its settings"),
        ({"lr": INF}, "model.optimizer.init_args.lr: is inf; set a finite number"),
        ({"lr": 0.1, "eps": NAN}, "model.optimizer: refuses its settings"),
        ({"lr": 0.1, "betas": (0.9, NAN)}, "model.optimizer: refuses its settings"),
    ],
)
def test_settings_of_the_optimiser_that_are_no_numbers_are_refused(settings, line):
    with pytest.raises(ConfigError) as caught:
        resume.check_optimizer(lambda parameters: torch.optim.AdamW(parameters, **settings))
    assert str(caught.value).startswith(line)


def test_an_optimiser_of_matrices_alone_is_accepted():
    resume.check_optimizer(lambda parameters: torch.optim.Muon(parameters, lr=0.1))


def test_a_rate_of_zero_is_a_warning(recwarn):
    resume.check_optimizer(lambda parameters: torch.optim.AdamW(parameters, lr=0.0))
    [warning] = recwarn
    assert str(warning.message).startswith("model.optimizer.init_args.lr: is 0, so nothing will be")
