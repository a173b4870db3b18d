"""Compute types: what auto chooses, and float16 with a scaled loss learns what float32 would."""

import math

import pytest
import torch
from lightning.pytorch import Callback
from small_game import SHORT_PROMPT, Checksum, make_policy, stir, tiny_round, tiny_trainer
from transformers import AutoConfig

from lsp_lightning import (
    Challenger,
    ConfigError,
    Lora,
    Paper,
    Sampling,
    SelfPlayDataModule,
    SelfPlayModule,
    VerifiableReward,
)
from lsp_lightning.callbacks import RoundCheckpoint
from lsp_lightning.game.objectives import Advantages
from lsp_lightning.models import precision
from lsp_lightning.models.precision import compute_type
from lsp_lightning.prefix.decoders import TreeDecoder
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.training.gradient import LossSettings
from lsp_lightning.training.update import RoundUpdate

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
SETTINGS = LossSettings(beta=0.0, kl="k1_in_reward", alpha_ch=1.0)
FIRST_SCALE = 2.0**16


# -- which type ------------------------------------------------------------------------------------


def config(family="llama", **sizes):
    """A config with a weight or two: its size decides nothing on a GPU."""
    small = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    return AutoConfig.for_model(family, **{**small, **heads, **sizes})


#: The sizes of SmolLM2-135M and of Qwen3-0.6B; no weights are made.
SMOL = {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "head_dim": 64} | {
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}


@pytest.mark.parametrize(
    ("device", "has_bf16", "with_lora", "family", "expected"),
    [
        (GPU, True, True, "llama", torch.bfloat16),
        (GPU, False, True, "llama", torch.float16),
        (GPU, True, True, "gemma3_text", torch.bfloat16),
        (GPU, False, True, "gemma3_text", torch.float32),
        (GPU, True, False, "llama", torch.float32),
        (GPU, False, False, "llama", torch.float32),
        (CPU, True, True, "llama", torch.float32),
        (CPU, False, True, "llama", torch.float32),
    ],
)
def test_auto_takes_the_fastest_type_that_the_device_and_the_model_can_be_trained_in(
    monkeypatch, device, has_bf16, with_lora, family, expected
):
    # a card that emulates bf16 does not count: it would be slower than float32
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16 or including_emulation
    )
    assert compute_type("auto", device, with_lora, config(family)) is expected


