"""The engine in the training process, over the Hugging Face module itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lsp_lightning.generation.base import Finished
from lsp_lightning.generation.sampling import sample
from lsp_lightning.models.lora_speed import merged_lora
from lsp_lightning.models.modes import inference_state
from lsp_lightning.prefix.cuda_graph import GraphRecorder
from lsp_lightning.prefix.decoders import Decoder, RowDecoder, TreeDecoder
from lsp_lightning.prefix.hooks import takes_trees
from lsp_lightning.runtime.memory import TokenBudget
from lsp_lightning.types import Completions, Sampling

#: Completions that have ended leave the batch when it is no fuller than this: the others' keys and
#: values are copied then. On a GPU rows cost little, and a smaller batch is recorded anew.
FULL, _FULL_ON_GPU = 0.875, 0.5
#: Rows that are decoded together, whatever the budget.
MAX_ROWS = 512


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
        budget: tokens decoded at once, at most, with the longest prompt and completion of the call
            for each; completions share their prompt's where the model allows it. Where not even one
            prompt's draws fit, they are parted and the prompt is computed again for each part. None
            sets no limit.
    """

    def __init__(
        self,
        model: Any,
        stop_ids: Sequence[int],
        pad_id: int,
        max_rows: int = MAX_ROWS,
        budget: TokenBudget | None = None,
    ) -> None:
        self._model = model
        self._stop_ids = list(stop_ids)
        self._pad_id = pad_id
        self._max_rows = max_rows
        self._budget = budget
        self._record = GraphRecorder()

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        draws: int,
        sampling: Sampling,
        seed: int,
        finished: Finished | None = None,
    ) -> Completions:
        """See :class:`lsp_lightning.generation.base.Engine`.

        Where memory runs out, the budget is halved and the whole call drawn again from its seed:
        the same tokens, but for rounding.

        Raises:
            OutOfMemory: not even a single row fits.
        """
        call = _Call(prompts, draws, sampling, seed, finished)
        if self._budget is None:
            return self._generate(call, None)
        return self._budget.run(lambda tokens: self._generate(call, tokens), call.longest)

    def _generate(self, call: "_Call", tokens: int | None) -> Completions:
        """The call with at most so many tokens at once."""
        device = next(self._model.parameters()).device
        with inference_state(self._model, device.type), merged_lora(self._model):
            parts = [
                self._decode(call, rows, device)
                for rows in call.parts(self._max_rows, tokens, takes_trees(self._model))
            ]
        return _concatenate(parts, self._pad_id)

    def _decode(self, call: "_Call", part: range, device: torch.device) -> Completions:
        """Some rows of the call: all draws of some prompts, or some draws of one."""
        limit, n = call.sampling.max_new_tokens, len(part)
        decoder = self._decoder(call, part, device)
        uniforms = call.uniforms(part).to(device)
        stop_ids = torch.tensor(self._stop_ids, device=device)
        full = _FULL_ON_GPU if device.type == "cuda" else FULL

        # by step first: what a step writes lies together
        ids = torch.full((limit, n), self._pad_id, device=device)
        logprobs = torch.zeros((limit, n), device=device)
        lengths = torch.full((n,), limit, device=device)
        truncated = torch.ones(n, dtype=torch.bool, device=device)
        # rows of the batch being decoded: which completion each one is, and whether it goes on
        rows = torch.arange(n, device=device)
        going = truncated.clone()
        logits = decoder.begin()
        for step in range(limit):
            tokens, token_logprobs = sample(logits, call.sampling, uniforms[:, step])
            ids[step].index_copy_(0, rows, tokens)
            logprobs[step].index_copy_(0, rows, token_logprobs)
            ends = going & torch.isin(tokens, stop_ids)
            if ends.any():  # one look a token at what the device computes
                ended = rows[ends]
                lengths[ended], truncated[ended] = step + 1, False
                call.tell(part.start, ended, ids[: step + 1])
                going &= ~ends
                count = int(going.sum())
                if count == 0:
                    break
                if count <= full * len(going) and step + 1 < limit:
                    keep = going.nonzero().squeeze(1)
                    decoder.keep(keep)
                    rows, going, tokens = rows[keep], going[keep], tokens[keep]
                    uniforms = uniforms[keep]
            if step + 1 < limit:
                logits = decoder.step(tokens)
        call.tell(part.start, truncated.nonzero().squeeze(1), ids)
        width = int(lengths.max())
        mask = torch.arange(width, device=device) < lengths.unsqueeze(1)
        return Completions(
            ids=ids[:width].T.masked_fill(~mask, self._pad_id),
            mask=mask,
            logprobs=logprobs[:width].T.masked_fill(~mask, 0.0),
            truncated=truncated,
        )

    def _decoder(self, call: "_Call", part: range, device: torch.device) -> Decoder:
        prompts = call.prompts[part.start // call.draws : -(-part.stop // call.draws)]
        draws = len(part) // len(prompts)
        if takes_trees(self._model):
            limit = call.sampling.max_new_tokens
            record = self._record if device.type == "cuda" else None
            return TreeDecoder(self._model, prompts, draws, limit, device, record)
        return RowDecoder(self._model, prompts, draws, self._pad_id, device)


@dataclass(frozen=True)
class _Call:
    """What an engine was asked for."""

    prompts: Sequence[Sequence[int]]
    draws: int
    sampling: Sampling
    seed: int
    finished: Finished | None

    @property
    def longest(self) -> int:
        """Tokens of a row at most."""
        return max(map(len, self.prompts)) + self.sampling.max_new_tokens

    def parts(self, max_rows: int, tokens: int | None, shared: bool) -> list[range]:
        """The rows, in parts that are decoded together; see :func:`parts_within`."""
        new = self.sampling.max_new_tokens
        return parts_within(
            len(self.prompts), self.draws, self.longest - new, new, max_rows, tokens, shared
        )

    def uniforms(self, part: range) -> Tensor:
        """A number for each token of some rows, (n, tokens): each row's are its own.

        QueryBatch on the CPU, so that no device and no way of parting the rows changes them.
        """
        generator = torch.Generator().manual_seed(self.seed)
        count = len(self.prompts) * self.draws
        numbers = torch.rand(count, self.sampling.max_new_tokens, generator=generator)
        return numbers[part.start : part.stop]

    def tell(self, start: int, rows: Tensor, ids: Tensor) -> None:
        """Tell that some rows of a part have ended, with their tokens in ids (t, n)."""
        if self.finished is not None:
            for row, tokens in zip(rows.tolist(), ids[:, rows].T.tolist(), strict=True):
                self.finished(start + row, tokens)


def parts_within(
    prompts: int,
    draws: int,
    prompt: int,
    new: int,
    max_rows: int,
    tokens: int | None,
    shared: bool,
) -> list[range]:
    """Rows, ``draws`` of each prompt, in parts that are decoded together.

    Prompts are taken together as rows and tokens allow; the draws of one are parted only where
    tokens do not hold them all.

    Args:
        prompts: how many.
        draws: of each.
        prompt: tokens of the longest one.
        new: tokens of a completion at most.
        max_rows: rows at once, more only if one prompt has more draws.
        tokens: tokens at once, padding included; None is any number.
        shared: whether draws share the tokens of their prompt.
    """
    length, most, together = prompt + new, draws, max(1, max_rows // draws)
    if tokens is not None:
        together = min(together, tokens // (prompt + draws * new if shared else draws * length))
        if together == 0:
            fitting = (tokens - prompt) // new if shared else tokens // length
            most, together = min(draws, max(1, fitting)), 1
    rows = range(prompts * draws)
    if most == draws:
        return [rows[i : i + together * draws] for i in rows[:: together * draws]]
    return [
        rows[i + done : i + min(done + most, draws)]
        for i in rows[::draws]
        for done in range(0, draws, most)
    ]


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
