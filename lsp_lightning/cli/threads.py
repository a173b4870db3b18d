"""The number of CPU threads of a command, if you do not set it. Does not import torch.

Only the command line uses this; importing the package changes no thread settings.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

#: With this many CPUs or fewer, threads lose more time by waiting than they gain.
_TOO_FEW = 2
_USER_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def wait_asleep() -> None:
    """Let OpenMP's threads sleep while they wait, unless OMP_WAIT_POLICY is set.

    By default waiting threads spin for milliseconds after every operation. On a busy machine they
    take CPU time from the thread that they wait for. OpenMP reads the setting once, so this has no
    effect after torch is imported.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def default_threads(current: int) -> int:
    """The number of threads that torch should use.

    Torch knows the cores and the affinity of its process, but not the CPU limit of a container
    (``docker run --cpus 4``): it would start a thread for each core of the host.

    Args:
        current: ``torch.get_num_threads()``.

    Returns:
        ``current`` if OMP_NUM_THREADS or MKL_NUM_THREADS is set. Otherwise 1 with at most two CPUs:
        with two threads a round on two CPUs is slower if other work runs, and hardly faster if
        none does (docs/quickstart.md has figures). Otherwise ``current``, or the CPU limit of the
        control group if that is less.
    """
    if any(name in os.environ for name in _USER_SETTINGS):
        return current
    cpus = usable_cpus()
    return 1 if cpus <= _TOO_FEW else min(current, round(cpus))


def usable_cpus() -> float:
    """CPUs that this process may use: its cores, or the limit of its control group if less."""
    limit = cgroup_cpus()
    return float(usable_cores()) if limit is None else min(usable_cores(), limit)


def usable_cores() -> int:
    """Number of logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_cpus(root: Path = Path("/")) -> float | None:
    """The CPU limit of this process's control group (version 1 or 2), in CPUs.

    Args:
        root: the folder that contains ``proc`` and ``sys``.

    Returns:
        The smallest limit of the group and its parent groups; None without a limit.
    """
    limits = []
    for folder in _cpu_groups(root):
        quota, period = [
            *_words(folder / "cpu.max"),  # version 2: both in one file
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
            "",
            "",
        ][:2]
        if quota.isdecimal() and period.isdecimal():  # not "max" or "-1", which are no limit
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def _cpu_groups(root: Path) -> Iterator[Path]:
    """Folders of the process's control group and its parent groups.

    In a container the group's path may be that of the host. Then only the topmost folder exists,
    and that is the container's.
    """
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number != "0" and "cpu" not in controllers.split(","):
            continue
        mount = root / "sys/fs/cgroup" / ("" if number == "0" else "cpu")  # 0 is version 2
        parts = Path(path.lstrip("/")).parts
        yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts) + 1))


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:  # macOS, Windows, no such group, not allowed
        return ""
