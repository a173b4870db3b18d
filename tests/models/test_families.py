"""Families that load and cannot be used are refused in one line; tests/prefix has the others."""

import pytest
import torch
from architectures import build
from small_game import make_policy
from tiny_models import llama_tokenizer
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertLMHeadModel,
    JetMoeConfig,
    OpenAIGPTConfig,
    RecurrentGemmaConfig,
    XLNetConfig,
    Zamba2Config,
    xLSTMConfig,
)

from lsp_lightning import ConfigError
from lsp_lightning.models import trial
from lsp_lightning.models.logits import check_head
from lsp_lightning.models.trial import check_update

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "initializer_range": 0.2,
}


def zamba2(**ids):
    """Its steps leave out the limit on time steps that a whole pass applies."""
    return Zamba2Config(
        **{**SIZES, "num_key_value_heads": 4},
        layers_block_type=["linear_attention", "hybrid"],
        n_mamba_heads=4,
        mamba_d_state=8,
        mamba_ngroups=1,
        num_mem_blocks=1,
        **ids,
    )


REFUSED = {
    "zamba2": (zamba2, "computes different logits with a KV cache than in one pass"),
    "xlstm": (
        lambda **ids: xLSTMConfig(hidden_size=32, num_blocks=1, num_heads=2, **ids),
        "fails in a trial pass (ValueError: ",
    ),
    "recurrent_gemma": (
        lambda **ids: RecurrentGemmaConfig(**{**SIZES, "num_hidden_layers": 3}, **ids),
        "computes different logits with a KV cache than in one pass",
    ),
    "openai-gpt": (
        lambda **ids: OpenAIGPTConfig(n_embd=32, n_layer=1, n_head=2, **ids),
        "fails in a trial pass (RuntimeError: ",
    ),
    "xlnet": (
        lambda **ids: XLNetConfig(d_model=32, n_layer=1, n_head=2, d_inner=32, **ids),
        "fails in a trial pass (RuntimeError: ",
    ),
}


def folder_of(config, folder):
    tokenizer = llama_tokenizer()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(vocab_size=len(tokenizer), eos_token_id=2))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("family", REFUSED)
def test_a_family_that_cannot_be_used_is_refused_with_its_name(family, tmp_path):
    config, said = REFUSED[family]
    with pytest.raises(ConfigError) as error:
        make_policy(folder_of(config, tmp_path))
    message = str(error.value)
    assert message.startswith("model.base: ")
    assert f"(model type {family}) {said}" in message
    assert "choose another architecture" in message
    assert "\n" not in message


def test_a_model_that_sees_later_tokens_is_refused():
    """As a masked language model does; most are refused by their config already."""
    sizes = {k: v for k, v in SIZES.items() if k != "num_key_value_heads"}
    model = BertLMHeadModel(BertConfig(vocab_size=64, **sizes)).eval()
    with pytest.raises(ConfigError, match=r"\(model type bert\) sees later tokens"):
        check_head(model)


def test_attention_that_views_its_result_shares_prefixes(tmp_path):
    """JetMoE, whose attention is a mixture of experts."""
    folder = folder_of(
        lambda **ids: JetMoeConfig(kv_channels=8, num_local_experts=4, **SIZES, **ids), tmp_path
    )
    assert make_policy(folder).shares_prompts


@pytest.mark.parametrize("name", ["gemma3n", "llama4", "phimoe"])
def test_families_that_failed_in_their_first_update_load(name, tmp_path):
    """Their whole battery is in tests/prefix and runs in make test-all."""
    policy = make_policy(build(name, tmp_path))
    trained = [n for n, p in policy.named_parameters() if p.requires_grad]
    assert trained
    assert not [n for n in trained if "router.lora" in n and name == "phimoe"]


def test_a_model_that_cannot_be_differentiated_is_refused_when_it_is_loaded(
    tiny_llama_folder, monkeypatch
):
    def fails(*args, **kwargs):
        raise RuntimeError("a view is being modified inplace\nand more")

    policy = make_policy(tiny_llama_folder)
    monkeypatch.setattr(trial, "hidden_states", fails)
    with pytest.raises(ConfigError, match=r"fails in a trial pass \(RuntimeError: a view is") as e:
        check_update(policy.causal_lm, torch.device("cpu"))
    assert "\n" not in str(e.value)


def test_the_trial_leaves_no_gradient_and_no_random_number_behind(tiny_llama_folder):
    policy = make_policy(tiny_llama_folder, dropout=0.5)
    before = torch.get_rng_state()
    check_update(policy.causal_lm, torch.device("cpu"))
    assert all(p.grad is None for p in policy.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    assert policy.model.training
