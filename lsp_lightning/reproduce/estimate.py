"""How long a comparison takes on this machine, before it is started and while it runs."""

import math
import time
from collections.abc import Iterable, Sequence

from lsp_lightning.reproduce.arms import Costs
from lsp_lightning.reproduce.comparison import Comparison, Job, Play
from lsp_lightning.reproduce.pool import Running

#: Passes of the calibration; the fastest one counts, because others may have been disturbed.
_PASSES = 5
_STEPS = 30
_MIB = 1_000_000


def expected_seconds(job: Job, costs: Costs, rounds: int) -> float:
    """Seconds of a job on the machine where the costs were measured, on one core."""
    if isinstance(job, Play):
        return costs.start + rounds * costs.round[job.preset]
    return costs.measure + (costs.curve if job.spec.curve_draws else 0.0)


def calibrate() -> float:
    """Seconds of a fixed piece of work with one thread: small layers, as in the tiny world."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(0)
        layers = torch.nn.Sequential(
            *(
                torch.nn.Sequential(
                    torch.nn.Linear(128, 384), torch.nn.SiLU(), torch.nn.Linear(384, 128)
                )
                for _ in range(4)
            )
        )
        rows = torch.randn(128, 128)
        seconds = math.inf
        for _ in range(_PASSES):
            start = time.perf_counter()
            for _ in range(_STEPS):
                layers(rows).square().mean().backward()
            seconds = min(seconds, time.perf_counter() - start)
        return seconds
    finally:
        torch.set_num_threads(threads)


class Forecast:
    """The time left, which follows how long the jobs really take.

    Args:
        comparison: the folder.
        jobs: all jobs that are to be done.
        processes: how many at a time.
        pace: seconds here for a second of the recorded costs, as far as is known.
    """

    def __init__(
        self, comparison: Comparison, jobs: Sequence[Job], processes: int, pace: float
    ) -> None:
        self._costs, self._rounds = comparison.world.costs, comparison.rounds
        self._left = {self._key(job): self._expected(job) for job in jobs}
        self._processes = processes
        self._pace = pace
        self._took = self._done = 0.0

    def _key(self, job: Job) -> tuple[type, str]:
        return type(job), job.run

    def _expected(self, job: Job) -> float:
        return expected_seconds(job, self._costs, self._rounds)

    def ended(self, job: Job, seconds: float | None) -> None:
        """Note a job that has ended; None for one that failed."""
        expected = self._left.pop(self._key(job), 0.0)
        if seconds is not None:
            self._took += seconds
            self._done += expected

    @property
    def pace(self) -> float:
        """Seconds here for a second of the recorded costs."""
        # what was expected at first counts like one job, so that a short one does not mislead
        weight = self._costs.start + self._rounds * max(self._costs.round.values())
        return (self._took + weight * self._pace) / (self._done + weight)

    def seconds_left(self, running: Iterable[Running] = ()) -> float:
        """Wall time until all jobs are done."""
        total = sum(self._left.values()) * self.pace
        for one in running:
            total -= min(one.seconds, self._expected(one.job) * self.pace)
        return total / self._processes


def disk(comparison: Comparison, jobs: Iterable[Job]) -> float:
    """Bytes that the runs take."""
    plays = sum(isinstance(job, Play) for job in jobs)
    return plays * comparison.world.costs.megabytes * _MIB


def clock(seconds: float) -> str:
    """A duration in its largest units, such as ``41 min`` or ``2 h 05 min``."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
