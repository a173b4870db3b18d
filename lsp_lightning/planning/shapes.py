"""What goes through a model together: how many rows, how long, and how many share a prompt."""

from dataclasses import dataclass

import torch

from lsp_lightning.generation.local import MAX_ROWS, parts_within
from lsp_lightning.planning.lengths import Rollout
from lsp_lightning.training.batches import pack
from lsp_lightning.types import Playout, Rollouts, SelfPlayRound, TrainBatch


@dataclass(frozen=True)
class Shape:
    """Rows that go through a model together."""

    rows: int
    """How many."""
    prompt: int
    """Tokens of each prompt."""
    completion: int
    """Tokens of each completion."""
    draws: int = 1
    """How many of them continue the same prompt; the last prompt may have fewer."""

    @property
    def prompts(self) -> int:
        """How many prompts."""
        return -(-self.rows // self.draws)

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.prompt + self.completion

    def tokens(self, shared: bool) -> int:
        """Tokens of all rows, each prompt's once where it is shared."""
        if shared:
            return self.prompts * self.prompt + self.rows * self.completion
        return self.rows * self.length

    def prompt_ids(self) -> list[list[int]]:
        """The prompts: different from their first token on, every other one a token shorter."""
        return [[q] * max(1, self.prompt - q % 2) for q in range(self.prompts)]


def rollout_shape(rollout: Rollout, budget: int, shared: bool) -> tuple[Shape, int]:
    """The rows that the engine decodes together at most, and how many such batches there are.

    Args:
        rollout: what is drawn.
        budget: tokens at once.
        shared: whether completions share their prompt's.
    """
    new = rollout.sampling.max_new_tokens
    parts = parts_within(
        rollout.prompts, rollout.draws, rollout.prompt, new, MAX_ROWS, budget, shared
    )
    rows = len(parts[0])
    return Shape(rows, rollout.prompt, new, min(rollout.draws, rows)), len(parts)


def batch_shape(rollout: Rollout, budget: int, shared: bool) -> Shape:
    """The micro-batch of a rollout's completions that takes most.

    Completions are of full length, each for itself. Where prompts are shared, no two completions
    are taken to begin alike, and all are so short that as many as possible of them are together:
    attention copies a prompt's keys for each of them.

    Args:
        rollout: what was drawn.
        budget: tokens of a micro-batch.
        shared: whether completions share their prompt's.
    """
    rows, new = rollout.prompts * rollout.draws, rollout.sampling.max_new_tokens
    if not shared:
        return Shape(min(rows, max(1, budget // rollout.length)), rollout.prompt, new)
    own = max(1, min(new, (budget - rollout.prompts * rollout.prompt) // rows))
    groups, rest = divmod(budget, rollout.prompt + rollout.draws * own)
    fitting = groups * rollout.draws + max(0, rest - rollout.prompt) // own
    if fitting <= 1:  # a row too long for the budget goes by itself
        return Shape(1, rollout.prompt, new)
    return Shape(min(rows, fitting), rollout.prompt, own, rollout.draws)


def train_batch(shape: Shape, shared: bool) -> TrainBatch:
    """The rows of a shape as they are laid out for training; completions differ from the first.

    Args:
        shape: of the rows.
        shared: whether they share their prompts.
    """
    prompts, new = shape.prompt_ids(), shape.completion
    ids = torch.zeros(shape.rows, shape.prompt, dtype=torch.long)
    mask = torch.zeros(shape.rows, shape.prompt, dtype=torch.bool)
    for row in range(shape.rows):
        prompt = prompts[row // shape.draws]
        ids[row, -len(prompt) :] = torch.tensor(prompt)
        mask[row, -len(prompt) :] = True
    answers = Rollouts(
        prompt_ids=ids,
        prompt_mask=mask,
        completion_ids=torch.arange(shape.rows).unsqueeze(1).expand(-1, new),
        completion_mask=torch.ones(shape.rows, new, dtype=torch.bool),
        logprobs=torch.zeros(shape.rows, new),
        truncated=torch.zeros(shape.rows, dtype=torch.bool),
        texts=("",) * shape.rows,
        temperature=1.0,
    )
    ones = torch.ones(shape.rows, 1)
    played = SelfPlayRound(
        index=0,
        playout=Playout(("",) * shape.rows, answers, 1),
        rewards_NG=ones,
        judged_NG=ones.bool(),
    )
    (batch,) = pack(played, 0, shape.rows * shape.length, shared)
    return batch
