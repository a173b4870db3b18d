"""The engine in the training process, over the Hugging Face model itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.generation.base import Finished, Seed
from lsp_lightning.generation.sampling import sample
from lsp_lightning.generation.splitting import split_rows
from lsp_lightning.generation.stopping import StopTexts
from lsp_lightning.models.lora_speed import merged_lora
from lsp_lightning.models.modes import inference_state
from lsp_lightning.prefix.cuda_graph import GraphRecorder
from lsp_lightning.prefix.decoders import Decoder, RowDecoder, TreeDecoder
from lsp_lightning.prefix.sharing import shares_prefixes
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.types import Completions, Sampling

#: Finished completions are removed from the batch when at most this share of it is unfinished:
#: removing copies the keys and values of the rest. On a GPU, rows are cheap, and a smaller batch
#: needs a new CUDA graph.
COMPACT_AT, _COMPACT_AT_ON_GPU = 0.875, 0.5
#: Most rows that are decoded together, whatever the budget.
MAX_ROWS = 512


class LocalEngine:
    """Samples with a KV cache; each prompt is computed once for all of its completions.

    It reads the weights as they are at the time of a call. Mode, gradients and precision are set
    during the call and restored after it.

    Args:
        model: a causal LM whose forward takes ``input_ids, attention_mask, position_ids,
            past_key_values, logits_to_keep`` (all current Hugging Face ones do).
        stop_ids: tokens that end a completion.
        pad_id: fills up shorter rows.
        max_rows: most rows decoded together, except that the completions of one prompt are not
            split for this.
        budget: most tokens decoded together, counting the longest prompt and the longest possible
            completion for each row; if the model shares prefixes, a prompt counts once. If the
            completions of one prompt do not fit, they are split and the prompt is computed for each
            part. None is no limit.
        never: ids that are never sampled, see :attr:`lsp_lightning.Policy.undecodable_ids`.
        stops: finds the stop text of completions; without it they are sampled on.
    """

    def __init__(
        self,
        model: Any,
        stop_ids: Sequence[int],
        pad_id: int,
        max_rows: int = MAX_ROWS,
        budget: TokenBudget | None = None,
        never: Sequence[int] = (),
        stops: StopTexts | None = None,
    ) -> None:
        self._model = model
        self._never = torch.tensor(never, dtype=torch.long) if never else None
        self._stop_ids = list(stop_ids)
        self._pad_id = pad_id
        self._max_rows = max_rows
        self._budget = budget
        self._stops = stops
        self._record = GraphRecorder()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        draws: int,
        sampling: Sampling,
        seed: Seed,
        finished: Finished | None = None,
    ) -> Completions:
        """See :class:`lsp_lightning.generation.base.Engine`.

        If memory runs out, the budget is halved and the whole call repeated with the same seed,
        which gives the same tokens up to rounding.

        Raises:
            OutOfMemory: a single row does not fit.
        """
        call = _Call(prompts, draws, sampling, seed, finished)
        if self._budget is None:
            return self._generate(call, None)
        return self._budget.run(lambda tokens: self._generate(call, tokens), call.longest_row)

    def _generate(self, call: "_Call", most_tokens: int | None) -> Completions:
        """The whole call, with at most ``most_tokens`` tokens decoded together."""
        device = next(self._model.parameters()).device
        parts = split_rows(
            prompts=len(call.prompts),
            draws=call.draws,
            prompt_tokens=call.longest_prompt,
            new_tokens=call.sampling.max_new_tokens,
            max_rows=self._max_rows,
            max_tokens=most_tokens,
            shared=shares_prefixes(self._model),
        )
        with inference_state(self._model, device.type), merged_lora(self._model):
            completions = [self._decode(call, part, device) for part in parts]
        return _concatenate(completions, self._pad_id)

    def _decode(self, call: "_Call", part: range, device: torch.device) -> Completions:
        """Sample some rows of the call: all completions of some prompts, or some of one prompt."""
        limit = call.sampling.max_new_tokens
        decoder = self._decoder(call, part, device)
        uniforms = call.uniforms(part).to(device)
        never = None if self._never is None else self._never.to(device)
        stop_ids = torch.tensor(self._stop_ids, device=device)
        compact_at = _COMPACT_AT_ON_GPU if device.type == "cuda" else COMPACT_AT
        sampled = _Sampled(len(part), limit, self._pad_id, device)
        # the batch being decoded: the row of each completion in the part, and whether it continues
        rows = torch.arange(len(part), device=device)
        active = torch.ones(len(part), dtype=torch.bool, device=device)
        logits = decoder.begin()
        for step in range(limit):
            tokens, logprobs = sample(logits, call.sampling, uniforms[:, step], never)
            sampled.write(step, rows, tokens, logprobs)
            ends = active & torch.isin(tokens, stop_ids)
            if call.sampling.stop and self._stops:
                prompts = [call.prompt(part.start + row) for row in rows.tolist()]
                ends |= active & self._stops.reached(
                    rows, sampled.ids[: step + 1], prompts, call.sampling.stop
                )
            if ends.any():  # the only synchronisation with the device per token
                sampled.end(step, rows[ends])
                call.report(part.start, rows[ends], sampled.ids[: step + 1])
                active &= ~ends
                remaining = int(active.sum())
                if remaining == 0:
                    break
                if remaining <= compact_at * len(active) and step + 1 < limit:
                    keep = active.nonzero().squeeze(1)
                    decoder.keep(keep)
                    rows, active, tokens = rows[keep], active[keep], tokens[keep]
                    uniforms = uniforms[keep]
            if step + 1 < limit:
                logits = decoder.step(tokens)
        call.report(part.start, sampled.truncated.nonzero().squeeze(1), sampled.ids)
        return sampled.completions()

    def _decoder(self, call: "_Call", part: range, device: torch.device) -> Decoder:
        prompts = call.prompts[part.start // call.draws : -(-part.stop // call.draws)]
        draws = len(part) // len(prompts)
        if shares_prefixes(self._model):
            limit = call.sampling.max_new_tokens
            record = self._record if device.type == "cuda" else None
            return TreeDecoder(self._model, prompts, draws, limit, device, record)
        return RowDecoder(self._model, prompts, draws, self._pad_id, device)


@dataclass(frozen=True)
class _Call:
    """The arguments of one call of the engine."""

    prompts: Sequence[Sequence[int]]
    draws: int
    sampling: Sampling
    seed: Seed
    finished: Finished | None

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt."""
        return max(map(len, self.prompts))

    @property
    def longest_row(self) -> int:
        """Most tokens of a prompt with its completion."""
        return self.longest_prompt + self.sampling.max_new_tokens

    def prompt(self, row: int) -> Sequence[int]:
        """The prompt of a completion."""
        return self.prompts[row // self.draws]

    def uniforms(self, part: range) -> Tensor:
        """A random number for each token of some rows, (n, tokens).

        Made on the CPU for all rows of the call, so that a row's numbers depend neither on the
        device nor on how the rows are split.
        """
        generator, tokens = torch.Generator(), self.sampling.max_new_tokens
        if isinstance(self.seed, int):
            generator.manual_seed(self.seed)
            numbers = torch.rand(len(self.prompts) * self.draws, tokens, generator=generator)
            return numbers[part.start : part.stop]
        first, last = part.start // self.draws, -(-part.stop // self.draws)
        found = [
            torch.rand(self.draws, tokens, generator=generator.manual_seed(seed))
            for seed in self.seed[first:last]
        ]
        return torch.cat(found)[part.start - first * self.draws :][: len(part)]

    def report(self, start: int, rows: Tensor, ids: Tensor) -> None:
        """Report rows that have ended, counted from ``start``; ids (t, n) are the part's tokens."""
        if self.finished is not None:
            for row, tokens in zip(rows.tolist(), ids[:, rows].T.tolist(), strict=True):
                self.finished(start + row, tokens)


class _Sampled:
    """The tokens of n completions, written step by step.

    Args:
        n: number of completions.
        limit: most tokens of a completion.
        pad_id: fills up shorter rows.
        device: where the tokens are.
    """

    def __init__(self, n: int, limit: int, pad_id: int, device: torch.device) -> None:
        # the step is the first axis, so that what a step writes is contiguous
        self.ids = torch.full((limit, n), pad_id, device=device)
        self.truncated = torch.ones(n, dtype=torch.bool, device=device)
        self._logprobs = torch.zeros((limit, n), device=device)
        self._lengths = torch.full((n,), limit, device=device)
        self._pad_id = pad_id

    def write(self, step: int, rows: Tensor, tokens: Tensor, logprobs: Tensor) -> None:
        """Write one token of each of these rows."""
        self.ids[step].index_copy_(0, rows, tokens)
        self._logprobs[step].index_copy_(0, rows, logprobs)

    def end(self, step: int, rows: Tensor) -> None:
        """Mark the rows that ended in this step."""
        self._lengths[rows], self.truncated[rows] = step + 1, False

    def completions(self) -> Completions:
        """The rows, cut to the longest; tokens after a row's end are masked out."""
        width = int(self._lengths.max())
        mask = torch.arange(width, device=self.ids.device) < self._lengths.unsqueeze(1)
        return Completions(
            ids=self.ids[:width].T.masked_fill(~mask, self._pad_id),
            mask=mask,
            logprobs=self._logprobs[:width].T.masked_fill(~mask, 0.0),
            truncated=self.truncated,
        )


def _concatenate(parts: Sequence[Completions], pad_id: int) -> Completions:
    """The completions of several parts, padded on the right to the longest."""
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
