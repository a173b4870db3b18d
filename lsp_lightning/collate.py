"""A round's completions laid out for training: rows of like length, within a token budget."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lsp_lightning.inference import by_token_budget
from lsp_lightning.types import Rollouts, SelfPlayRound, TrainBatch


@dataclass(frozen=True)
class _Row:
    """One completion behind its prompt."""

    prompt: Tensor
    completion: Tensor
    temperature: float

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.completion)


def pack(played: SelfPlayRound, pad_id: int, token_budget: int) -> list[TrainBatch]:
    """Micro-batches that together hold every completion of the round once.

    Args:
        played: the round.
        pad_id: fills up shorter rows.
        token_budget: tokens of a micro-batch at most, padding included; a single longer row is a
            micro-batch of its own.
    """
    rows = [row for rollouts in _rollouts(played) for row in _rows(rollouts)]
    batches = by_token_budget([row.length for row in rows], token_budget)
    return [_train_batch(rows, indices, pad_id) for indices in batches]


def longest_row(played: SelfPlayRound) -> int:
    """Tokens of the round's longest row: what one pass must hold at least."""
    lengths = [r.prompt_mask.sum(1) + r.completion_mask.sum(1) for r in _rollouts(played)]
    return int(torch.cat(lengths).max())


def sampled_logprobs(played: SelfPlayRound) -> list[Tensor]:
    """Log-probs as sampled of each completion's tokens, in the order of the round's rows."""
    return [
        row[mask]
        for r in _rollouts(played)
        for row, mask in zip(r.logprobs, r.completion_mask, strict=True)
    ]


def _rollouts(played: SelfPlayRound) -> list[Rollouts]:
    """The queries, if they were played, then the answers."""
    playout = played.playout
    return [playout.answers] if playout.queries is None else [playout.queries, playout.answers]


def _rows(rollouts: Rollouts) -> list[_Row]:
    return [
        _Row(prompt[prompt_mask], completion[mask], rollouts.temperature)
        for prompt, prompt_mask, completion, mask in zip(
            rollouts.prompt_ids,
            rollouts.prompt_mask,
            rollouts.completion_ids,
            rollouts.completion_mask,
            strict=True,
        )
    ]


def _train_batch(rows: list[_Row], indices: list[int], pad_id: int) -> TrainBatch:
    chosen = [rows[i] for i in indices]
    count = len(chosen)
    width = max(row.length for row in chosen)
    tokens = max(len(row.completion) for row in chosen)
    input_ids = torch.full((count, width), pad_id)
    segments = torch.full((count, width), -1)
    targets = torch.full((count, tokens), pad_id)
    mask = torch.zeros((count, tokens), dtype=torch.bool)
    sources = torch.zeros((count, tokens), dtype=torch.long)
    for b, row in enumerate(chosen):
        p, t = len(row.prompt), len(row.completion)
        input_ids[b, : p + t] = torch.cat([row.prompt, row.completion])
        segments[b, :p], segments[b, p : p + t] = 0, 1
        targets[b, :t] = row.completion
        mask[b, :t] = True
        # the state at the place before a token predicts it
        sources[b, :t] = torch.arange(p - 1, p + t - 1) + b * width
    return TrainBatch(
        input_ids=input_ids,
        # padding counts on: a position that starts again would be taken for another packed row
        position_ids=torch.arange(width).expand(count, width).clone(),
        segments=segments,
        targets=targets,
        mask=mask,
        sources=sources,
        temperature=torch.tensor([row.temperature for row in chosen]),
        rows=torch.tensor(indices),
    )
