"""After out-of-memory errors the work is repeated in smaller batches, with the same result."""

import json
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from small_game import make_policy, stir, tiny_round

from lsp_lightning import Paper
from lsp_lightning.cli.main import main
from lsp_lightning.errors import OutOfMemory
from lsp_lightning.game.player import FrozenPlayer
from lsp_lightning.models.policy import Policy
from lsp_lightning.runtime.memory import Budgets, TokenBudget, is_out_of_memory
from lsp_lightning.training.batches import longest_row, pack
from lsp_lightning.training.gradient import LossSettings
from lsp_lightning.training.update import RoundUpdate

SMALL_RUN = [
    "fit",
    *("--config", str(Path(__file__).parents[2] / "configs" / "tiny_lsp_zero.yaml")),
    "--trainer.max_steps=2",
    "--trainer.limit_val_batches=0",
    "--trainer.enable_progress_bar=false",
    "--data.num_queries=2",
    "--data.group_size=2",
]
SETTINGS = LossSettings(beta=0.3, kl="k1_in_reward", alpha_ch=0.4)


def full(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def fits(limit, tried=None):
    """Work that runs out of memory above ``limit`` tokens; appends each attempt to ``tried``."""

    def attempt(tokens):
        if tried is not None:
            tried.append(tokens)
        return tokens if tokens <= limit else full()

    return attempt


def printed(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if "out of memory" in line]


# -- a budget --------------------------------------------------------------------------------------


def test_the_budget_is_halved_until_the_work_fits_with_a_line_each_time(capsys):
    budget, tried = TokenBudget("model.some_tokens", 100), []
    assert budget.run(fits(30, tried), longest=7) == 25
    assert tried == [100, 50, 25]
    assert printed(capsys) == [
        "out of memory at model.some_tokens 100: trying again with 50",
        "out of memory at model.some_tokens 50: trying again with 25",
    ]


def test_a_smaller_budget_stays(capsys):
    budget, tried = TokenBudget("model.some_tokens", 100), []
    budget.run(fits(60), longest=1)
    budget.run(fits(60, tried), longest=1)
    assert tried == [50]
    assert len(printed(capsys)) == 1


def test_the_last_attempt_has_single_rows_and_then_out_of_memory_is_raised():
    """The smallest batch is the longest row alone."""
    for start, expected in ((100, [100, 50, 40]), (40, [40]), (3, [3])):
        tried = []
        with pytest.raises(OutOfMemory) as error:
            TokenBudget("model.some_tokens", start).run(fits(0, tried), longest=40)
        assert tried == expected
        assert str(error.value).startswith("model.some_tokens: a single row of 40 tokens")
        assert "\n" not in str(error.value)
        assert error.value.__context__ is None  # so it keeps no tensor of the attempt alive


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA error: device-side assert"), ValueError("out of memory"), OSError()],
)
def test_other_errors_pass_through(error):
    def attempt(tokens):
        raise error

    budget = TokenBudget("model.some_tokens", 100)
    with pytest.raises(type(error)) as raised:
        budget.run(attempt, longest=1)
    assert raised.value is error
    assert budget.tokens == 100


def test_the_cpu_allocators_error_counts_as_out_of_memory():
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**59)
    assert type(error.value) is RuntimeError
    assert is_out_of_memory(error.value)


def test_tensors_of_a_failed_attempt_are_freed_before_the_next():
    """Neither the traceback nor a reference cycle keeps them."""
    failed = []

    class Cycle:
        def __init__(self, tensor):
            self.tensor, self.itself = tensor, self

    def attempt(tokens):
        assert not [ref for ref in failed if ref() is not None]
        tensor, cycle = torch.zeros(4), Cycle(torch.zeros(4))
        failed.extend((weakref.ref(tensor), weakref.ref(cycle.tensor)))
        return fits(10)(tokens)

    TokenBudget("model.some_tokens", 50).run(attempt, longest=1)
    assert len(failed) == 2 * 4


def test_a_state_is_restored_unless_the_config_has_another_size():
    budgets = Budgets(micro_batch_tokens=400, rollout_tokens=900)
    budgets.micro_batches.run(fits(100), longest=1)
    budgets.passes.run(fits(500), longest=1)
    assert budgets.passes.asked == 800
    state = budgets.state_dict()
    same, other = Budgets(400, 900), Budgets(300, 900)
    for resumed in (same, other):
        resumed.load_state_dict(state)
    assert [b.tokens for b in vars(same).values()] == [100, 400, 900]
    assert [b.tokens for b in vars(other).values()] == [300, 600, 900]
    same.load_state_dict({})  # a checkpoint without budgets
    assert same.micro_batches.tokens == 100


