"""Whole runs of a few rounds under Lightning's own Trainer."""

import json
import math
import shutil
from contextlib import contextmanager

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from small_game import SHORT_PROMPT, Checksum, brief, tiny_trainer

from lsp_lightning import (
    Challenger,
    ConfigError,
    Gate,
    Judged,
    Learnability,
    Lora,
    Paper,
    PromptFile,
    Reward,
    Sampling,
    SelfPlayDataModule,
    SelfPlayModule,
    SelfReward,
    VerifiableReward,
)
from lsp_lightning.callbacks import RoundCheckpoint, Transcripts
from lsp_lightning.errors import OutOfMemory
from lsp_lightning.models.policy import Policy

ROUNDS = 4


@pytest.fixture(scope="module")
def base(brief_folder):
    return str(brief_folder)


def falling(optimizer):
    """A rate that is different in every round."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda round_: 1 / (1 + round_))


def adamw(lr=0.02):
    return lambda parameters: torch.optim.AdamW(parameters, lr=lr, weight_decay=0.01)


def make_module(base, **kwargs):
    settings = {
        "lora": Lora(rank=4, alpha=8, dropout=0.1),
        "rewards": [VerifiableReward(Checksum())],
        "optimizer": adamw(),
        "lr_scheduler": falling,
        "micro_batch_tokens": 400,
    }
    torch.manual_seed(3)  # what seed_everything does for the adapter's first weights
    return SelfPlayModule(base, **{**settings, **kwargs})


def make_data(**kwargs):
    settings = {
        "queries": Challenger(prompt=SHORT_PROMPT, sampling=Sampling(max_new_tokens=8)),
        "num_queries": 4,
        "group_size": 3,
        "solver": Sampling(max_new_tokens=6),
        "seed": 11,
    }
    return SelfPlayDataModule(**{**settings, **kwargs})


class Diary(Callback):
    """What happened in each round: queries, metrics and weights."""

    def __init__(self):
        self.queries, self.metrics, self.after, self.played_from = {}, {}, {}, {}

    def on_fit_start(self, trainer, pl_module):
        play = pl_module.play

        def noted(index):
            self.played_from[index] = weights(pl_module)
            return play(index)

        pl_module.play = noted

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.queries[batch.index] = (batch.playout.query_texts, batch.playout.answers.texts)
        self.metrics[batch.index] = {
            name: float(value)
            for name, value in trainer.callback_metrics.items()
            if not name.startswith("seconds/") and name != "tokens_per_second"
        }
        self.after[batch.index] = weights(pl_module)


class CrashBefore(Callback):
    """Ends the run in a way that nothing can prepare for."""

    def __init__(self, round_):
        self.round_ = round_

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch.index == self.round_:
            raise RuntimeError("the power went out")


def weights(module):
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


def optimizer_state(trainer):
    [optimizer] = trainer.optimizers
    return optimizer.state_dict()


def run(folder, module, data=None, rounds=ROUNDS, ckpt_path=None, callbacks=()):
    """A run to its end; returns its trainer and its diary."""
    diary = Diary()
    trainer = tiny_trainer(folder, rounds, [RoundCheckpoint(), *callbacks, diary])
    trainer.fit(module, datamodule=data or make_data(), ckpt_path=ckpt_path)
    return trainer, diary


def last(folder):
    return folder / "checkpoints" / "last.ckpt"


def differences(a, b, path=""):
    """Where two nests of dicts, lists, tensors and plain values are not bit-equal."""
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        same = a.shape == b.shape and a.dtype == b.dtype and torch.equal(a, b)
        return [] if same else [path]
    if isinstance(a, dict) and isinstance(b, dict):
        found = [f"{path}/{key}" for key in a.keys() ^ b.keys()]
        return found + [
            d for k in a.keys() & b.keys() for d in differences(a[k], b[k], f"{path}/{k}")
        ]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return [path]
        pairs = enumerate(zip(a, b, strict=True))
        return [d for i, (x, y) in pairs for d in differences(x, y, f"{path}/{i}")]
    return [] if a == b or (a != a and b != b) else [path]


# -- rounds and steps ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """The run that nothing interrupts, its module, diary and folder."""
    folder = tmp_path_factory.mktemp("whole")
    module = make_module(base)
    trainer, diary = run(folder, module)
    return trainer, module, diary, folder


def test_every_round_is_played_from_the_weights_of_the_step_before(whole):
    _, _, diary, _ = whole
    for index in range(1, ROUNDS):
        assert not differences(diary.played_from[index], diary.after[index - 1])
        assert differences(diary.played_from[index], diary.played_from[index - 1])


def test_one_round_is_one_step(whole):
    trainer, _, diary, _ = whole
    assert trainer.global_step == ROUNDS
    assert sorted(diary.queries) == list(range(ROUNDS))
    assert sorted(diary.played_from) == list(range(ROUNDS))


def test_rounds_differ_and_metrics_are_finite(whole):
    _, _, diary, _ = whole
    assert len({queries for queries, _ in diary.queries.values()}) == ROUNDS
    for metrics in diary.metrics.values():
        assert all(math.isfinite(value) for value in metrics.values())
        assert metrics["skipped"] == 0
        assert {"reward", "loss", "kl/solver", "kl/challenger", "gradient_norm"} <= set(metrics)


def test_the_same_run_again_is_the_same_bit_for_bit(whole, base, tmp_path):
    _, _, diary, _ = whole
    _, again = run(tmp_path, make_module(base), rounds=2)
    for index in range(2):
        assert again.queries[index] == diary.queries[index]
        assert not differences(again.metrics[index], diary.metrics[index])
        assert not differences(again.after[index], diary.after[index])


def test_another_seed_is_another_run(whole, base, tmp_path):
    _, _, diary, _ = whole
    _, other = run(tmp_path, make_module(base), make_data(seed=12), rounds=1)
    assert other.queries[0] != diary.queries[0]


# -- resuming --------------------------------------------------------------------------------------


def resume_differences(whole, base, folder, checkpoint, first):
    """Where a run that goes on from ``checkpoint`` differs from the one in one go."""
    trainer, module, diary, _ = whole
    resumed_module = make_module(base)
    with torch.no_grad():  # nothing may come from how a fresh module begins
        torch.manual_seed(99)
    resumed_trainer, resumed = run(folder, resumed_module, ckpt_path=str(checkpoint))
    assert resumed_trainer.global_step == ROUNDS
    assert sorted(resumed.queries) == list(range(first, ROUNDS))
    return differences(
        [
            weights(module),
            optimizer_state(trainer),
            [diary.metrics[i] for i in range(first, ROUNDS)],
            [diary.queries[i] for i in range(first, ROUNDS)],
            [s.state_dict() for s in (c.scheduler for c in trainer.lr_scheduler_configs)],
        ],
        [
            weights(resumed_module),
            optimizer_state(resumed_trainer),
            [resumed.metrics[i] for i in range(first, ROUNDS)],
            [resumed.queries[i] for i in range(first, ROUNDS)],
            [s.state_dict() for s in (c.scheduler for c in resumed_trainer.lr_scheduler_configs)],
        ],
    )


@pytest.fixture(scope="module")
def cut(base, tmp_path_factory):
    """The folder of the run that ended after three rounds. Read only: copy it to resume there."""
    folder = tmp_path_factory.mktemp("cut")
    run(folder, make_module(base), rounds=3)
    return folder


def test_a_run_that_crashed_goes_on_as_if_nothing_had_happened(whole, base, tmp_path):
    with pytest.raises(RuntimeError, match="power"):
        run(tmp_path, make_module(base), callbacks=[CrashBefore(1)])
    assert not resume_differences(whole, base, tmp_path / "on", last(tmp_path), 1)


def test_a_run_that_ended_can_be_made_longer(whole, cut, base, tmp_path):
    folder = shutil.copytree(cut, tmp_path / "run")
    assert not resume_differences(whole, base, folder, last(folder), 3)


def test_the_comparison_of_runs_sees_one_number_changed(whole, cut, base, tmp_path):
    """A test of the tests above: they fail when a checkpoint is not what it was."""
    checkpoint = torch.load(last(cut), weights_only=True)
    name = next(name for name in checkpoint["state_dict"] if "lora_B" in name)
    checkpoint["state_dict"][name].view(-1)[0] += 1e-3
    torch.save(checkpoint, tmp_path / "tampered.ckpt")
    found = resume_differences(whole, base, tmp_path / "on", tmp_path / "tampered.ckpt", 3)
    assert any(name in path for path in found)


def test_a_checkpoint_of_one_state_of_the_optimiser_changed_is_seen_too(whole, cut, base, tmp_path):
    checkpoint = torch.load(last(cut), weights_only=True)
    checkpoint["optimizer_states"][0]["state"][0]["exp_avg"].view(-1)[0] += 1e-3
    torch.save(checkpoint, tmp_path / "tampered.ckpt")
    assert resume_differences(whole, base, tmp_path / "on", tmp_path / "tampered.ckpt", 3)


class Widest(Reward):
    """Rewards without a range, whose spread is widest in the first round."""

    rounds = 0

    def score(self, playout):
        n, g = len(playout.query_texts), playout.group_size
        return torch.arange(n * g).view(n, g) ** 1.5 / (1 + self.rounds)

    def observe(self, played):
        self.rounds += 1

    def state_dict(self):
        return {"rounds": self.rounds}

    def load_state_dict(self, state_dict):
        self.rounds = state_dict["rounds"]


def test_what_an_objective_remembers_is_resumed(base, tmp_path):
    _, diary = run(tmp_path / "whole", make_module(base, rewards=[Widest()]), rounds=3)
    run(tmp_path / "part", make_module(base, rewards=[Widest()]), rounds=2)
    checkpoint = str(last(tmp_path / "part"))
    module = make_module(base, rewards=[Widest()])
    _, resumed = run(tmp_path / "on", module, rounds=3, ckpt_path=checkpoint)
    assert not differences(diary.metrics[2], resumed.metrics[2])
    # a test of the test: what the first rounds left behind matters to the others
    forgetful = make_module(base, rewards=[Widest()])
    forgetful.objective.load_state_dict = lambda state: None
    _, other = run(tmp_path / "off", forgetful, rounds=3, ckpt_path=checkpoint)
    assert differences(diary.metrics[2], other.metrics[2])


# -- checkpoints -----------------------------------------------------------------------------------


def test_a_checkpoint_holds_plain_types_and_nothing_of_the_base(whole):
    _, module, _, folder = whole
    checkpoint = torch.load(last(folder), weights_only=True)
    names = [name for name in checkpoint["state_dict"] if name.startswith("policy.")]
    trained = weights(module)
    assert set(names) == set(trained)
    adapter = sum(p.numel() * p.element_size() for p in trained.values())
    base = sum(p.numel() * p.element_size() for p in module.parameters()) - adapter
    # the adapter, two moments of each of its weights, and some words; not the base beside them
    size = last(folder).stat().st_size
    assert 3 * adapter < size < 3 * adapter + base / 2


def test_a_start_adapters_frozen_copy_is_in_the_checkpoint(whole, base, tmp_path):
    _, _, _, folder = whole
    module = make_module(base, init_adapter=str(folder / "adapter"))
    run(tmp_path, module, rounds=1)
    names = torch.load(last(tmp_path), weights_only=True)["state_dict"]
    assert any(".reference." in name for name in names)
    assert any(".default." in name for name in names)
    resumed = make_module(base, init_adapter=str(folder / "adapter"))
    trainer, _ = run(tmp_path, resumed, rounds=2, ckpt_path=str(last(tmp_path)))
    assert trainer.global_step == 2


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("model.lora.rank", {"lora": Lora(rank=2)}),
        ("model.lora", {"lora": None}),
        ("model.reference", {"reference": "base"}),
    ],
)
def test_a_checkpoint_of_another_model_is_refused_in_one_line(whole, base, tmp_path, key, change):
    _, _, _, folder = whole
    with pytest.raises(ConfigError) as error:
        run(tmp_path, make_module(base, **change), ckpt_path=str(last(folder)))
    assert str(error.value).startswith(f"{key}: ")
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_another_base_is_refused_in_one_line(whole, tiny_llama_folder, tmp_path):
    _, _, _, folder = whole
    with pytest.raises(ConfigError, match=r"^model\.base: ") as error:
        run(tmp_path, make_module(str(tiny_llama_folder)), ckpt_path=str(last(folder)))
    assert "\n" not in str(error.value)


def test_settings_typed_anew_hold_over_the_checkpoints(whole, base, tmp_path):
    _, _, _, folder = whole
    module = make_module(base, beta=0.4, alpha_ch=0.3)
    data = make_data(num_queries=3, group_size=2)
    trainer, diary = run(tmp_path, module, data, rounds=ROUNDS + 1, ckpt_path=str(last(folder)))
    assert trainer.global_step == ROUNDS + 1
    assert module.loss_settings.beta == 0.4
    queries, answers = diary.queries[ROUNDS]
    assert (len(queries), len(answers)) == (3, 6)


def test_a_rate_typed_anew_holds_over_the_checkpoints(base, tmp_path):
    run(tmp_path, make_module(base, lr_scheduler=None, optimizer=adamw(0.02)), rounds=1)
    module = make_module(base, lr_scheduler=None, optimizer=adamw(0.001))
    trainer, _ = run(tmp_path, module, rounds=2, ckpt_path=str(last(tmp_path)))
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.001


def test_another_optimiser_cannot_go_on_with_a_checkpoint(cut, base, tmp_path):
    module = make_module(base, optimizer=lambda params: torch.optim.SGD(params, lr=0.1))
    with pytest.raises(ConfigError, match=r"model\.optimizer: is SGD, .* is AdamW"):
        run(tmp_path, module, ckpt_path=str(last(cut)))


# -- what must not end a run -----------------------------------------------------------------------


@contextmanager
def spoiled(module, index):
    """The gradient of one round is not a number."""
    step = module.training_step

    def training_step(played, batch_idx):
        handles = []
        if played.index == index:
            parameter = next(p for p in module.parameters() if p.requires_grad)
            handles.append(parameter.register_hook(lambda gradient: gradient * float("nan")))
        try:
            return step(played, batch_idx)
        finally:
            for handle in handles:
                handle.remove()

    module.training_step = training_step
    yield


@pytest.fixture(scope="module")
def skipped(base, tmp_path_factory):
    """A run of three rounds, the second of which has a gradient that is not finite."""
    folder, module = tmp_path_factory.mktemp("skipped"), make_module(base)
    with spoiled(module, 1), pytest.warns(UserWarning, match="round 1"):
        _, diary = run(folder, module, rounds=3, callbacks=[Transcripts()])
    return diary, folder


def test_a_gradient_that_is_not_finite_costs_one_round_and_nothing_else(skipped):
    diary, _ = skipped
    assert not differences(diary.after[1], diary.after[0])
    assert sorted(diary.after) == [0, 1, 2]
    assert [diary.metrics[i]["skipped"] for i in range(3)] == [0, 1, 0]
    assert differences(diary.after[2], diary.after[1])
    assert all(p.isfinite().all() for p in diary.after[2].values())


def test_a_run_with_a_skipped_round_resumes_as_if_it_had_gone_on(skipped, base, tmp_path):
    def rounds_of(folder):
        import pyarrow.parquet as pq

        shards = sorted((folder / "transcripts").glob("*.parquet"))
        return sorted({r for shard in shards for r in pq.read_table(shard)["round"].to_pylist()})

    whole, folder = skipped
    module = make_module(base)
    with spoiled(module, 1), pytest.warns(UserWarning, match="round 1"):
        run(tmp_path, module, rounds=2, callbacks=[Transcripts()])
    checkpoint, module = str(last(tmp_path)), make_module(base)
    _, resumed = run(tmp_path, module, rounds=3, ckpt_path=checkpoint, callbacks=[Transcripts()])
    assert sorted(resumed.queries) == [2]
    assert not differences(resumed.after[2], whole.after[2])
    assert rounds_of(folder) == [0, 1, 2]
    assert rounds_of(tmp_path) == [0, 1, 2]


class Huge(Reward):
    """Scores that overflow in one round."""

    def __init__(self, index, name="huge"):
        super().__init__(name=name)
        self.index, self.round = index, -1

    def score(self, playout):
        self.round += 1
        n, g = len(playout.query_texts), playout.group_size
        scores = (torch.arange(n).unsqueeze(1) > torch.arange(g)).float()
        return scores * 3e38 if self.round == self.index else scores


@pytest.mark.parametrize("objective", [pytest.param(Paper, marks=pytest.mark.slow), Learnability])
def test_rewards_that_overflow_in_one_round_cost_that_round_alone(base, tmp_path, objective):
    module = make_module(base, rewards=[Huge(1)], objective=objective())
    _, diary = run(tmp_path, module, rounds=5)
    skipped = [diary.metrics[i]["skipped"] for i in range(5)]
    assert skipped == [0, 1, 0, 0, 0]
    assert not differences(diary.after[1], diary.after[0])
    assert max(diary.metrics[i]["advantage_std/challenger"] for i in range(2, 5)) > 0


# -- memory ----------------------------------------------------------------------------------------


class Cramped(Callback):
    """Memory runs out in the backward pass of micro-batches above so many tokens."""

    def __init__(self, limit, from_round=0):
        self.limit, self.from_round, self.round = limit, from_round, -1

    def on_fit_start(self, trainer, pl_module):
        policy = pl_module.policy
        completion_logprobs = policy.completion_logprobs

        def cramped(batch):
            logprobs, entropies = completion_logprobs(batch)
            if self.round >= self.from_round and batch.input_ids.numel() > self.limit:
                logprobs.register_hook(self.run_out)
            return logprobs, entropies

        policy.completion_logprobs = cramped

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.round = batch.index

    def run_out(self, gradient):
        raise torch.OutOfMemoryError("CUDA out of memory.")


def halvings(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if "out of memory" in line]


@pytest.fixture(scope="module")
def cramped(base, tmp_path_factory):
    """A run that runs out of memory in round 1, its module, diary and folder."""
    folder, module = tmp_path_factory.mktemp("cramped"), make_module(base)
    trainer, diary = run(folder, module, callbacks=[Cramped(100, from_round=1)])
    return trainer, module, diary, folder


@pytest.mark.slow
def test_a_run_that_runs_out_of_memory_is_the_run_with_micro_batches_that_fit(
    whole, cramped, base, tmp_path, capsys
):
    trainer, module, diary, _ = cramped
    assert module.budgets.micro_batches.tokens == 100
    assert trainer.global_step == ROUNDS
    assert [m["skipped"] for m in diary.metrics.values()] == [0] * ROUNDS
    # up to there it is the run that had room, from there the one that was asked to take less
    assert not differences(diary.after[0], whole[2].after[0])
    run(tmp_path, make_module(base), rounds=1)
    smaller = make_module(base, micro_batch_tokens=100)
    _, expected = run(tmp_path, smaller, ckpt_path=str(last(tmp_path)))
    assert not differences(diary.after[ROUNDS - 1], expected.after[ROUNDS - 1])
    assert not halvings(capsys)


def test_each_halving_is_one_line_and_is_found_out_once(base, tmp_path, capsys):
    run(tmp_path, make_module(base), rounds=2, callbacks=[Cramped(100)])
    assert halvings(capsys) == [
        "out of memory at model.micro_batch_tokens 400: trying again with 200",
        "out of memory at model.micro_batch_tokens 200: trying again with 100",
    ]


@pytest.mark.slow
def test_what_was_found_to_fit_is_in_the_checkpoint_and_resumes_exactly(
    cramped, base, tmp_path, capsys
):
    run(tmp_path, make_module(base), rounds=3, callbacks=[Cramped(100, from_round=1)])
    assert len(halvings(capsys)) == 2
    kept = torch.load(last(tmp_path), weights_only=True)["found_out"]["micro_batches"]
    assert kept == {"asked": 400, "tokens": 100}
    # with all of the memory in the world: what counts is what the checkpoint says
    assert not resume_differences(cramped, base, tmp_path / "on", last(tmp_path), 3)
    other = make_module(base, micro_batch_tokens=300)
    run(tmp_path / "other", other, ckpt_path=str(last(tmp_path)))
    assert other.budgets.micro_batches.tokens == 300
    assert not halvings(capsys)


@pytest.mark.slow
def test_a_row_that_does_not_fit_ends_the_run_and_leaves_the_last_rounds_checkpoint(
    whole, base, tmp_path
):
    with pytest.raises(OutOfMemory, match=r"model\.micro_batch_tokens: a single row"):
        run(tmp_path, make_module(base), callbacks=[Cramped(1, from_round=3)])
    checkpoint = torch.load(last(tmp_path), weights_only=True)
    assert checkpoint["global_step"] == 3
    assert not resume_differences(whole, base, tmp_path / "on", last(tmp_path), 3)


# -- rewards ---------------------------------------------------------------------------------------


class Counting(VerifiableReward):
    """Counts the hooks it gets and remembers how many rounds it saw."""

    def __init__(self, name):
        super().__init__(Checksum(), name=name)
        self.starts, self.batches = 0, 0

    def on_fit_start(self, trainer, pl_module):
        self.starts += 1

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches += 1

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state_dict):
        self.batches = state_dict["batches"]


def test_two_rewards_of_one_class_both_score_both_get_hooks_and_keep_their_states(base, tmp_path):
    def pair():
        return [Counting("first"), Counting("second")]

    rewards = pair()
    _, diary = run(tmp_path, make_module(base, rewards=rewards), rounds=1)
    assert [(r.starts, r.batches) for r in rewards] == [(1, 1), (1, 1)]
    assert diary.metrics[0]["reward/first"] == diary.metrics[0]["reward/second"] > 0
    assert diary.metrics[0]["reward"] == pytest.approx(2 * diary.metrics[0]["reward/first"])
    states = torch.load(last(tmp_path), weights_only=True)["callbacks"]
    assert {"Counting[first]", "Counting[second]"} <= set(states)
    resumed = pair()
    run(tmp_path, make_module(base, rewards=resumed), rounds=2, ckpt_path=str(last(tmp_path)))
    assert [r.batches for r in resumed] == [2, 2]


def test_the_users_callbacks_and_the_rewards_live_side_by_side(base, tmp_path):
    class Mine(Callback):
        rounds = 0

        def on_train_batch_end(self, *args):
            self.rounds += 1

    mine, reward = Mine(), Counting("counted")
    # a reward as callback of its own does not push out those that are played for
    trainer, _ = run(
        tmp_path,
        make_module(base, rewards=[reward]),
        rounds=1,
        callbacks=[mine, Counting("looked at")],
    )
    assert mine.rounds == 1
    assert reward.batches == 1
    assert mine in trainer.callbacks


# -- kinds of training -----------------------------------------------------------------------------


def test_full_fine_tuning_runs_and_resumes(base, tmp_path):
    def module():
        return make_module(base, lora=None, optimizer=adamw(1e-3))

    _, diary = run(tmp_path / "whole", module(), rounds=2)
    assert differences(diary.after[1], diary.after[0])
    assert diary.metrics[1]["kl/solver"] != 0
    run(tmp_path / "cut", module(), rounds=1)
    assert (tmp_path / "cut" / "model" / "model.safetensors").is_file()
    _, resumed = run(tmp_path / "cut", module(), rounds=2, ckpt_path=str(last(tmp_path / "cut")))
    assert not differences(resumed.after[1], diary.after[1])
    assert not differences(resumed.metrics[1], diary.metrics[1])


def test_grpo_from_a_prompt_file_has_no_challenger(base, tmp_path):
    path = tmp_path / "queries.jsonl"
    path.write_text("".join(json.dumps({"query": f"question {i}"}) + "\n" for i in range(5)))
    module = make_module(base)
    _, diary = run(tmp_path, module, make_data(queries=PromptFile(str(path))), rounds=2)
    asked = [query for queries, _ in diary.queries.values() for query in queries]
    assert sorted(asked[:5]) == [f"question {i}" for i in range(5)]
    for metrics in diary.metrics.values():
        assert "kl/solver" in metrics
        assert not [name for name in metrics if "challenger" in name]
        assert "queries/tokens" not in metrics


def test_a_queryless_second_run_leaves_no_metrics_of_the_first_in_a_module(base, tmp_path):
    """Metrics of one run do not come back in the next of the same module."""
    path = tmp_path / "queries.jsonl"
    path.write_text('{"query": "one"}\n{"query": "two"}\n')
    module = make_module(base)
    run(tmp_path / "first", module, rounds=1)
    _, diary = run(tmp_path / "second", module, make_data(queries=PromptFile(str(path))), rounds=1)
    assert "kl/challenger" not in diary.metrics[0]


def test_full_lsp_with_the_reference_as_judge_runs(base, tmp_path):
    module = make_module(base, rewards=[VerifiableReward(Checksum()), SelfReward(weight=2.0)])
    _, diary = run(tmp_path, module, rounds=1)
    metrics = diary.metrics[0]
    assert 0 < metrics["reward/self_reward"] < 1
    assert metrics["quality"] == pytest.approx(2 * metrics["reward/self_reward"], rel=1e-5)


def test_qwen3_with_thinking_off_runs(tiny_qwen3_folder, tmp_path):
    base = str(brief(tiny_qwen3_folder, tmp_path / "model"))
    module = make_module(base, chat_template_kwargs={"enable_thinking": False})
    trainer, diary = run(tmp_path, module, rounds=1)
    assert trainer.global_step == 1
    assert differences(diary.after[0], diary.played_from[0])
    codec = module.loaded_policy.codec
    prompt = codec.decode(codec.encode("{query}", {"query": "hello"}))
    assert prompt.endswith("<think>\n\n</think>\n\n")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_the_saved_adapter_is_the_trained_policy(whole, base):
    _, module, _, folder = whole
    policy = Policy(base, init_adapter=str(folder / "adapter"))
    trained = {n.removeprefix("policy."): p for n, p in weights(module).items()}
    saved = {n: p for n, p in policy.named_parameters() if p.requires_grad}
    assert not differences(trained, {n: p.detach() for n, p in saved.items()})


def test_without_a_number_of_rounds_there_is_a_clear_error(base, tmp_path):
    trainer = Trainer(
        default_root_dir=tmp_path, logger=False, enable_progress_bar=False, accelerator="cpu"
    )
    with pytest.raises(ConfigError, match=r"trainer\.max_steps"):
        trainer.fit(make_module(base), datamodule=make_data())


def test_a_gate_gets_its_judge_in_every_fit_of_a_module(base, tmp_path):
    module = make_module(base)
    assert module.player is not None  # loads the policy, as in a notebook
    for run in ("first", "second"):
        gate = Gate([Judged(least=0.0)])
        tiny_trainer(tmp_path / run, 1).fit(module, make_data(gate=gate))
        [check] = gate.checks
        assert len(check.scores(["a", "b"])) == 2
