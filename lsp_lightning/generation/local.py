"""The engine in the training process, over the Hugging Face module itself."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.fitting import TokenBudget
from lsp_lightning.inference import inference_state, pad_left
from lsp_lightning.types import Completions, Sampling


class LocalEngine:
    """Samples with a KV cache; each prompt is prefilled once for all its draws.

    Reads the weights as they are now and changes nothing: mode, gradients and precision are set for
    the time of the call and restored.

    Args:
        model: a causal LM whose forward takes ``input_ids, attention_mask, position_ids,
            past_key_values, logits_to_keep`` (all current Hugging Face ones do).
        stop_ids: tokens that end a completion.
        pad_id: what fills up shorter rows.
        max_rows: prompts are taken together until their draws are so many; one prompt's draws are
            not parted for it.
        budget: tokens decoded at once, at most: rows times the longest prompt and completion of the
            call. Where not even one prompt's draws fit, they are parted and the prompt is prefilled
            again for each part. None sets no limit.
    """

    def __init__(
        self,
        model: Any,
        stop_ids: Sequence[int],
        pad_id: int,
        max_rows: int = 512,
        budget: TokenBudget | None = None,
    ) -> None:
        self._model = model
        self._stop_ids = list(stop_ids)
        self._pad_id = pad_id
        self._max_rows = max_rows
        self._budget = budget

    def generate(
        self, prompts: Sequence[Sequence[int]], draws: int, sampling: Sampling, seed: int
    ) -> Completions:
        """See :class:`lsp_lightning.generation.base.Engine`.

        Where memory runs out, the budget is halved and the whole call drawn again from its seed.

        Raises:
            OutOfMemory: not even a single row fits.
        """
        if self._budget is None:
            return self._generate(prompts, draws, sampling, seed, max(draws, self._max_rows))
        longest = max(map(len, prompts)) + sampling.max_new_tokens

        def attempt(tokens: int) -> Completions:
            return self._generate(prompts, draws, sampling, seed, max(1, tokens // longest))

        return self._budget.run(attempt, longest)

    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        draws: int,
        sampling: Sampling,
        seed: int,
        limit: int,
    ) -> Completions:
        """The call with at most ``limit`` rows at once."""
        device = next(self._model.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        part = min(draws, limit)
        at_once = max(1, min(self._max_rows, limit) // draws)
        with inference_state(self._model, device.type):
            parts = [
                self._decode(prompts[i : i + at_once], min(part, draws - done), sampling, generator)
                for i in range(0, len(prompts), at_once)
                for done in range(0, draws, part)
            ]
        return _concatenate(parts, self._pad_id)

    def _decode(
        self,
        prompts: Sequence[Sequence[int]],
        draws: int,
        sampling: Sampling,
        generator: torch.Generator,
    ) -> Completions:
        device, limit = generator.device, sampling.max_new_tokens
        prompt_ids, prompt_mask = pad_left(prompts, self._pad_id)
        prompt_ids, prompt_mask = prompt_ids.to(device), prompt_mask.to(device)
        logits, cache = self._prefill(prompt_ids, prompt_mask)
        origins = torch.arange(len(prompts), device=device).repeat_interleave(draws)
        logits, attention = logits[origins], prompt_mask[origins]
        cache.reorder_cache(origins)  # the one way to pick rows that all kinds of layers know
        stop_ids = torch.tensor(self._stop_ids, device=device)

        n = logits.shape[0]
        ids = torch.full((n, limit), self._pad_id, device=device)
        mask = torch.zeros((n, limit), dtype=torch.bool, device=device)
        logprobs = torch.zeros((n, limit), device=device)
        # rows of the batch being decoded: which completion each one is, and whether it goes on
        rows = torch.arange(n, device=device)
        going = torch.ones(n, dtype=torch.bool, device=device)
        truncated = going.clone()
        for step in range(limit):
            tokens, token_logprobs = sample(logits, sampling, generator)
            ids[rows, step] = torch.where(going, tokens, self._pad_id)
            logprobs[rows, step] = torch.where(going, token_logprobs, 0.0)
            mask[rows, step] = going
            going = going & ~torch.isin(tokens, stop_ids)
            truncated[rows] = going
            if step + 1 == limit or not bool(going.any()):
                break
            if going.float().mean() <= 0.5:  # the finished leave the batch
                keep = going.nonzero().squeeze(1)
                rows, going, tokens = rows[keep], going[keep], tokens[keep]
                attention = attention[keep]
                cache.reorder_cache(keep)
            attention = torch.cat([attention, attention.new_ones(len(tokens), 1)], dim=1)
            logits = self._forward(tokens.unsqueeze(1), attention, cache)
        length = step + 1
        return Completions(ids[:, :length], mask[:, :length], logprobs[:, :length], truncated)

    def _prefill(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Any]:
        from transformers import DynamicCache

        cache = DynamicCache(config=self._model.config)
        return self._forward(ids, mask, cache), cache

    def _forward(self, ids: Tensor, attention: Tensor, cache: Any) -> Tensor:
        """Logits (n, V) after the last of ``ids`` (n, new), whose keys join the cache."""
        positions = (attention.cumsum(1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        # the last place by its index, which copies it: of a slice, which is not contiguous, CPUs
        # make a copy of the head's weights for each row in bfloat16
        last = torch.tensor([-1], device=ids.device) if ids.shape[1] > 1 else 1
        out = self._model(
            input_ids=ids,
            attention_mask=attention,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=last,
        )
        logits: Tensor = out.logits[:, -1]
        return logits


def sample(
    logits_nV: Tensor, sampling: Sampling, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """One token a row, and its log-prob at the sampling temperature before any truncation.

    At temperature 0 the likeliest token, with its log-prob at temperature 1. -> (n,), (n,) fp32.
    """
    logits_nV = logits_nV.float()
    if sampling.temperature == 0:
        logprobs_nV = logits_nV.log_softmax(dim=-1)
        tokens = logprobs_nV.argmax(dim=-1)
    else:
        logprobs_nV = (logits_nV / sampling.temperature).log_softmax(dim=-1)
        kept_nV = truncate(logprobs_nV, sampling.top_p, sampling.top_k)
        tokens = torch.multinomial(kept_nV.exp(), 1, generator=generator).squeeze(1)
    return tokens, logprobs_nV.gather(1, tokens.unsqueeze(1)).squeeze(1)


def truncate(logprobs_nV: Tensor, top_p: float, top_k: int) -> Tensor:
    """Log-probs with the tokens outside of top-k and of the nucleus at minus infinity. (n, V)."""
    if top_k > 0 and top_k < logprobs_nV.shape[1]:
        smallest = logprobs_nV.topk(top_k, dim=-1).values[:, -1:]
        logprobs_nV = logprobs_nV.masked_fill(logprobs_nV < smallest, float("-inf"))
    if top_p < 1:
        ordered, order = logprobs_nV.softmax(dim=-1).sort(dim=-1, descending=True)
        outside = ordered.cumsum(dim=-1) - ordered >= top_p  # the token that crosses top_p stays
        outside = torch.zeros_like(outside).scatter(1, order, outside)
        logprobs_nV = logprobs_nV.masked_fill(outside, float("-inf"))
    return logprobs_nV


def _concatenate(parts: Sequence[Completions], pad_id: int) -> Completions:
    """Completions of several batches as one, padded on the right to the longest."""
    longest = max(part.ids.shape[1] for part in parts)

    def padded(name: str, value: float) -> Tensor:
        columns = [getattr(part, name) for part in parts]
        return torch.cat(
            [torch.nn.functional.pad(c, (0, longest - c.shape[1]), value=value) for c in columns]
        )

    return Completions(
        ids=padded("ids", pad_id),
        mask=padded("mask", False),
        logprobs=padded("logprobs", 0.0),
        truncated=torch.cat([part.truncated for part in parts]),
    )
