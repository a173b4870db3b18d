"""How long a comparison takes: the arithmetic of the forecast."""

from dataclasses import replace

import pytest

from lsp_lightning.reproduce.arms import Costs
from lsp_lightning.reproduce.comparison import Comparison
from lsp_lightning.reproduce.estimate import Forecast, calibrate, clock, disk
from lsp_lightning.reproduce.tiny import tiny_world

COSTS = Costs({"tiny_grpo": 1.0, "tiny_lsp": 2.0}, 10.0, 20.0, 30.0, 0.5, 4.0)


@pytest.fixture
def comparison(tmp_path):
    return Comparison(replace(tiny_world(), costs=COSTS), tmp_path, 100)


def jobs_of(comparison, *names, seeds=(0,)):
    return comparison.jobs([comparison.world.arm(name) for name in names], seeds)


def test_shared_runs_count_once(comparison):
    # grpo 110, lsp after it 210, two scorings of 50
    jobs = jobs_of(comparison, "grpo", "grpo-lsp")
    assert Forecast(comparison, jobs, 1, 1.0).seconds_left() == 420
    assert Forecast(comparison, jobs, 2, 3.0).seconds_left() == 630
    assert disk(comparison, jobs) == 8_000_000


def test_ablations_have_no_curve(comparison):
    jobs = jobs_of(comparison, "gate")
    assert Forecast(comparison, jobs, 1, 1.0).seconds_left() == 210 + 20


def test_the_forecast_follows_what_jobs_really_take(comparison):
    play, measure = jobs_of(comparison, "lsp")
    forecast = Forecast(comparison, [play, measure], 1, 1.0)
    forecast.ended(play, 420.0)  # twice as long as expected
    # the first guess weighs like one job of 210 seconds: (420 + 210) / (210 + 210)
    assert forecast.pace == 1.5
    assert forecast.seconds_left() == 75
    forecast.ended(measure, None)  # failed
    assert forecast.seconds_left() == 0
    assert forecast.pace == 1.5


def test_the_calibration_takes_a_moment():
    assert 0 < calibrate() < 60


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5000, "83 min"), (7500, "2 h 05 min")],
)
def test_durations_are_told_in_their_largest_units(seconds, text):
    assert clock(seconds) == text
