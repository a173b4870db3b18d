"""The tokenizer: one token for each character, control tokens, and the chat template."""

import random

import pytest

from lsp_lightning.tinyworld import BASE_DIR
from lsp_lightning.tinyworld.recipe.corpus import JUDGE_PROMPT, draw_turn, render_judge
from lsp_lightning.tinyworld.recipe.pretrain import encode_turn
from lsp_lightning.tinyworld.tasks import ALPHABET
from lsp_lightning.tinyworld.tokenizer import ROLE_TOKENS, build_tokenizer


@pytest.fixture(scope="module", params=["built", "shipped"])
def tokenizer(request):
    if request.param == "built":
        return build_tokenizer()
    transformers = pytest.importorskip("transformers")
    return transformers.AutoTokenizer.from_pretrained(BASE_DIR)


def test_every_character_is_one_token_and_comes_back(tokenizer):
    ids = tokenizer.encode(ALPHABET)
    assert len(ids) == len(set(ids)) == len(ALPHABET)
    assert tokenizer.decode(ids) == ALPHABET


def test_unknown_characters_become_unk(tokenizer):
    assert tokenizer.encode("A<é") == [tokenizer.unk_token_id] * 3


def test_control_tokens_are_dropped_from_text_and_score_tags_are_not(tokenizer):
    ids = tokenizer.encode("<s><|user|>ab<|assistant|><Score>7</Score></s>")
    assert len(ids) == 9
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab<Score>7</Score>"


def test_encoding_adds_no_token(tokenizer):
    assert tokenizer.encode("7") == tokenizer.convert_tokens_to_ids(["7"])


def test_control_tokens_cannot_be_spelt(tokenizer):
    # `<`, `|` and `>` are not in the alphabet, so text cannot spell a control token.
    assert not set("<|>") & set(ALPHABET)
    assert all(len(tokenizer.encode(token)) == 1 for token in ROLE_TOKENS)


def test_chat_template(tokenizer):
    chat = [{"role": "user", "content": "7+5=?"}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<s><|user|>7+5=?<|assistant|>"
    chat.append({"role": "assistant", "content": "12"})
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    assert text == "<s><|user|>7+5=?<|assistant|>12</s>"


def test_chat_template_refuses_other_roles(tokenizer):
    with pytest.raises(Exception, match="Only user and assistant"):
        tokenizer.apply_chat_template([{"role": "system", "content": "a"}], tokenize=False)


def test_judge_prompt_through_the_template(tokenizer):
    assert JUDGE_PROMPT == "<|judge|>{instruction}<|answer|>{response}"
    chat = [{"role": "user", "content": render_judge("7+5=?", "12")}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert text == "<s><|user|><|judge|>7+5=?<|answer|>12<|assistant|>"
    assert len(tokenizer.encode(text)) == 3 + 5 + 1 + 2 + 1


def test_training_turns_are_the_chat_templates_tokens(tokenizer):
    rng = random.Random(0)
    for _ in range(50):
        turn = draw_turn(rng, careless=True)
        prompt, reply = encode_turn(turn, tokenizer)
        chat = [
            {"role": "user", "content": turn.prompt},
            {"role": "assistant", "content": turn.reply},
        ]
        assert prompt + reply == tokenizer.apply_chat_template(chat, return_dict=False)
        assert prompt == tokenizer.apply_chat_template(
            chat[:1], add_generation_prompt=True, return_dict=False
        )
        assert tokenizer.unk_token_id not in prompt + reply
