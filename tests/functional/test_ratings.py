"""Ratings from cross-play, against values that are derived here."""

import math

import pytest
import torch

from lsp_lightning.functional.ratings import ELO, elo_ratings, rasch


def rates(skills, difficulties):
    """The rates of the model itself: logit P = skill - difficulty. (C, S)."""
    table = [[1 / (1 + math.exp(d - s)) for s in skills] for d in difficulties]
    return torch.tensor(table, dtype=torch.double)


def test_skills_and_difficulties_come_back_from_the_rates_of_the_model():
    skills, difficulties = [0.0, 1.0, -0.5], [0.3, -0.7]
    # so many queries that the prior does not count
    found = rasch(rates(skills, difficulties), torch.tensor([10**9, 10**9]))
    assert found[0].tolist() == pytest.approx(skills, abs=1e-6)
    assert found[1].tolist() == pytest.approx(difficulties, abs=1e-6)


def test_the_fit_is_where_the_slope_of_the_posterior_is_zero():
    # for each parameter: observed minus expected wins, less the pull of the prior (variance 9)
    observed, n = (
        torch.tensor([[0.5, 1.0], [0.25, 0.75]], dtype=torch.double),
        torch.tensor([8, 12]),
    )
    skills, difficulties = rasch(observed, n)
    expected = torch.sigmoid(skills[None] - difficulties[:, None])
    gap_CS = (observed - expected) * n[:, None]
    assert float(gap_CS[:, 1].sum() - skills[1] / 9) == pytest.approx(0, abs=1e-8)
    for c in range(2):
        assert float(-gap_CS[c].sum() - difficulties[c] / 9) == pytest.approx(0, abs=1e-8)


def test_a_solver_that_solves_everything_has_a_finite_rating():
    skills, _ = rasch(torch.tensor([[0.5, 1.0]]), torch.tensor([64]))
    assert 1 < skills[1] < 10


def test_400_points_are_ten_times_the_odds():
    assert ELO * math.log(10) == pytest.approx(400)
    # odds 1 and 10, the same at each of many queries: half a point of 11 is 10/11
    n = 11_000
    answers = torch.zeros(1, 2, n)
    answers[0, 0, : n // 2] = 1.0
    answers[0, 1, : n * 10 // 11] = 1.0
    solvers, challengers = elo_ratings(answers, samples=50)
    assert solvers[1, 0].item() == pytest.approx(400, abs=1)
    assert solvers[0].tolist() == [0.0, 0.0, 0.0]
    assert challengers.tolist() == [[0.0, 0.0, 0.0]]


def test_the_intervals_hold_the_truth_nineteen_times_in_twenty():
    """Queries of one Challenger have different difficulties, which both Solvers share."""
    generator = torch.Generator().manual_seed(0)
    held = 0
    trials, truth = 100, 0.8
    for seed in range(trials):
        chance = torch.sigmoid(torch.tensor([[[0.0], [truth]], [[-0.6], [truth - 0.6]]]))
        answers = (torch.rand(2, 2, 60, generator=generator) < chance).float()
        solvers, _ = elo_ratings(answers, samples=100, seed=seed)
        _, low, high = solvers[1].tolist()
        held += low <= ELO * truth <= high
    # binomial(100, .95): 87 or fewer in two of a thousand cases
    assert held >= 88


def test_queries_that_do_not_count_are_left_out():
    counted = torch.tensor([[[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]]])
    nan = torch.full((1, 2, 1), math.nan)
    found = elo_ratings(torch.cat([counted, nan], dim=2), samples=20)
    assert torch.equal(found[0], elo_ratings(counted, samples=20)[0])
    with pytest.raises(ValueError, match="no query that counts"):
        elo_ratings(nan)
