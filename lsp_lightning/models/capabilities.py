"""Tests on a few tokens whether a loaded model can share prefixes.

A model that shares prefixes computes a prompt once for all of its completions. A model that cannot
do so computes every completion with a copy of its prompt. Decoding with its KV cache must then give
the same logits as one pass over whole rows.
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from lsp_lightning.models.loading import rows_of
from lsp_lightning.models.logits import head_logits, hidden_states
from lsp_lightning.models.modes import inference_state
from lsp_lightning.models.support import first_line, not_supported, supported
from lsp_lightning.prefix.attention import TreeAttention
from lsp_lightning.prefix.cache import Prefill, PrefixCache
from lsp_lightning.prefix.decoders import RowDecoder
from lsp_lightning.prefix.hooks import Inner, tree_hidden_states, tree_logits
from lsp_lightning.prefix.sharing import PrefixSharing, set_sharing, sharing_by_config
from lsp_lightning.prefix.tree import token_tree
from lsp_lightning.text.padding import pad_right

#: Largest relative difference of hidden states that rounding explains. A single token too many in
#: attention makes a larger difference.
_ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}
_ROUNDING_16_BITS = 0.05
#: Largest difference of log-probs between steps and rows in float32, in nats.
_STEP_NATS = 1e-3
#: In 16 bits, the largest relative difference of logits. Rounding alone moves log-probs by tenths
#: of a nat, and may send a token to another expert; if states are lost, logits differ completely.
_STEP_DIFFERENCE_16_BITS = 0.1


def enable_prefix_sharing(model: Any) -> PrefixSharing:
    """Let a causal LM share prefixes if it can. -> whether it does, and if not, why.

    Raises:
        ConfigError: the model does not share prefixes, and does not decode correctly with its KV
            cache either; or it fails in a pass. An error is never taken for "cannot share".
    """
    with supported(model):
        sharing = sharing_by_config(model)
        if sharing.available:
            set_sharing(model, sharing)
            sharing = replace(sharing, unavailable=_difference(model))
        set_sharing(model, sharing)
        if not sharing.available:
            _check_steps(model)
    return sharing


class _WindowRecorder:
    """Attention wrapper that records each layer's sliding window."""

    def __init__(self, attention: TreeAttention) -> None:
        self._attention = attention
        self.windows: dict[int, int | None] = {}

    def attend(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inner: Inner,
        **settings: Any,
    ) -> Tensor:
        layer: Any = module.layer_idx
        self.windows[layer] = settings.get("sliding_window")
        return self._attention.attend(module, query, key, value, inner, **settings)


def _difference(model: Any) -> str | None:
    """How outputs with shared prefixes differ from those over plain rows; None if they agree."""
    vocabulary = rows_of(model)
    shared = [i % vocabulary for i in range(1, 18)]
    rows = [[*shared, *((k + j) % vocabulary for j in range(5 + k))] for k in (2, 4)]
    device = next(model.parameters()).device
    tree = token_tree(rows)
    with inference_state(model, device.type):
        ids, mask = (x.to(device) for x in pad_right(rows, 0))
        expected = [h[m] for h, m in zip(hidden_states(model, ids), mask, strict=True)]
        recorder = _WindowRecorder(TreeAttention.of(tree).to(device))
        tokens, positions = tree.tokens.to(device), tree.positions.to(device)
        found = tree_hidden_states(model, tokens[None], positions[None], recorder)[0]
        if not recorder.windows:
            return "this model does not call the attention function that shares prefixes"
        if recorder.windows != _windows(model):
            return "the sliding windows of this model are not those in its config"
        if not all(_near(found[i], e) for i, e in zip(tree.rows, expected, strict=True)):
            return "this model computes different hidden states when prefixes are shared"
        logits = _decoded(model, rows, len(shared), device)
        last = head_logits(model, torch.stack([e[-1] for e in expected]))
        if not _near(logits, last):
            return "this model computes different logits when prefixes are shared"
        return None