# -- the gradient of a round -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(brief_folder):
    return brief_folder


@pytest.fixture
def policy(base):
    policy = make_policy(base)
    stir(policy, scale=0.05)
    return policy


@pytest.fixture(scope="module")
def played(base):
    policy = make_policy(base)
    stir(policy, scale=0.05)
    return tiny_round(policy, n=8, g=4)


def gradient(policy, played, tokens, budget=None):
    """The round's gradient as one vector."""
    trained = [p for p in policy.parameters() if p.requires_grad]
    update = RoundUpdate(policy, SETTINGS, budget or TokenBudget("model.tokens", tokens))
    update.gradient(
        played,
        Paper().advantages(played),
        torch.optim.SGD(trained, lr=1.0),
        lambda loss: loss.backward(),
        seed=0,
    )
    return torch.cat([p.grad.flatten() for p in trained])


def cramp(policy, limit, where, monkeypatch, after=0):
    """Make memory run out above ``limit`` tokens, after ``after`` micro-batches of a pass.

    Also asserts that no tensor of an earlier pass is alive when a pass starts.
    """
    seen, position = [], [0]
    completion_logprobs, reference_logprobs = policy.completion_logprobs, policy.reference_logprobs

    def reference(batch):
        if position[0]:  # the references come first: a pass begins
            assert not [ref for ref in seen if ref() is not None]
            seen.clear()
        position[0] = 0
        seen.append(weakref.ref(batch.input_ids))
        logprobs = reference_logprobs(batch)
        seen.append(weakref.ref(logprobs))
        return logprobs

    def cramped(batch):
        position[0] += 1
        short = batch.input_ids.numel() > limit and position[0] > after
        if short and where == "forward":
            full()
        logprobs, entropies = completion_logprobs(batch)
        seen.append(weakref.ref(logprobs))
        if short and where == "backward":
            logprobs.register_hook(full)
        return logprobs, entropies

    monkeypatch.setattr(policy, "completion_logprobs", cramped)
    monkeypatch.setattr(policy, "reference_logprobs", reference)


@pytest.mark.parametrize("where", ["forward", "backward"])
@pytest.mark.parametrize("after", [0, 1])
def test_after_halving_the_gradient_equals_that_of_the_smaller_size_bit_for_bit(
    policy, played, monkeypatch, capsys, where, after
):
    asked, limit = 4 * longest_row(played), 2 * longest_row(played)
    assert len(pack(played, policy.pad_id, asked, shared=True)) > after + 1
    untroubled = gradient(policy, played, limit)
    cramp(policy, limit, where, monkeypatch, after)
    budget = TokenBudget("model.tokens", asked)
    assert torch.equal(gradient(policy, played, asked, budget), untroubled)
    assert budget.tokens == limit
    assert len(printed(capsys)) == 1
    assert untroubled.norm() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [pytest.param(torch.float32, 5e-6, marks=pytest.mark.slow), (torch.float64, 2e-7)],
)
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_after_halving_the_gradient_equals_that_of_one_batch(
    policy, played, monkeypatch, capsys, dtype, tolerance, where
):
    policy.to(dtype)
    untroubled = gradient(policy, played, 10**6)
    cramp(policy, longest_row(played), where, monkeypatch)
    troubled = gradient(policy, played, 8 * longest_row(played))
    assert (troubled - untroubled).norm() < tolerance * untroubled.norm()
    assert len(printed(capsys)) == 3  # 8 -> 4 -> 2 -> 1 rows


def test_out_of_memory_in_activation_checkpointing_is_handled(base, played, capsys):
    """With activation checkpointing a layer runs again in the backward pass."""
    policy = make_policy(base, activation_checkpointing=True)
    stir(policy, scale=0.05)
    untroubled = gradient(policy, played, 2 * longest_row(played))
    failures = []

    def fail_once(module, inputs):
        if torch._C._current_graph_task_id() != -1 and not failures:
            failures.append(1)
            full()

    handle = policy.causal_lm.model.layers[0].mlp.register_forward_pre_hook(fail_once)
    try:
        assert torch.equal(gradient(policy, played, 4 * longest_row(played)), untroubled)
    finally:
        handle.remove()
    assert failures
    assert len(printed(capsys)) == 1


def test_a_single_row_that_does_not_fit_raises_out_of_memory(policy, played, monkeypatch):
    cramp(policy, longest_row(played) - 1, "forward", monkeypatch)
    with pytest.raises(OutOfMemory, match=f"a single row of {longest_row(played)} tokens"):
        gradient(policy, played, 2 * longest_row(played))