@pytest.mark.parametrize(
    ("flags", "sizes", "with_lora", "expected"),
    [
        ({"avx512_bf16": True}, SMOL, True, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, SMOL, True, torch.bfloat16),
        ({"avx512_bf16": False, "avx2": True, "bf16": True}, SMOL, True, torch.float32),
        ({"avx512_bf16": True}, SMOL, False, torch.float32),
        ({"avx512_bf16": True}, {}, True, torch.float32),
    ],
    ids=["AVX512-BF16", "AMX", "another processor", "all weights trained", "a small model"],
)
def test_auto_on_a_cpu_goes_by_the_processors_flags_and_the_models_size(
    monkeypatch, flags, sizes, with_lora, expected
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", bool, raising=False)
    assert compute_type("auto", CPU, with_lora, config(**sizes)) is expected
    assert compute_type("auto", torch.device("mps"), with_lora, config()) is torch.float32


def test_an_older_torch_is_asked_as_it_can_be(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert precision.cpu_has_bfloat16()
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not precision.cpu_has_bfloat16()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_a_type_that_is_asked_for_is_taken(dtype):
    for device in (CPU, GPU):
        assert compute_type(dtype, device, True, config()) is getattr(torch, dtype)
    if dtype != "float16":
        assert compute_type(dtype, CPU, True, config("gemma2")) is getattr(torch, dtype)


@pytest.mark.parametrize(
    ("dtype", "with_lora", "family"),
    [
        ("float16", True, "gemma"),
        ("float16", True, "gemma3_text"),
        ("float16", False, "llama"),
        ("bfloat16", False, "llama"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_line(dtype, with_lora, family):
    with pytest.raises(ConfigError, match=rf"^model\.dtype: is {dtype}, ") as error:
        compute_type(dtype, GPU, with_lora, config(family))
    assert "\n" not in str(error.value)


# -- the gradient in float16 -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def base(brief_folder):
    return brief_folder


def policy_in(base, dtype):
    policy = make_policy(base, dtype=dtype)
    stir(policy, scale=0.05)
    return policy


@pytest.fixture(scope="module")
def half(base):
    return policy_in(base, "float16")


@pytest.fixture(scope="module")
def single(base):
    return policy_in(base, "float32")


@pytest.fixture(scope="module")
def played(single):
    return tiny_round(single, n=4, g=3)


def test_a_first_round_that_teaches_nothing_has_a_gradient_of_zero(half, played):
    """No loss has been scaled yet, so that a scale is there for want of nothing else."""
    update = RoundUpdate(half, SETTINGS, TokenBudget("model.tokens", 10**6))
    trained = [p for p in half.parameters() if p.requires_grad]
    zeros_NG = torch.zeros_like(played.rewards_NG)
    nothing = Advantages(zeros_NG, zeros_NG[:, 0])
    _, norm = update.gradient(
        played, nothing, torch.optim.SGD(trained, lr=1.0), lambda loss: loss.backward(), seed=0
    )
    assert norm == 0


def small(advantages, factor):
    """Advantages that make for a small loss, and so for small gradients."""
    return Advantages(advantages.solver_NG * factor, advantages.challenger_C * factor)


class Update:
    """A round's update that counts its passes."""

    def __init__(self, policy, scale=None, spoil=None):
        self.trained = [p for p in policy.parameters() if p.requires_grad]
        self.update = RoundUpdate(policy, SETTINGS, TokenBudget("model.tokens", 10**6))
        self.policy, self.spoil, self.passes = policy, spoil or (lambda loss: loss), 0
        if scale is not None:
            self.update.scaler.load_state_dict({**self.update.scaler.state_dict(), "scale": scale})

    @property
    def scale(self):
        return self.update.scaler.get_scale()

    def gradient(self, played, factor=1.0):
        """The round's gradient as one vector, its norm, and the facts."""

        def backward(loss):
            self.passes += 1
            self.spoil(loss).backward()

        facts, norm = self.update.gradient(
            played,
            small(Paper().advantages(played), factor),
            torch.optim.SGD(self.trained, lr=1.0),
            backward,
            seed=0,
        )
        return torch.cat([p.grad.flatten() for p in self.trained]).double(), norm, facts


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def test_a_float16_policy_has_float32_adapters_and_computes_in_float16(half, played):
    trained = [p for p in half.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.float32}
    assert half.causal_lm.lm_head.weight.dtype == torch.float16
    assert {p.dtype for p in half.parameters() if not p.requires_grad} == {torch.float16}
    rollouts = tiny_round(half, n=2, g=2).playout.answers
    assert rollouts.logprobs.dtype == torch.float32
    assert rollouts.logprobs.isfinite().all()


def test_the_scaled_float16_gradient_points_where_float32s_does(half, single, played):
    exact, norm, _ = Update(single).gradient(played)
    found, found_norm, _ = Update(half, scale=256.0).gradient(played)
    assert cosine(found, exact) > 0.99
    assert float(found_norm) == pytest.approx(float(norm), rel=0.05)


def test_small_gradients_vanish_without_the_scale_and_not_with_it(half, single, played):
    """Advantages of 1e-7 of their size: below what float16 can hold, until scaled."""
    factor = 1e-7
    exact, _, _ = Update(single).gradient(played, factor)
    bare, _, _ = Update(half, scale=1.0).gradient(played, factor)
    scaled, _, _ = Update(half, scale=FIRST_SCALE).gradient(played, factor)
    flushed = (bare == 0) & (exact != 0)
    assert flushed.double().mean() > 0.5
    assert ((scaled == 0) & (exact != 0)).double().mean() < 0.01
    assert cosine(scaled, exact) > 0.99


def test_other_types_need_no_scale(single, played):
    update = Update(single)
    assert not update.update.scaler.is_enabled()
    assert update.update.state_dict() == {"loss_scale": {}}
    update.update.load_state_dict({"loss_scale": {"scale": 4.0}})  # of a run in float16
    update.gradient(played)
    assert update.passes == 1
    assert update.scale == 1


def test_an_overflow_is_computed_again_with_a_smaller_scale(half, played):
    update = Update(half, scale=2.0**40)
    gradient, norm, _ = update.gradient(played)
    assert norm.isfinite()
    assert update.passes > 3
    assert update.scale == 2.0**40 / 4 ** (update.passes - 1)
    # the scale is a power of two: what it multiplied is divided by it exactly
    assert torch.equal(gradient, Update(half, scale=update.scale).gradient(played)[0])
    update.gradient(played)
    assert update.passes == int(math.log2(2.0**40 / update.scale)) // 2 + 2  # found out once


def test_a_loss_that_is_not_finite_is_not_tried_again(half, played):
    update = Update(half)
    _, norm, facts = update.gradient(played, factor=float("nan"))
    assert update.passes == 1
    assert math.isnan(facts.loss)
    assert not norm.isfinite()
    assert update.scale == FIRST_SCALE


def test_a_gradient_that_no_scale_mends_leaves_the_scale_as_it_was(half, played):
    class Spoil(torch.autograd.Function):
        @staticmethod
        def forward(ctx, loss):
            return loss.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    update = Update(half, spoil=Spoil.apply)
    _, norm, facts = update.gradient(played)
    assert math.isfinite(facts.loss)
    assert not norm.isfinite()
    assert update.passes == 9  # 2**16, 2**14 ... 1
    assert update.scale == FIRST_SCALE
    update.spoil = lambda loss: loss
    assert update.gradient(played)[1].isfinite()


def test_the_scale_grows_after_rounds_without_an_overflow(half, played, monkeypatch):
    monkeypatch.setattr("lsp_lightning.training.update._ROUNDS_TO_GROW", 2)
    update = Update(half, scale=4.0)
    scales = []
    for _ in range(4):
        update.gradient(played)
        scales.append(update.scale)
    assert scales == [4, 8, 8, 16]


# -- runs ------------------------------------------------------------------------------------------


class Diary(Callback):
    """The metrics and the loss scale of each round."""

    def __init__(self):
        self.metrics, self.scales = {}, {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
        timed = [k for k in metrics if k.startswith("seconds/") or k == "tokens_per_second"]
        self.metrics[batch.index] = {k: v for k, v in metrics.items() if k not in timed}
        self.scales[batch.index] = pl_module._update.scaler.get_scale()


def run(folder, base, rounds, dtype="float16", ckpt_path=None):
    torch.manual_seed(3)
    module = SelfPlayModule(
        str(base),
        lora=Lora(rank=4, alpha=8),
        rewards=[VerifiableReward(Checksum())],
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=0.02),
        dtype=dtype,
    )
    data = SelfPlayDataModule(
        queries=Challenger(prompt=SHORT_PROMPT, sampling=Sampling(max_new_tokens=8)),
        num_queries=3,
        group_size=2,
        solver=Sampling(max_new_tokens=6),
        seed=11,
    )
    diary = Diary()
    trainer = tiny_trainer(folder, rounds, [RoundCheckpoint(), diary])
    trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
    weights = [p.detach() for p in module.parameters() if p.requires_grad]
    return diary, weights, module


@pytest.mark.slow
def test_float16_runs_skip_no_round_and_resume_exactly_with_their_scale(
    base, tmp_path, monkeypatch
):
    monkeypatch.setattr("lsp_lightning.training.update._ROUNDS_TO_GROW", 2)
    whole, weights, module = run(tmp_path / "whole", base, 4)
    assert [m["skipped"] for m in whole.metrics.values()] == [0] * 4
    assert all(math.isfinite(v) for m in whole.metrics.values() for v in m.values())
    assert len(set(whole.scales.values())) > 1  # so that it matters
    # a round short of the next growth, in a checkpoint of plain values
    _, before, _ = run(tmp_path / "cut", base, 3)
    last = tmp_path / "cut" / "checkpoints" / "last.ckpt"
    kept = torch.load(last, weights_only=True)["found_out"]["loss_scale"]
    assert kept["scale"] == whole.scales[2]
    resumed, after, _ = run(tmp_path / "on", base, 4, ckpt_path=str(last))
    assert resumed.metrics[3] == whole.metrics[3]
    assert resumed.scales[3] == whole.scales[3]
    assert all(torch.equal(a, b) for a, b in zip(after, weights, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(before, weights, strict=True))
    assert {p.dtype for p in weights} == {torch.float32}
    assert module.loaded_policy.dtype == torch.float16


def test_the_kv_cache_has_the_compute_type(base, half, monkeypatch):
    seen, step = set(), TreeDecoder.step

    def noted(self, tokens):
        logits = step(self, tokens)
        for layer in self._cache._layers.values():
            seen.update(tensor.dtype for tensor in vars(layer).values())
        return logits

    monkeypatch.setattr(TreeDecoder, "step", noted)
    tiny_round(half, n=2, g=2)
    assert seen == {torch.float16}