def _decoded(model: Any, rows: list[list[int]], known: int, device: torch.device) -> Tensor:
    """Logits after each row, decoded step by step after its first ``known`` tokens. (rows, V)."""
    tree = token_tree([row[:known] for row in rows])
    longest = max(map(len, rows)) - known
    first = torch.zeros(1, dtype=torch.long, device=device)
    tokens, positions = tree.tokens.to(device), tree.positions.to(device)
    prefill = Prefill(tree, device)
    tree_logits(model, tokens[None], positions[None], prefill, first)
    cache = PrefixCache(prefill, draws=1, limit=longest)
    last: dict[int, Tensor] = {}
    active = list(range(len(rows)))
    for step in range(known, known + longest):
        tokens = torch.tensor([[rows[i][step]] for i in active], device=device)
        logits = tree_logits(model, tokens, cache.step()[:, None], cache, first)
        last.update(zip(active, logits[:, 0], strict=True))
        longer = [j for j, i in enumerate(active) if step + 1 < len(rows[i])]
        if longer and len(longer) < len(active):
            cache.keep(torch.tensor(longer, device=device))
            active = [active[j] for j in longer]
    return torch.stack([last[i] for i in range(len(rows))])


def _check_steps(model: Any) -> None:
    """Raise ConfigError unless decoding with the model's cache gives the logits of one pass."""
    differs = "computes different logits with a KV cache than in one pass"
    limits = [tuple(getattr(module, "time_step_limit", ())) for module in model.modules()]
    if any(limit and limit != (0.0, math.inf) for limit in limits):  # steps do not apply limits
        raise not_supported(model, f"{differs}: it limits time steps in one pass only")
    try:
        same = _steps_as_rows(model)
    except (TypeError, ValueError) as error:  # the model refuses the cache, or its arguments
        raise not_supported(
            model, f"does not decode with a KV cache ({first_line(error)})"
        ) from error
    if not same:
        raise not_supported(model, f"{differs}, so sampling and training would differ")


def _steps_as_rows(model: Any) -> bool:
    """Whether decoding with the model's cache gives the logits of a pass over whole rows."""
    vocabulary = rows_of(model)
    device = next(model.parameters()).device
    steps, known = 8, (9, 5)
    rows = [[(1 + 3 * k + j) % vocabulary for j in range(n + steps)] for k, n in enumerate(known)]
    with inference_state(model, device.type):
        decoder = RowDecoder(model, [row[:-steps] for row in rows], 1, 0, device)
        decoded = [decoder.begin()]
        for step in range(steps):
            tokens = [row[n + step] for row, n in zip(rows, known, strict=True)]
            decoded.append(decoder.step(torch.tensor(tokens, device=device)))
        ids, _ = pad_right(rows, 0)
        hidden = zip(hidden_states(model, ids.to(device)), known, strict=True)
        plain = [head_logits(model, row[n - 1 : n + steps]) for row, n in hidden]
    found, expected = torch.stack(decoded, dim=1), torch.stack(plain)
    if found.dtype in _ROUNDING:
        nats = (found.log_softmax(dim=-1) - expected.log_softmax(dim=-1)).abs().max()
        return bool(nats < _STEP_NATS)
    difference = (found.float() - expected.float()).norm()
    return bool(difference < _STEP_DIFFERENCE_16_BITS * expected.float().norm())


def _near(found: Tensor, expected: Tensor) -> bool:
    tolerance = _ROUNDING.get(expected.dtype, _ROUNDING_16_BITS)
    difference = (found.float() - expected.float()).norm() / expected.float().norm()
    return bool(difference < tolerance)


def _windows(model: Any) -> dict[int, int | None]:
    """The sliding window of each layer according to the model's config."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if kinds is None:
        return dict.fromkeys(range(config.num_hidden_layers), window)
    return {i: window if kind == "sliding_attention" else None for i, kind in enumerate(kinds)}
