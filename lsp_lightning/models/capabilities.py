"""What a model can do, found out by trying, once, when it is loaded."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lsp_lightning.errors import ConfigError
from lsp_lightning.models.logits import head_logits, hidden_states
from lsp_lightning.models.modes import inference_state
from lsp_lightning.prefix.attention import TreeAttention
from lsp_lightning.prefix.cache import PrefixCache
from lsp_lightning.prefix.decoders import RowDecoder
from lsp_lightning.prefix.hooks import (
    INNER,
    LAYERS,
    Inner,
    register,
    tree_hidden_states,
    tree_logits,
)
from lsp_lightning.prefix.tree import token_tree
from lsp_lightning.text.padding import pad_right

#: Relative difference of hidden states that rounding explains; one token too many makes more.
_ROUNDING = {torch.float32: 1e-3, torch.float64: 1e-3}
_ROUNDING_16_BITS = 0.05
#: The same of logits, above which a model does not compute its steps as it computes rows. Wide, for
#: rounding may send a token to another expert; of states that are lost they have nothing in common.
_OTHERWISE = 0.1


def enable_prefix_sharing(model: Any) -> None:
    """Have a causal LM take an attention of ours wherever it is given one, if it can.

    Tried on a few tokens. A model that cannot (states in place of keys and values, an attention
    that is not looked up by name) stays as it is, and each completion is computed with its own
    prompt.

    Raises:
        ConfigError: nor can it be sampled from that way.
    """
    config = model.config.get_text_config()
    inner = config._attn_implementation
    if inner in INNER:
        config._attn_implementation = register(inner)
        if _succeeds(_agrees, model):
            return
        config._attn_implementation = inner
    if not _succeeds(_steps_as_rows, model):
        raise ConfigError(
            "model.base",
            f"{type(model).__name__} does not compute the same token by token as over whole rows, "
            "so that what is sampled would not be what is trained",
            "choose another architecture",
        )


def _succeeds(trial: Callable[[Any], bool], model: Any) -> bool:
    try:
        return trial(model)
    except (TypeError, ValueError, AttributeError, RuntimeError, LookupError):
        return False  # whatever it is that such a model does, it is not what ours does


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
    cache = PrefixCache(tree, longest, device)
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


def _steps_as_rows(model: Any) -> bool:
    """Whether rows that grow over the model's own cache say what plain rows do."""
    vocabulary = model.get_input_embeddings().weight.shape[0]
    device = next(model.parameters()).device
    steps, known = 4, (9, 5)
    rows = [[(1 + 3 * k + j) % vocabulary for j in range(n + steps)] for k, n in enumerate(known)]
    with inference_state(model, device.type):
        decoder = RowDecoder(model, [row[:-steps] for row in rows], 1, 0, device)
        grown = [decoder.begin()]
        for step in range(steps):
            tokens = [row[n + step] for row, n in zip(rows, known, strict=True)]
            grown.append(decoder.step(torch.tensor(tokens, device=device)))
        ids, _ = pad_right(rows, 0)
        hidden = zip(hidden_states(model, ids.to(device)), known, strict=True)
        plain = [head_logits(model, row[n - 1 : n + steps]) for row, n in hidden]
    found, expected = torch.stack(grown, dim=1).float(), torch.stack(plain).float()
    return bool((found - expected).norm() < _OTHERWISE * expected.norm())


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
    if not set(kinds) <= LAYERS:
        return None
    return {i: window if kind == "sliding_attention" else None for i, kind in enumerate(kinds)}
