"""The completions of a round as micro-batches, with shared prefixes stored once."""

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
    """One completion with its prompt."""

    index: int
    """Its row among the R rows of the round."""
    prompt: list[int]
    completion: list[int]
    temperature: float

    @property
    def read(self) -> list[int]:
        """The model's input; after the completion's last token nothing is predicted."""
        return [*self.prompt, *self.completion[:-1]]


def pack(
    played: SelfPlayRound,
    pad_id: int,
    token_budget: int,
    shared: bool = False,
    chosen: Tensor | None = None,
) -> list[TrainBatch]:
    """Micro-batches that together contain every chosen completion once.

    Args:
        played: the round.
        pad_id: the token that pads shorter rows.
        token_budget: most tokens in a micro-batch, padding included; a longer row gets a separate
            micro-batch.
        shared: whether to store shared prefixes once, so that a prompt is computed once for all its
            completions.
        chosen: (R,) bool, the completions to include; None is all.
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
    """Tokens of the longest row of the round, which one pass must be able to hold."""
    lengths = [r.prompt_mask.sum(1) + r.completion_mask.sum(1) for r in played.playout.rollouts]
    return int(torch.cat(lengths).max()) - 1


def sampled_logprobs(played: SelfPlayRound) -> list[Tensor]:
    """The sampler's log-probs of each completion's tokens: R tensors (t,), in row order."""
    return [
        row[mask]
        for r in played.playout.rollouts
        for row, mask in zip(r.logprobs, r.completion_mask, strict=True)
    ]


def by_row(batches: Sequence[TrainBatch], values: Sequence[Tensor]) -> dict[int, Tensor]:
    """Split values (K, T) of micro-batches by completion. -> (t,) each by row, on the CPU."""
    found = {}
    for batch, of_batch in zip(batches, values, strict=True):
        lengths = batch.mask.sum(1).tolist()
        for row, length, value in zip(batch.rows.tolist(), lengths, of_batch.cpu(), strict=True):
            found[row] = value[:length]
    return found


def in_batch(values: Mapping[int, Tensor], batch: TrainBatch) -> Tensor:
    """Values by row, arranged as in a micro-batch, on its device. -> (K, T)."""
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
        # a token is predicted by the hidden state at the position before it
        sources=torch.nn.utils.rnn.pad_sequence(list(sources), batch_first=True),
        temperature=torch.tensor([row.temperature for row in rows]),
        rows=torch.tensor([row.index for row in rows]),
    )
