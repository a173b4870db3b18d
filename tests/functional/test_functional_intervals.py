"""Intervals over seeds: the quantile of Student's t, and how often an interval is right."""

import math

import pytest
import torch

from lsp_lightning.functional.intervals import t_interval, t_quantile


@pytest.mark.parametrize(
    ("degrees", "tabulated"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262)]
)
def test_quantiles_are_those_of_the_tables(degrees, tabulated):
    assert t_quantile(0.975, degrees) == pytest.approx(tabulated, abs=5e-4)


@pytest.mark.parametrize("degrees", [1, 2, 5, 8, 30])
def test_the_density_integrates_to_the_probability_up_to_the_quantile(degrees):
    t = t_quantile(0.9, degrees)
    x = torch.linspace(0, t, 20_001, dtype=torch.float64)
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
    scale = math.exp(log_scale) / math.sqrt(degrees * math.pi)
    density = scale * (1 + x**2 / degrees) ** (-(degrees + 1) / 2)
    assert float(torch.trapezoid(density, x)) == pytest.approx(0.4, abs=1e-8)


def test_the_median_is_zero_and_what_is_outside_is_refused():
    assert t_quantile(0.5, 3) == pytest.approx(0, abs=1e-12)
    for probability, degrees in ((1.0, 3), (0.4, 3), (0.9, 0)):
        with pytest.raises(ValueError, match="no quantile"):
            t_quantile(probability, degrees)


def test_an_interval_by_hand():
    # mean 2, standard deviation 1, error 1 / sqrt(3), quantile 4.3027 with two degrees
    mean, half = t_interval(torch.tensor([1.0, 2.0, 3.0, math.nan]))
    assert mean == 2.0
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert t_interval(torch.tensor([0.5]))[0] == 0.5
    assert math.isnan(t_interval(torch.tensor([0.5]))[1])
    assert all(map(math.isnan, t_interval(torch.tensor([]))))


def test_intervals_of_two_to_five_seeds_contain_the_mean_as_often_as_they_say():
    generator = torch.Generator().manual_seed(0)
    for n in (2, 5):
        hits = 0
        for values in torch.randn(800, n, generator=generator):
            mean, half = t_interval(values)
            hits += abs(mean) <= half
        assert hits / 800 == pytest.approx(0.95, abs=0.03)  # four standard errors
