"""Which way a model computes prompts: what is tested, what is said, and what is never swallowed."""

import pytest
import torch
from architectures import build
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from lsp_lightning import ConfigError, Policy
from lsp_lightning.models import capabilities
from lsp_lightning.models.capabilities import enable_prefix_sharing
from lsp_lightning.prefix.cache import PrefixCache
from lsp_lightning.prefix.sharing import shares_prefixes, sharing_by_config


def llama(**settings):
    torch.manual_seed(0)
    config = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        **settings,
    }
    return LlamaForCausalLM(LlamaConfig(**config)).eval()


def test_a_model_that_shares_has_no_reason_not_to():
    model = llama()
    sharing = enable_prefix_sharing(model)
    assert sharing.available
    assert sharing.unavailable is None
    assert model.prefix_sharing is sharing
    assert shares_prefixes(model)


def test_a_model_that_was_not_tested_does_not_share():
    assert not shares_prefixes(llama())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("qwen3.5", "this model keeps other states than keys and values"),
        ("granite-hybrid", "this model keeps other states than keys and values"),
        ("llama", None),
    ],
)
def test_loading_says_once_why_prompts_are_not_shared(name, reason, tmp_path, capsys):
    policy = Policy(str(build(name, tmp_path)))
    lines = [line for line in capsys.readouterr().out.splitlines() if "prompts are" in line]
    assert policy.shares_prompts == (reason is None)
    assert lines == ([f"prompts are computed once for each completion: {reason}"] if reason else [])


def test_attention_that_cannot_be_replaced_is_known_without_a_test(monkeypatch):
    monkeypatch.setattr(capabilities, "_difference", None)  # not called
    config = BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4)
    model = BloomForCausalLM(config).eval()
    sharing = enable_prefix_sharing(model)
    assert sharing == sharing_by_config(model)
    assert sharing.unavailable == "the attention of this model cannot be replaced"


def test_kinds_of_layers_that_are_not_known_are_named():
    model = llama()
    model.config.layer_types = ["full_attention", "chunked_attention"]
    reason = sharing_by_config(model).unavailable
    assert reason == "this model has layers of an unsupported kind (chunked_attention)"


@pytest.mark.parametrize("scale", [1.01, float("nan")])
def test_a_model_that_computes_otherwise_when_it_shares_does_not_share(scale, monkeypatch):
    step = PrefixCache._decode
    monkeypatch.setattr(
        PrefixCache, "_decode", lambda self, *args, **kw: scale * step(self, *args, **kw)
    )
    model = llama(initializer_range=0.3)
    sharing = enable_prefix_sharing(model)
    assert sharing.unavailable == "this model computes different logits when prefixes are shared"
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("The size of tensor a (4) must match the size of tensor b (8)"),
        TypeError("missing 1 required positional argument"),
        AttributeError("no attribute"),
        KeyError(3),
        ValueError("a fault"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)
def test_no_error_of_the_test_is_taken_for_a_model_that_cannot_share(error, monkeypatch):
    def fails(*args, **kwargs):
        raise error

    monkeypatch.setattr(PrefixCache, "_decode", fails)
    with pytest.raises(ConfigError, match=r"LlamaForCausalLM \(model type llama\) fails") as raised:
        enable_prefix_sharing(llama())
    assert raised.value.__cause__ is error
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "cpu"],
)
def test_memory_that_runs_out_is_not_taken_for_an_unsupported_architecture(error, monkeypatch):
    def fails(*args, **kwargs):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(PrefixCache, "_decode", fails)
        with pytest.raises(type(error)) as raised:
            enable_prefix_sharing(llama())
    assert raised.value is error
    monkeypatch.setattr(capabilities, "_steps_as_rows", fails)
    model = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4))
    with pytest.raises(type(error)):
        enable_prefix_sharing(model.eval())


def test_a_model_that_refuses_the_cache_is_refused_with_its_words(monkeypatch):
    def fails(*args, **kwargs):
        raise ValueError("uses a cache of its own\nand more")

    monkeypatch.setattr(capabilities, "_steps_as_rows", fails)
    model = BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=4))
    with pytest.raises(ConfigError, match=r"a KV cache \(uses a cache of its own\)") as error:
        enable_prefix_sharing(model.eval())
    assert isinstance(error.value.__cause__, ValueError)


def test_values_of_another_size_than_the_queries_are_shared_too():
    """Multi-head latent attention (DeepSeek): heads of 24 numbers, values of 12."""
    torch.manual_seed(0)
    config = DeepseekV3Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=32,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        first_k_dense_replace=1,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_routed_experts=4,
        n_group=1,
        topk_group=1,
        num_experts_per_tok=2,
        q_lora_rank=16,
        kv_lora_rank=16,
        qk_rope_head_dim=16,
        qk_nope_head_dim=8,
        v_head_dim=12,
        initializer_range=0.2,
    )
    assert enable_prefix_sharing(DeepseekV3ForCausalLM(config).eval()).available
