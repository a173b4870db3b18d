"""Held-out scores of two runs compare if the same reward gave them."""

from types import SimpleNamespace

from handmade import FixedReward

from lsp_lightning.callbacks.summary import _scored_with


def settings(*names, chosen=None):
    """What the scores of a run with these binary rewards depend on."""
    rewards = [FixedReward([[1.0]], name=name) for name in names]
    for reward in rewards:
        reward.binary = True
    plain = {"heldout": "3 tasks", "heldout_reward": chosen, "beta": 0.1, "rewards": list(names)}
    module = SimpleNamespace(rewards=rewards, resume_settings=lambda: plain)
    return _scored_with(module, "solved")


def test_the_reward_that_is_taken_by_default_may_be_named():
    assert settings("a", "b") == settings("a", "b", chosen="a")


def test_another_reward_is_not_the_same_whether_it_is_named_or_comes_first():
    assert settings("a", "b") != settings("a", "b", chosen="b")
    assert settings("a", "b") != settings("b", "a")
    assert settings("a", "b", chosen="b") == settings("b", "a", chosen="b")
