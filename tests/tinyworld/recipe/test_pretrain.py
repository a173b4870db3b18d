"""A packed turn gets the logits it gets alone; the learning rate follows its schedule."""

import random

import pytest
import torch

from lsp_lightning.tinyworld.recipe.corpus import turns
from lsp_lightning.tinyworld.recipe.pretrain import (
    IGNORED,
    PretrainSettings,
    attention_mask,
    build_model,
    pack,
    packed_loss,
    rate_factor,
)
from lsp_lightning.tinyworld.tokenizer import build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    torch.manual_seed(0)
    model = build_model(tokenizer).eval()
    with torch.no_grad():  # larger weights, so that attention to another turn would show
        for parameter in model.parameters():
            parameter.mul_(4)
    return model


@pytest.fixture
def batch(tokenizer):
    return pack(turns(random.Random(0), careless=True), tokenizer, rows=3, length=96)


def test_a_packed_turn_has_the_logits_it_has_alone(model, batch):
    with torch.no_grad():
        packed = model(
            input_ids=batch.input_ids,
            attention_mask=attention_mask(batch.segments),
            position_ids=batch.position_ids,
        ).logits
        for row in range(3):
            for segment in range(1, int(batch.segments[row].max()) + 1):
                chosen = batch.segments[row] == segment
                alone = model(input_ids=batch.input_ids[row][chosen][None]).logits[0]
                torch.testing.assert_close(packed[row][chosen], alone, atol=1e-3, rtol=1e-3)


def test_mask_is_causal_within_the_turn():
    mask = attention_mask(torch.tensor([[1, 1, 2, 0]]))
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert mask[0, 0].tolist() == torch.tensor(expected).bool().tolist()


def test_loss_is_on_replies_and_their_end_only(tokenizer, batch):
    asked = batch.labels != IGNORED
    assert torch.equal(batch.labels[asked], batch.input_ids[asked])
    ends = (batch.labels == tokenizer.eos_token_id).sum()
    assert ends == batch.segments.amax(1).sum()  # one end token in each turn
    starts = batch.input_ids == tokenizer.bos_token_id
    assert not (starts & asked).any()
    assert torch.equal(starts, (batch.position_ids == 0) & (batch.segments > 0))


def test_an_untrained_model_is_near_the_uniform_loss(tokenizer, batch):
    torch.manual_seed(0)
    loss = packed_loss(build_model(tokenizer), batch)
    # 59 tokens: ln 59 = 4.08 nats
    assert loss.item() == pytest.approx(4.08, abs=0.2)


def test_rate_schedule():
    settings = PretrainSettings(steps=100, warmup=10)
    factors = [rate_factor(step, settings) for step in (0, 5, 50, 75, 99)]
    # warm-up 1/10 and 6/10, then the share of the remaining steps
    assert factors == pytest.approx([0.1, 0.6, 0.5, 0.25, 0.01])


def test_size(tokenizer):
    # embedding 59*128; a layer: attention 4*128*128, FFN 3*128*256, norms 2*128; last norm 128
    expected = 59 * 128 + 4 * (4 * 128**2 + 3 * 128 * 256 + 2 * 128) + 128
    assert build_model(tokenizer).num_parameters() == expected == 664_064