# -- judging ---------------------------------------------------------------------------------------


def test_batches_of_judging_are_halved_too(policy, monkeypatch, capsys):
    prompts = [list(range(10, 10 + length)) for length in (5, 9, 20, 7)]
    expected = policy.next_token_logprobs(prompts)
    own = policy.next_token_logprobs

    def cramped(prompts, max_tokens):
        return own(prompts, max_tokens) if max_tokens <= 30 else full()

    monkeypatch.setattr(policy, "next_token_logprobs", cramped)
    budget = TokenBudget("model.tokens", 80)
    player = FrozenPlayer(policy, passes=budget)
    torch.testing.assert_close(player.next_token_logprobs(prompts), expected)
    assert budget.tokens == 20
    assert len(printed(capsys)) == 2


# -- whole runs ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize("failure", ["a row", "an optimiser"])
def test_a_run_out_of_memory_ends_with_one_line_and_can_be_resumed(
    tmp_path, monkeypatch, capsys, failure
):
    folder = tmp_path / "run"
    checkpoint = folder / "checkpoints" / "last.ckpt"
    own, rounds = RoundUpdate.gradient, []

    def gradient(self, played, *args):
        rounds.append(played.index)
        if played.index < 1:
            return own(self, played, *args)
        if failure == "a row":
            patched.setattr(Policy, "completion_logprobs", full)
            return own(self, played, *args)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n2.00 GiB.")

    with monkeypatch.context() as patched:
        patched.setattr(RoundUpdate, "gradient", gradient)
        assert main([*SMALL_RUN, f"--trainer.default_root_dir={folder}"]) == 1
    out, err = capsys.readouterr()
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "Traceback" not in err
    start = "model.micro_batch_tokens: a single row of" if failure == "a row" else "out of memory"
    assert errors[0].startswith(f"error: {start}")
    assert f"fit --ckpt_path {checkpoint}" in out
    assert rounds == [0, 1]
    assert main(["fit", "--ckpt_path", str(checkpoint)]) == 0
    assert json.loads((folder / "summary.json").read_text())["rounds"] == 2


LIMITED = """
import resource, sys
sys.path[:0] = [{tests!r}]
import torch
from lightning.pytorch import Callback
from small_game import SHORT_PROMPT, Checksum, tiny_trainer
from lsp_lightning import (
    Challenger, Lora, Sampling, SelfPlayDataModule, SelfPlayModule, VerifiableReward
)

class Limit(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        pages = int(open("/proc/self/statm").read().split()[0])
        room = pages * resource.getpagesize() + {megabytes} * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (room, resource.RLIM_INFINITY))

    def on_train_batch_end(self, *args):
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)

def weights(callbacks):
    torch.manual_seed(3)
    module = SelfPlayModule(
        {base!r},
        lora=Lora(rank=4, alpha=8),
        rewards=[VerifiableReward(Checksum())],
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
        micro_batch_tokens=10**6,
    )
    data = SelfPlayDataModule(
        queries=Challenger(prompt=SHORT_PROMPT, sampling=Sampling(max_new_tokens=8)),
        num_queries=16,
        group_size=32,
        solver=Sampling(max_new_tokens=24),
        seed=11,
    )
    tiny_trainer({folder!r}, 2, callbacks).fit(module, datamodule=data)
    print("micro-batches of", module.budgets.micro_batches.tokens)
    return [p.detach() for p in module.parameters() if p.requires_grad]

torch.set_num_threads(1)
for limited, free in zip(weights([Limit()]), weights([]), strict=True):
    torch.testing.assert_close(limited, free, atol=1e-6, rtol=1e-4)
    assert free.norm() > 0
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
@pytest.mark.slow
def test_a_run_survives_a_real_lack_of_memory(tiny_llama_folder, tmp_path):
    """The process has a limited address space, so the CPU allocator really fails."""
    script = LIMITED.format(
        tests=str(Path(__file__).parents[1] / "support"),
        base=str(tiny_llama_folder),
        folder=str(tmp_path),
        megabytes=16,
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        # freed memory goes back to the system at once, so that no spare memory meets the need
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "MALLOC_MMAP_THRESHOLD_": "65536",
            "MALLOC_TRIM_THRESHOLD_": "65536",
        },
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    halvings = [line for line in lines if line.startswith("out of memory at model.micro_batch")]
    sizes = [int(line.rpartition(" ")[2]) for line in lines if line.startswith("micro-batches")]
    assert sizes == [10**6 // 2 ** len(halvings), 10**6]
    assert halvings
