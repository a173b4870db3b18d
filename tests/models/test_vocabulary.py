"""Tokenizers with more ids than the embedding has rows, and embeddings with more rows than ids."""

import pytest
import torch
from small_game import make_policy, tiny_round
from tiny_models import llama_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from lsp_lightning import ConfigError, Player, Sampling

SIZE = len(llama_tokenizer())


def folder_with(tmp_path, rows, more=(), pad=None):
    """A random Llama with this many rows, whose tokenizer has some added tokens."""
    tokenizer = llama_tokenizer()
    tokenizer.add_tokens(list(more), special_tokens=True)
    if pad is not None:
        tokenizer.pad_token = pad
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.15,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return str(tmp_path)


def test_text_that_is_encoded_beyond_the_embedding_is_refused_at_load(tmp_path):
    with pytest.raises(ConfigError) as error:
        make_policy(folder_with(tmp_path, SIZE - 3))
    assert f"has ids up to {SIZE - 1}, but the model's embedding has {SIZE - 3} rows" in str(
        error.value
    )
    assert str(error.value).startswith("model.base: the tokenizer of ")
    assert "\n" not in str(error.value)


def test_an_added_token_beyond_the_embedding_never_enters_a_query(tmp_path):
    """As in Gemma 3: its text model has no row for the tokenizer's picture token."""
    policy = make_policy(folder_with(tmp_path, SIZE, ["<picture>"]))
    assert policy.codec.tokenizer.convert_tokens_to_ids("<picture>") == SIZE
    ids = policy.codec.encode("{query}", {"query": "a <picture> of <picture>"})
    assert max(ids) < SIZE
    assert "<picture>" in policy.codec.tokenizer.decode(ids)
    with pytest.raises(ConfigError, match=r"a prompt contains '<picture>', id \d+, but the mod"):
        policy.codec.encode("<picture> {query}", {"query": "a"})


def test_a_padding_token_beyond_the_embedding_is_not_used(tmp_path):
    policy = make_policy(folder_with(tmp_path, SIZE, ["<fill>"], pad="<fill>"))
    assert policy.pad_id < SIZE
    played = tiny_round(policy)
    assert int(played.playout.answers.prompt_ids.max()) < SIZE


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ids_without_a_token_are_never_sampled(tmp_path, temperature):
    """Rows that pad the embedding to a round number, as in Qwen, here likelier than any token."""
    policy = make_policy(folder_with(tmp_path, SIZE + 50))
    with torch.no_grad():
        policy.causal_lm.get_output_embeddings().weight[SIZE:] *= 9
    assert policy.undecodable_ids == list(range(SIZE, SIZE + 50))
    prompts = [policy.codec.encode("{query}", {"query": "a" * n}) for n in (1, 5)]
    sampling = Sampling(temperature=temperature, max_new_tokens=24)
    drawn = Player.local(policy).respond(prompts, 8, sampling, seed=0)
    assert int(drawn.completion_ids.max()) < SIZE
    assert torch.isfinite(drawn.logprobs).all()
    # the reference samples the same tokens: they are its own
    frozen = make_policy(folder_with(tmp_path, SIZE))
    assert frozen.undecodable_ids == []
