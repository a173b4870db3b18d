"""Bases in 4 bits: which layers, their gradients and weights on a CPU, and what is refused."""

import os
import subprocess
import sys

import bitsandbytes.functional
import pytest
import torch
import transformers
from small_game import make_policy, stir
from tiny_models import build_llama
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, GPT2Config, GPT2LMHeadModel

from lsp_lightning import ConfigError, Policy, SelfPlayModule, VerifiableReward
from lsp_lightning.callbacks.summary import parameter_counts
from lsp_lightning.models import quantization
from lsp_lightning.models.loading import load_classifier, load_model
from lsp_lightning.models.quantization import full_weight, linear_layers
from lsp_lightning.tinyworld.verifier import TinyWorldVerifier

WORLD = "pkg:lsp_lightning/tinyworld"
IDS = torch.tensor([[1, 20, 30, 40, 50, 60, 70], [1, 33, 22, 44, 55, 11, 66]])

needs_bf16 = pytest.mark.skipif(
    not bitsandbytes.functional.has_avx512bf16(), reason="only CPUs with AVX512-BF16 repack weights"
)
needs_avx512 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() != "AVX512", reason="the faulty kernel needs AVX512"
)


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory):
    """A Llama whose layers have 96 inputs, and its last one 192."""
    return build_llama(tmp_path_factory.mktemp("odd"), hidden=96, layers=1)


@pytest.fixture(scope="module")
def bert_folder(tmp_path_factory):
    """A random reward model whose head has a bias."""
    folder = tmp_path_factory.mktemp("bert")
    config = BertConfig(
        vocab_size=100,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_labels=1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


def quantized_names(model):
    layers = {id(layer) for layer in linear_layers(model)}
    return {name for name, module in model.named_modules() if id(module) in layers}


def gradient(policy):
    """Of something that pulls at every trained weight, as one vector."""
    policy.zero_grad()
    policy.causal_lm(input_ids=IDS).logits.square().mean().backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.requires_grad])


def look(policy):
    """A pass without gradients through the policy, in eval mode, as every round has some."""
    policy.model.eval()
    with torch.no_grad():
        policy.causal_lm(input_ids=IDS)
    policy.model.train()


def cosine(a, b):
    return float(nn.functional.cosine_similarity(a.double(), b.double(), dim=0))


def plain_twin(policy, folder):
    """The policy over a base of plain weights: those the 4 bits stand for, of a base never used.

    Not by way of state_dict(): bitsandbytes undoes there what the guard prevents.
    """
    dtype = str(policy.dtype).removeprefix("torch.")
    copied, fresh = make_policy(folder, dtype=dtype), load_model(str(folder), policy.dtype, "nf4")
    own = dict(policy.named_parameters())
    with torch.no_grad():
        for name, parameter in copied.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(own[name])
        for name in quantized_names(fresh):
            layer = copied.causal_lm.get_submodule(f"{name}.base_layer")
            layer.weight.copy_(full_weight(fresh.get_submodule(name)))
    return copied


# -- which layers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["llama", "qwen3"])  # with a head of its own, and with a tied one
def test_all_linear_layers_but_the_head_are_quantized_and_nothing_else(model, dtype, request):
    folder = str(request.getfixturevalue(f"tiny_{model}_folder"))
    compute_type = getattr(torch, dtype)
    plain = load_model(folder, compute_type)
    linear = {n for n, module in plain.named_modules() if isinstance(module, nn.Linear)}
    quantized = load_model(folder, compute_type, "nf4")
    assert quantized_names(quantized) == linear - {"lm_head"}
    others = {n: p for n, p in quantized.named_parameters() if p.dtype != torch.uint8}
    assert {p.dtype for p in others.values()} == {compute_type}
    assert {name.removesuffix(".weight") for name in others} >= {"model.embed_tokens", "model.norm"}
    for layer in linear_layers(quantized):
        state = layer.weight.quant_state
        assert (state.quant_type, state.blocksize, state.nested) == ("nf4", 64, True)
        assert full_weight(layer).dtype == layer.compute_dtype == compute_type


def test_weights_are_those_of_the_base_to_a_tenth(tiny_llama_folder):
    plain = dict(load_model(str(tiny_llama_folder), torch.float32).named_modules())
    model = load_model(str(tiny_llama_folder), torch.float32, "nf4")
    for name in quantized_names(model):
        weight = plain[name].weight
        error = (full_weight(model.get_submodule(name)) - weight).norm() / weight.norm()
        assert 0.05 < error < 0.11  # NF4 of normal weights: .09


def test_layers_that_keep_their_weight_transposed_are_quantized_and_checked_too(tmp_path):
    for width in (64, 96):
        config = GPT2Config(vocab_size=100, n_embd=width, n_layer=1, n_head=2, n_positions=64)
        GPT2LMHeadModel(config).save_pretrained(tmp_path / str(width))
    plain = dict(load_model(str(tmp_path / "64"), torch.float32).named_modules())
    model = load_model(str(tmp_path / "64"), torch.float32, "nf4")
    assert len(quantized_names(model)) == 4
    for name in quantized_names(model):
        weight = plain[name].weight.T
        assert (full_weight(model.get_submodule(name)) - weight).norm() < 0.11 * weight.norm()
    with pytest.raises(ConfigError, match=r"c_attn has 96 inputs"):
        load_model(str(tmp_path / "96"), torch.float32, "nf4")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_adapters_are_float32_and_all_that_is_trained_or_kept(tiny_llama_folder, dtype):
    policy = make_policy(tiny_llama_folder, dtype=dtype, quantization="nf4")
    trained = {name for name, p in policy.named_parameters() if p.requires_grad}
    assert trained == set(policy.trained_state())
    assert {p.dtype for p in policy.trained_state().values()} == {torch.float32}
    assert len(trained) == 2 * len(linear_layers(policy))


