"""Random prompts, and what an engine sampled from them as a round to train on."""

import torch

from lsp_lightning.text.padding import pad_left
from lsp_lightning.types import Completions, Playout, Rollouts, SelfPlayRound

PAD = 0


def prompts_of(lengths, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(1, size, (n,), generator=generator).tolist() for n in lengths]


def forward_shapes(model, call):
    """What the model was asked to compute during ``call``: (rows, new tokens) each."""
    seen = []

    def look(module, args, kwargs):
        seen.append(tuple(kwargs["input_ids"].shape))

    handle = model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        call()
    finally:
        handle.remove()
    return seen


def as_round(prompts, draws, completions: Completions, temperature):
    ids, mask = pad_left(prompts, PAD)
    n = len(prompts)
    answers = Rollouts(
        prompt_ids=ids.repeat_interleave(draws, 0),
        prompt_mask=mask.repeat_interleave(draws, 0),
        completion_ids=completions.ids,
        completion_mask=completions.mask,
        logprobs=completions.logprobs,
        truncated=completions.truncated,
        texts=("",) * (n * draws),
        temperature=temperature,
    )
    return SelfPlayRound(
        index=0,
        playout=Playout(("q",) * n, answers, draws),
        rewards_NG=torch.zeros(n, draws),
        judged_NG=torch.ones((n, draws), dtype=torch.bool),
    )
