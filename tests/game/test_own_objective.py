"""What an objective of your own returns is checked."""

import pytest
import torch
from handmade import scored_round

from lsp_lightning import ConfigError, Objective

ROUND = [[1.0, 0.0], [0.0, 0.0]]


class Returns(Objective):
    """Returns what it is told to. Its ``__init__`` does not call that of Objective."""

    def __init__(self, make):
        self.make = make

    def challenger_rewards(self, played):
        return self.make(played)


@pytest.mark.parametrize(
    ("make", "got"),
    [
        (lambda played: played.rewards_NG, r"\(2, 2\)"),
        (lambda played: played.values_N.mean(), r"\(\)"),
        (lambda played: played.values_N.repeat(2), r"\(4,\)"),
        (lambda played: played.values_N.tolist(), "list"),
        (lambda played: None, "NoneType"),
    ],
)
def test_an_objective_that_returns_something_else_is_one_line(make, got):
    line = rf"^model\.objective: challenger_rewards of Returns returned {got}; return .* \(2,\)"
    with pytest.raises(ConfigError, match=line):
        Returns(make).advantages(scored_round(ROUND))


@pytest.mark.parametrize("kind", [torch.bool, torch.long, torch.double])
def test_an_objective_may_pay_truths_whole_numbers_and_doubles(kind):
    advantages = Returns(lambda played: (played.values_N > 0).to(kind)).advantages(
        scored_round(ROUND)
    )
    assert advantages.challenger_C.tolist() == [0.5, -0.5]
    assert advantages.rows().dtype == torch.float32


def test_an_objective_that_pays_nan_is_named():
    objective = Returns(lambda played: played.values_N / 0)
    with pytest.warns(UserWarning, match="challenger_rewards of Returns returned NaN"):
        objective.advantages(scored_round(ROUND))
