"""From tokens to log-probs as each architecture computes them: hidden states, head, soft-cap."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from lsp_lightning.functional.logprobs import token_logprobs
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.support import not_supported, supported
from lsp_lightning.prefix.attention import TreeAttention
from lsp_lightning.prefix.hooks import Attention, backbone, tree_hidden_states
from lsp_lightning.prefix.sharing import shares_prefixes
from lsp_lightning.prefix.tree import trees_within
from lsp_lightning.text.padding import by_token_budget, pad_right
from lsp_lightning.types import TrainBatch

#: Relative difference of logits that rounding in 16 bits explains.
_ROUNDING = 0.05


def hidden_states(
    model: Any, input_ids: Tensor, position_ids: Tensor | None = None, tree: Attention | None = None
) -> Tensor:
    """Final hidden states (B, S, H).

    Args:
        model: a causal LM.
        input_ids: (B, S), padded on the right unless there is a tree.
        position_ids: (B, S); None counts each row from 0.
        tree: the attention over a tree; None is plain causal attention.
    """
    if tree is not None:
        assert position_ids is not None
        return tree_hidden_states(model, input_ids, position_ids, tree)
    if position_ids is None:
        # count padding too: models take a position that restarts for another packed row
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)
        position_ids = position_ids.expand_as(input_ids)
    out = backbone(model)(input_ids=input_ids, position_ids=position_ids, use_cache=False)
    hidden: Tensor = out.last_hidden_state
    return hidden


def batch_hidden_states(model: Any, batch: TrainBatch) -> Tensor:
    """Final hidden states (B, S, H) of the tokens of a batch."""
    attention = cast("Attention | None", batch.attention)
    return hidden_states(model, batch.input_ids, batch.position_ids, attention)


def head_logits(model: Any, hidden: Tensor) -> Tensor:
    """Logits (m, V) of hidden states (m, H), scaled and soft-capped as the architecture does."""
    head = model.get_output_embeddings()
    logits: Tensor = head(hidden.to(head.weight.dtype))
    config = model.config.get_text_config()
    scale = (getattr(config, "logit_scale", None) or 1.0) / getattr(config, "logits_scaling", 1.0)
    if scale != 1:  # not if it is 1: each operation takes another copy of the logits
        logits = logits * scale
    cap = getattr(config, "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


def completion_logprobs(
    model: Any, batch: TrainBatch, logits_at_once: int, entropies: bool = True
) -> tuple[Tensor, Tensor]:
    """Log-probs of the completion tokens, differentiable, and their entropies, detached.

    Args:
        model: a causal LM.
        batch: some completions of a round.
        logits_at_once: see :func:`lsp_lightning.functional.logprobs.token_logprobs`.
        entropies: False skips the entropies and returns 0 for them.

    Returns:
        (K, T) fp32 each, 0 on padding.
    """
    hidden = batch_hidden_states(model, batch).flatten(0, 1)
    places = batch.mask.nonzero(as_tuple=True)
    logprobs, entropy = token_logprobs(
        hidden[batch.sources[places]],
        lambda h: head_logits(model, h),
        batch.targets[places],
        batch.temperature[places[0]],
        logits_at_once,
        entropies,
    )
    empty = torch.zeros(batch.mask.shape, dtype=torch.float32, device=hidden.device)
    return empty.index_put(places, logprobs.float()), empty.index_put(places, entropy.float())


def next_token_logprobs(
    model: Any, prompts: Sequence[Sequence[int]], pad_id: int, max_tokens: int
) -> Tensor:
    """Log-probs of the token after each prompt at temperature 1. -> (n, V) fp32, on the CPU.

    Args:
        model: a causal LM in inference state.
        prompts: token ids.
        pad_id: fills up shorter rows.
        max_tokens: most tokens of one forward pass; a longer prompt gets a separate pass.
    """
    results: dict[int, Tensor] = {}
    for part, rows in _last_hidden_states(model, prompts, [1] * len(prompts), pad_id, max_tokens):
        # on the CPU: (n, V) of all prompts takes much memory
        logprobs = head_logits(model, torch.cat(rows)).float().log_softmax(dim=-1).cpu()
        results.update(zip(part, logprobs, strict=True))
    return torch.stack([results[i] for i in range(len(prompts))])


def continuation_logprobs(
    model: Any,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    pad_id: int,
    max_tokens: int,
) -> list[tuple[float, bool]]:
    """Log-prob of each continuation at temperature 1, and whether greedy decoding would give it.

    The logits of a row's continuation are computed alone: those of the whole row, over a large
    vocabulary, would take more memory than the model.

    Args:
        model: a causal LM in inference state.
        contexts: token ids, at least one for each continuation.
        continuations: token ids, at least one for each context.
        pad_id: fills up shorter rows.
        max_tokens: most tokens of one forward pass; a longer row gets a separate pass.
    """
    results: dict[int, tuple[float, bool]] = {}
    pairs = zip(contexts, continuations, strict=True)
    inputs = [[*context, *continuation][:-1] for context, continuation in pairs]
    lengths = [len(continuation) for continuation in continuations]
    for part, rows in _last_hidden_states(model, inputs, lengths, pad_id, max_tokens):
        for i, hidden in zip(part, rows, strict=True):
            targets = torch.tensor(continuations[i], device=hidden.device)
            logits = head_logits(model, hidden).float()
            chosen = logits.log_softmax(dim=-1).gather(1, targets[:, None])
            results[i] = float(chosen.sum()), bool((logits.argmax(dim=-1) == targets).all())
    return [results[i] for i in range(len(inputs))]


def _last_hidden_states(
    model: Any,
    rows: Sequence[Sequence[int]],
    counts: Sequence[int],
    pad_id: int,
    max_tokens: int,
) -> Iterator[tuple[list[int], list[Tensor]]]:
    """Yield the indices of some rows, and the hidden states of the last ``counts`` tokens of each.

    Models that share prefixes compute the common start of rows (a judge's rubric) once.
    """
    device = next(model.parameters()).device
    if shares_prefixes(model):
        for part, tree in trees_within(rows, max_tokens):
            ids, positions = tree.tokens.to(device), tree.positions.to(device)
            attention = TreeAttention.of(tree).to(device)
            hidden = hidden_states(model, ids[None], positions[None], attention)[0]
            last = [row[-counts[i] :] for i, row in zip(part, tree.rows, strict=True)]
            yield part, [hidden[places.to(device)] for places in last]
        return
    for part in by_token_budget([len(row) for row in rows], max_tokens):
        ids, mask = (x.to(device) for x in pad_right([rows[i] for i in part], pad_id))
        ends = mask.sum(1).tolist()
        hidden = hidden_states(model, ids)
        yield part, [h[n - counts[i] : n] for i, h, n in zip(part, hidden, ends, strict=True)]


def check_head(model: Any) -> None:
    """Raise ConfigError unless :func:`head_logits` gives the model's logits, in train mode too."""
    ids = torch.arange(4, device=next(model.parameters()).device).unsqueeze(0)
    with supported(model), inference_state(model, ids.device.type):
        expected = model(input_ids=ids).logits[0].float()
        in_eval = head_logits(model, hidden_states(model, ids)[0]).float()
        model.train()
        in_train = head_logits(model, hidden_states(model, ids)[0]).float()
        model.eval()
        ids[:, -1] += 1  # must not change what came before it
        change = head_logits(model, hidden_states(model, ids)[0, :-1]).float() - in_eval[:-1]
    if change.norm() > _ROUNDING * in_eval[:-1].norm():
        raise not_supported(model, "sees later tokens, so it is not a causal LM")
    same = (torch.allclose(expected, x, atol=1e-2, rtol=1e-2) for x in (in_eval, in_train))
    if not all(same):
        raise not_supported(model, "computes its logits in a way that is not supported")
