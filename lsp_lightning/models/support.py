"""The error for a model that loads but cannot be trained or sampled here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from lsp_lightning.errors import ConfigError
from lsp_lightning.runtime.memory import is_out_of_memory


def not_supported(model: Any, problem: str) -> ConfigError:
    """The error for a causal LM; ``problem`` continues "the model ..."."""
    broken = _not_finite(model)
    if broken is not None:
        problem = f"the weights of this model contain NaN or infinity ({broken})"
        return ConfigError("model.base", problem, "copy or download the model again")
    family = getattr(getattr(model, "config", None), "model_type", "unknown")
    return ConfigError(
        "model.base",
        f"{type(model).__name__} (model type {family}) {problem}",
        "choose another architecture; docs/real-models.md lists those that are tested",
    )


def _not_finite(model: Any) -> str | None:
    """The first weight that is not finite everywhere; None if all are."""
    named = model.named_parameters() if isinstance(model, torch.nn.Module) else ()
    weights = ((name, w) for name, w in named if w.is_floating_point() and not w.is_meta)
    return next((name for name, weight in weights if not weight.isfinite().all()), None)


@contextmanager
def supported(model: Any) -> Iterator[None]:
    """Turn an error of a model's own code in a trial pass into one line.

    Raises:
        ConfigError: for any error but out of memory, which is raised unchanged.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, ConfigError) or is_out_of_memory(error):
            raise
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise not_supported(model, f"fails in a trial pass ({reason})") from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, shortened."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