def test_a_quantized_weight_counts_as_many_as_it_stands_for(tiny_llama_folder):
    plain = make_policy(tiny_llama_folder)
    quantized = make_policy(tiny_llama_folder, quantization="nf4")
    counts = [parameter_counts(policy)[0] for policy in (plain, quantized)]
    assert counts[0] == counts[1] == sum(p.numel() for p in plain.parameters())


@needs_bf16
def test_loading_says_nothing_of_a_kernel_that_is_not_used():
    policy = f"Policy('{WORLD}/base', quantization='nf4')"
    code = f"from lsp_lightning import Policy; {policy}; print('loaded')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert done.stdout.splitlines()[-1] == "loaded"
    assert "kernel" not in done.stdout + done.stderr


# -- gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_gradients_are_those_of_plain_weights_before_and_after_a_pass_without_gradients(
    tiny_llama_folder, dtype
):
    policy = make_policy(tiny_llama_folder, dtype=dtype, quantization="nf4")
    stir(policy)
    expected = gradient(plain_twin(policy, tiny_llama_folder))
    before = gradient(policy)
    assert cosine(before, expected) > 1 - {"float32": 1e-6, "bfloat16": 1e-3}[dtype]
    assert float(before.norm() / expected.norm()) == pytest.approx(1, abs=0.01)
    look(policy)
    with policy.reference() as model:
        model(input_ids=IDS)
    assert torch.equal(gradient(policy), before)


@needs_bf16
def test_without_the_guard_a_pass_without_gradients_spoils_later_ones(tiny_llama_folder):
    """If this fails, bitsandbytes is mended and the guard can go."""
    policy = make_policy(tiny_llama_folder, quantization="nf4")
    stir(policy)
    expected = gradient(plain_twin(policy, tiny_llama_folder))
    for layer in linear_layers(policy):
        layer.support_avx512bf16_for_cpu = True
    assert cosine(gradient(policy), expected) > 1 - 1e-6
    look(policy)
    assert cosine(gradient(policy), expected) < 0.9


def test_activation_checkpointing_leaves_the_gradient_as_it_is(tiny_llama_folder):
    gradients = []
    for checkpointing in (False, True):
        policy = make_policy(
            tiny_llama_folder, quantization="nf4", activation_checkpointing=checkpointing
        )
        stir(policy)
        look(policy)
        gradients.append(gradient(policy))
    torch.testing.assert_close(gradients[1], gradients[0])


# -- sizes -----------------------------------------------------------------------------------------


def test_sizes_that_are_no_multiple_of_64_are_refused_on_a_cpu_before_loading(
    odd_folder, monkeypatch
):
    loads = []
    load = transformers.AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        transformers.AutoModelForCausalLM,
        "from_pretrained",
        lambda *args, **kwargs: loads.append(args) or load(*args, **kwargs),
    )
    with pytest.raises(ConfigError, match=r"^model\.base: layer .*q_proj has 96 inputs") as error:
        Policy(str(odd_folder), quantization="nf4")
    assert "\n" not in str(error.value)
    assert not loads
    Policy(str(odd_folder))
    assert len(loads) == 1


@needs_avx512
def test_without_the_check_of_sizes_weights_are_wrong(odd_folder, monkeypatch):
    """If this fails, bitsandbytes is mended and the check can go."""
    monkeypatch.setattr(quantization, "check_sizes", lambda *_: None)
    plain = dict(load_model(str(odd_folder), torch.float32).named_modules())
    model = load_model(str(odd_folder), torch.float32, "nf4")
    errors = {96: [], 192: []}
    for name in quantized_names(model):
        weight = plain[name].weight
        error = (full_weight(model.get_submodule(name)) - weight).norm() / weight.norm()
        errors[weight.shape[1]].append(error)
    assert min(errors[96]) > 0.15
    assert max(errors[192]) < 0.11


# -- reward models ---------------------------------------------------------------------------------


def test_a_reward_models_head_is_not_quantized_even_with_a_bias(bert_folder):
    model = load_classifier(bert_folder, "key", "nf4")
    assert type(model.classifier) is nn.Linear
    assert "bert.pooler.dense" in quantized_names(model)
    assert not model.training


def test_a_quantized_reward_model_scores_like_the_whole_one():
    plain = load_classifier(f"{WORLD}/reward_model", "key")
    quantized = load_classifier(f"{WORLD}/reward_model", "key", "nf4")
    assert type(quantized.score) is nn.Linear
    assert torch.equal(quantized.score.weight, plain.score.weight)
    assert len(linear_layers(quantized)) == 2 * 7
    ids = torch.randint(4, 59, (64, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scores = [m(input_ids=ids).logits.squeeze(1) for m in (plain, quantized)]
    assert float(torch.corrcoef(torch.stack(scores))[0, 1]) > 0.97
    assert (scores[1] - scores[0]).abs().mean() < 0.2 * scores[0].std()


# -- what is refused -------------------------------------------------------------------------------


def test_quantized_weights_without_lora_are_refused(tiny_llama_folder):
    with pytest.raises(ConfigError, match=r"^model\.quantization: needs LoRA") as error:
        SelfPlayModule(
            str(tiny_llama_folder),
            rewards=[VerifiableReward(TinyWorldVerifier())],
            lora=None,
            quantization="nf4",
        )
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("again", [None, "nf4"])
def test_a_base_that_is_quantized_already_is_refused(tiny_llama_folder, tmp_path, again):
    load_model(str(tiny_llama_folder), torch.float32, "nf4").save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"^model\.base: .* is already quantized") as error:
        Policy(str(tmp_path), quantization=again)
    assert "\n" not in str(error.value)
