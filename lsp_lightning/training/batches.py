"""A round's completions laid out for training: what they share once, within a token budget."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lsp_lightning.prefix.attention import TreeAttention
from lsp_lightning.prefix.tree import TokenTree, trees_within
from lsp_lightning.text.padding import by_token_budget, pad_right
from lsp_lightning.types import Rollouts, SelfPlayRound, TrainBatch


@dataclass(frozen=True)
class _Row:
    """One completion behind its prompt."""

    index: int
    """Which completion of the round it is."""
    prompt: list[int]
    completion: list[int]
    temperature: float

    @property
    def read(self) -> list[int]:
        """What the model reads to predict the completion: its last token predicts nothing."""
        return [*self.prompt, *self.completion[:-1]]


def pack(
    played: SelfPlayRound,
    pad_id: int,
    token_budget: int,
    shared: bool = False,
    chosen: Tensor | None = None,
) -> list[TrainBatch]:
    """Micro-batches that together hold every completion of the round once.

    Args:
        played: the round.
        pad_id: fills up shorter rows.
        token_budget: tokens of a micro-batch at most, padding included; a single longer row is a
            micro-batch of its own.
        shared: whether rows that begin alike share what they begin with: a prompt is computed once
            for its completions. Else each row is for itself.
        chosen: (R,) bool, which completions are wanted; None is all.
    """
    rows = [
        row for row in _rows(played.playout.rollouts) if chosen is None or bool(chosen[row.index])
    ]
    if shared:
        found = trees_within([row.read for row in rows], token_budget)
        return [_tree_batch([rows[i] for i in part], tree, pad_id) for part, tree in found]
    parts = by_token_budget([len(row.read) for row in rows], token_budget)
    return [_row_batch([rows[i] for i in part], pad_id) for part in parts]


def longest_row(played: SelfPlayRound) -> int:
    """Tokens of the round's longest row: what one pass must hold at least."""
    lengths = [r.prompt_mask.sum(1) + r.completion_mask.sum(1) for r in played.playout.rollouts]
    return int(torch.cat(lengths).max()) - 1


def sampled_logprobs(played: SelfPlayRound) -> list[Tensor]:
    """Log-probs as sampled of each completion's tokens, in the order of the round's rows."""
    return [
        row[mask]
        for r in played.playout.rollouts
        for row, mask in zip(r.logprobs, r.completion_mask, strict=True)
    ]


def by_row(batches: Sequence[TrainBatch], values: Sequence[Tensor]) -> dict[int, Tensor]:
    """Values (K, T) of micro-batches by the completion they are of, (t,) each, on the CPU."""
    found = {}
    for batch, of_batch in zip(batches, values, strict=True):
        lengths = batch.mask.sum(1).tolist()
        for row, length, value in zip(batch.rows.tolist(), lengths, of_batch.cpu(), strict=True):
            found[row] = value[:length]
    return found


def in_batch(values: Mapping[int, Tensor], batch: TrainBatch) -> Tensor:
    """Values of each completion as a micro-batch has them, (K, T), where it is."""
    chosen = [values[row] for row in batch.rows.tolist()]
    padded = torch.nn.utils.rnn.pad_sequence(chosen, batch_first=True)
    return padded.to(batch.mask.device)


def _rows(all_rollouts: Sequence[Rollouts]) -> Iterator[_Row]:
    index = 0
    for rollouts in all_rollouts:
        for prompt, prompt_mask, completion, mask in zip(
            rollouts.prompt_ids,
            rollouts.prompt_mask,
            rollouts.completion_ids,
            rollouts.completion_mask,
            strict=True,
        ):
            yield _Row(
                index,
                prompt[prompt_mask].tolist(),
                completion[mask].tolist(),
                rollouts.temperature,
            )
            index += 1


def _tree_batch(rows: Sequence[_Row], tree: TokenTree, pad_id: int) -> TrainBatch:
    sources = [places[len(row.prompt) - 1 :] for row, places in zip(rows, tree.rows, strict=True)]
    ids, positions = tree.tokens[None], tree.positions[None]
    return _train_batch(rows, ids, sources, pad_id, positions, TreeAttention.of(tree))


def _row_batch(rows: Sequence[_Row], pad_id: int) -> TrainBatch:
    input_ids, _ = pad_right([row.read for row in rows], pad_id)
    width = input_ids.shape[1]
    sources = [
        torch.arange(len(row.prompt) - 1, len(row.read)) + b * width for b, row in enumerate(rows)
    ]
    return _train_batch(rows, input_ids, sources, pad_id, None, None)


def _train_batch(
    rows: Sequence[_Row],
    input_ids: Tensor,
    sources: Sequence[Tensor],
    pad_id: int,
    position_ids: Tensor | None,
    attention: TreeAttention | None,
) -> TrainBatch:
    targets, mask = pad_right([row.completion for row in rows], pad_id)
    return TrainBatch(
        input_ids=input_ids,
        position_ids=position_ids,
        attention=attention,
        targets=targets,
        mask=mask,
        # the state at the place before a token predicts it
        sources=torch.nn.utils.rnn.pad_sequence(list(sources), batch_first=True),
        temperature=torch.tensor([row.temperature for row in rows]),
        rows=torch.tensor([row.index for row in rows]),
    )
