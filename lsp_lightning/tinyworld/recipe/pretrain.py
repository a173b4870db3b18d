"""The base model, a Llama of 0.66M parameters, and its pretraining: packed rows, Muon."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from lsp_lightning.tinyworld.recipe.corpus import Turn, turns
from lsp_lightning.tinyworld.tokenizer import CONTEXT_LENGTH

Trained = TypeVar("Trained", bound=PreTrainedModel)
IGNORED = -100  # label of a token without a loss


@dataclass(frozen=True)
class PretrainSettings:
    """Settings of a training run."""

    steps: int = 2600
    """Optimiser steps."""
    rows: int = 24
    """Packed rows in a step."""
    row_length: int = 128
    """Tokens in a row; several turns share a row."""
    muon_lr: float = 0.01
    """Peak learning rate of the layers' matrices."""
    adam_lr: float = 3e-3
    """Peak learning rate of embeddings and norms."""
    muon_decay: float = 0.1
    """Weight decay of the layers' matrices."""
    warmup: int = 50
    """Steps of linear warm-up; the rate then falls linearly to 0."""
    clean_share: float = 0.7
    """Share of the steps with clean answers; careless answers follow (see `corpus`)."""


@dataclass(frozen=True)
class PackedRows:
    """A batch of rows, several turns in each; every field is (B, S) integers."""

    input_ids: Tensor
    labels: Tensor
    """The token's id in replies and at their end token, else IGNORED."""
    position_ids: Tensor
    """Positions start at 0 in every turn."""
    segments: Tensor
    """Number of the turn in its row, from 1; 0 is padding."""


def build_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A new model. Widths are multiples of 64, as 4-bit quantization needs."""
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        **ids,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(**ids)
    return model


def pack(
    source: Iterator[Turn], tokenizer: PreTrainedTokenizerFast, rows: int, length: int
) -> PackedRows:
    """Fill `rows` rows of `length` tokens with whole turns; drop the first that does not fit."""
    shape = (rows, length)
    batch = PackedRows(
        torch.full(shape, int(tokenizer.pad_token_id)),
        torch.full(shape, IGNORED),
        torch.zeros(shape, dtype=torch.long),
        torch.zeros(shape, dtype=torch.long),
    )
    row = start = segment = 0
    while True:
        prompt, reply = encode_turn(next(source), tokenizer)
        end = start + len(prompt) + len(reply)
        if end > length:
            row, start, segment = row + 1, 0, 0
            end = len(prompt) + len(reply)
        if row == rows:
            return batch
        segment += 1
        batch.input_ids[row, start:end] = torch.tensor(prompt + reply)
        batch.labels[row, start + len(prompt) : end] = torch.tensor(reply)
        batch.position_ids[row, start:end] = torch.arange(end - start)
        batch.segments[row, start:end] = segment
        start = end


def encode_turn(turn: Turn, tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """Token ids of the prompt up to `<|assistant|>` and of the reply with its end token.

    This writes the chat template by hand: rendering it would take longer than a training step. A
    test compares the two.
    """
    prompt = f"<s><|user|>{turn.prompt}<|assistant|>"
    return tokenizer.encode(prompt), tokenizer.encode(f"{turn.reply}</s>")


def attention_mask(segments: Tensor) -> Tensor:
    """(B, S) turn numbers -> (B, 1, S, S) booleans: causal attention within a turn."""
    same = segments[:, None, :, None] == segments[:, None, None, :]
    return same & torch.ones(same.shape[-2:], dtype=torch.bool).tril()


def packed_loss(model: LlamaForCausalLM, batch: PackedRows) -> Tensor:
    """Mean cross-entropy in nats over the replies' tokens."""
    logits = model(
        input_ids=batch.input_ids,
        attention_mask=attention_mask(batch.segments),
        position_ids=batch.position_ids,
        use_cache=False,
    ).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), batch.labels[:, 1:].flatten(), ignore_index=IGNORED
    )


def rate_factor(step: int, settings: PretrainSettings) -> float:
    """Factor of the peak rate at a step: linear warm-up, then linear decay to 0."""
    return min((step + 1) / settings.warmup, (settings.steps - step) / settings.steps)


def build_optimizers(
    model: PreTrainedModel, settings: PretrainSettings
) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.Muon(matrices, lr=settings.muon_lr, weight_decay=settings.muon_decay),
        torch.optim.AdamW(others, lr=settings.adam_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]


def pretrain(
    tokenizer: PreTrainedTokenizerFast,
    settings: PretrainSettings,
    seed: str,
    report: Callable[[int, float, LlamaForCausalLM], None] | None = None,
) -> LlamaForCausalLM:
    """Train a new base model and call `report(step, loss, model)` after every step.

    All random numbers follow from `seed`; the global random state does not change.
    """
    rng = random.Random(f"{seed}:corpus")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random.Random(f"{seed}:weights").getrandbits(63))
        model = build_model(tokenizer)

    def loss_at(step: int) -> Tensor:
        careless = step >= settings.clean_share * settings.steps
        batch = pack(turns(rng, careless), tokenizer, settings.rows, settings.row_length)
        return packed_loss(model, batch)

    return optimize(model, settings, loss_at, report)


def optimize(
    model: Trained,
    settings: PretrainSettings,
    loss_at: Callable[[int], Tensor],
    report: Callable[[int, float, Trained], None] | None = None,
) -> Trained:
    """Minimise `loss_at(step)` over all steps and return the model in eval mode."""
    model.train()
    optimizers = build_optimizers(model, settings)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    for step in range(settings.steps):
        loss = loss_at(step)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * rate_factor(step, settings)
            optimizer.step()
            optimizer.zero_grad()
        if report is not None:
            report(step, loss.item(), model)
    model.eval()
    return model
