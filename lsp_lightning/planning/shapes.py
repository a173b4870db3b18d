"""The batches of a plan: how many rows, how long, and how many share a prompt."""

from dataclasses import dataclass

import torch

from lsp_lightning.generation.local import MAX_ROWS
from lsp_lightning.generation.splitting import split_rows
from lsp_lightning.planning.lengths import PlannedRollout
from lsp_lightning.training.batches import pack
from lsp_lightning.types import Playout, Rollouts, SelfPlayRound, TrainBatch


@dataclass(frozen=True)
class Shape:
    """Rows of one forward pass."""

    rows: int
    """Number of rows."""
    prompt: int
    """Tokens of each prompt."""
    completion: int
    """Tokens of each completion."""
    draws: int = 1
    """Rows that continue the same prompt; the last prompt may have fewer."""

    @property
    def prompts(self) -> int:
        """Number of prompts."""
        return -(-self.rows // self.draws)

    @property
    def length(self) -> int:
        """Tokens of a row."""
        return self.prompt + self.completion

    def tokens(self, shared: bool) -> int:
        """Tokens of all rows; shared prompts count once."""
        if shared:
            return self.prompts * self.prompt + self.rows * self.completion
        return self.rows * self.length

    def prompt_ids(self) -> list[list[int]]:
        """Prompts that differ from their first token on; every other one is a token shorter."""
        return [[q] * max(1, self.prompt - q % 2) for q in range(self.prompts)]


def rollout_shape(rollout: PlannedRollout, budget: int, shared: bool) -> tuple[Shape, int]:
    """The largest batch that the engine decodes together, and the number of batches.

    Args:
        rollout: what is sampled.
        budget: most tokens of a batch.
        shared: whether completions share their prompt.
    """
    new = rollout.sampling.max_new_tokens
    parts = split_rows(
        prompts=rollout.prompts,
        draws=rollout.draws,
        prompt_tokens=rollout.prompt,
        new_tokens=new,
        max_rows=MAX_ROWS,
        max_tokens=budget,
        shared=shared,
    )
    rows = len(parts[0])
    return Shape(rows, rollout.prompt, new, min(rollout.draws, rows)), len(parts)


def batch_shape(rollout: PlannedRollout, budget: int, shared: bool) -> Shape:
    """The micro-batch of a rollout's completions that takes the most memory.

    Without sharing it has full-length completions. With sharing it has as many short completions as
    fit, because attention copies the keys of the prompt for each of them. No two completions are
    assumed to start with the same token.

    Args:
        rollout: what was sampled.
        budget: most tokens of a micro-batch.
        shared: whether completions share their prompt.
    """
    rows, new = rollout.prompts * rollout.draws, rollout.sampling.max_new_tokens
    if not shared:
        return Shape(min(rows, max(1, budget // rollout.length)), rollout.prompt, new)
    short = max(1, min(new, (budget - rollout.prompts * rollout.prompt) // rows))
    groups, rest = divmod(budget, rollout.prompt + rollout.draws * short)
    fitting = groups * rollout.draws + max(0, rest - rollout.prompt) // short
    if fitting <= 1:  # a row that exceeds the budget is a separate batch
        return Shape(1, rollout.prompt, new)
    return Shape(min(rows, fitting), rollout.prompt, short, rollout.draws)


def train_batch(shape: Shape, shared: bool) -> TrainBatch:
    """A training batch of this shape; completions differ from their first token on.

    Args:
        shape: the rows.
        shared: whether rows share their prompts.
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
