"""What the progress line shows."""

from types import SimpleNamespace

import torch

from lsp_lightning.callbacks.progress import RoundProgress


def shown(**metrics: float) -> dict[str, str]:
    """The labels and values of the line; two underscores stand for a slash."""
    named = {name.replace("__", "/"): torch.tensor(value) for name, value in metrics.items()}
    return RoundProgress().get_metrics(SimpleNamespace(callback_metrics=named), None)


def test_the_share_of_malformed_queries_is_shown_whatever_the_rewards_name():
    found = shown(reward=0.5, queries__truth__malformed=0.25, queries__truth__level=2.0)
    assert found == {"reward": "0.50", "malformed": "0.25"}


def test_two_rewards_that_tell_malformed_queries_are_told_apart():
    found = shown(queries__a__malformed=0.25, queries__b__malformed=0.75)
    assert found == {"malformed (a)": "0.25", "malformed (b)": "0.75"}
