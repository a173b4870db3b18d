"""Which models can share prompts: found out by trying, once, when they are loaded."""

from typing import Any

import torch
from torch import Tensor, nn

from lsp_lightning.attention import (
    Inner,
    register,
    tree_hidden_states,
    tree_logits,
)
from lsp_lightning.inference import inference_state, pad_right
from lsp_lightning.kv_cache import RolloutCache
from lsp_lightning.logits import head_logits, hidden_states
from lsp_lightning.tree import token_tree
from lsp_lightning.tree_attention import TreeAttention

#: Attentions that take a mask of any form.
_INNER = ("sdpa", "eager")
#: Relative difference of hidden states that rounding explains; one token too many makes more.
_ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}
_ROUNDING_16_BITS = 0.05


def install(model: Any) -> None:
    """Have a causal LM take an attention of ours wherever it is given one, if it can.

    Tried on a few tokens. A model that cannot (states in place of keys and values, an attention
    that is not looked up by name) stays as it is, and each completion is computed with its own
    prompt.
    """
    config = model.config.get_text_config()
    inner = config._attn_implementation
    if inner not in _INNER:
        return
    config._attn_implementation = register(inner)
    try:
        able = _agrees(model)
    except (TypeError, ValueError, AttributeError, RuntimeError, LookupError):
        able = False  # whatever it is that such a model does, it is not what ours does
    if not able:
        config._attn_implementation = inner


class _Witness:
    """An attention that notes how far each layer sees."""

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


def _agrees(model: Any) -> bool:
    """Whether tree, rollout and plain rows say the same."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    shared = [i % vocabulary for i in range(1, 18)]
    rows = [[*shared, *((k + j) % vocabulary for j in range(5 + k))] for k in (2, 4)]
    device = next(model.parameters()).device
    tree = token_tree(rows)
    with inference_state(model, device.type):
        ids, mask = (x.to(device) for x in pad_right(rows, 0))
        expected = [h[m] for h, m in zip(hidden_states(model, ids), mask, strict=True)]
        witness = _Witness(TreeAttention.of(tree).to(device))
        tokens, positions = tree.tokens.to(device), tree.positions.to(device)
        found = tree_hidden_states(model, tokens[None], positions[None], witness)[0]
        if witness.windows != _windows(model):
            return False
        if not all(_near(found[p], e) for p, e in zip(tree.rows, expected, strict=True)):
            return False
        logits = _decoded(model, rows, len(shared), device)
        last = head_logits(model, torch.stack([e[-1] for e in expected]))
        return _near(logits, last)


def _decoded(model: Any, rows: list[list[int]], known: int, device: torch.device) -> Tensor:
    """The logits after each row, its tokens given one by one. (rows, V)."""
    tree = token_tree([row[:known] for row in rows])
    longest = max(map(len, rows)) - known
    cache = RolloutCache(tree, longest, device)
    first = torch.zeros(1, dtype=torch.long, device=device)
    tokens, positions = tree.tokens.to(device), tree.positions.to(device)
    tree_logits(model, tokens[None], positions[None], cache, first)
    cache.begin(1)
    last: dict[int, Tensor] = {}
    going = list(range(len(rows)))
    for step in range(known, known + longest):
        tokens = torch.tensor([[rows[i][step]] for i in going], device=device)
        logits = tree_logits(model, tokens, cache.step()[:, None], cache, first)
        last.update(zip(going, logits[:, 0], strict=True))
        more = [j for j, i in enumerate(going) if step + 1 < len(rows[i])]
        if more and len(more) < len(going):
            cache.keep(torch.tensor(more, device=device))
            going = [going[j] for j in more]
    return torch.stack([last[i] for i in range(len(rows))])


def _near(found: Tensor, expected: Tensor) -> bool:
    tolerance = _ROUNDING.get(expected.dtype, _ROUNDING_16_BITS)
    difference = (found.float() - expected.float()).norm() / expected.float().norm()
    return bool(difference < tolerance)


def _windows(model: Any) -> dict[int, int | None] | None:
    """How far each layer sees by the model's config; None where it says what is not known here."""
    config = model.config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if kinds is None:
        return dict.fromkeys(range(config.num_hidden_layers), window)
    if not set(kinds) <= {"full_attention", "sliding_attention"}:
        return None
    return {i: window if kind == "sliding_attention" else None for i, kind in enumerate(kinds)}
