"""CPU threads of a command where the user has said nothing of them. Light: no torch.

Only the command line asks for it; whoever imports the package keeps the settings of their process.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

#: On so few CPUs threads wait for each other, and for whatever else runs, longer than they gain.
_TOO_FEW = 2
_SAID_BY_USER = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def wait_asleep() -> None:
    """Have OpenMP's threads sleep while they wait for each other, unless the environment disagrees.

    They spin by default, for milliseconds after every operation. Where another process wants the
    core, they burn the very time that the thread they wait for would need. OpenMP reads the
    setting once, so it is given before torch loads; after that nothing is changed.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def default_threads(current: int) -> int:
    """How many threads torch should compute with.

    Torch knows the cores and the affinity of its process but not the share of time that a
    container is given (``docker run --cpus 4``): it would start a thread for each core of the host.

    Args:
        current: ``torch.get_num_threads()``.

    Returns:
        ``current`` where OMP_NUM_THREADS or MKL_NUM_THREADS is set; else 1 where there are two CPUs
        or fewer (a round on two is slower with two threads where other work runs, and hardly
        faster where none does), and on more ``current``, or as many as the control group has CPUs'
        worth of time where that is less.
    """
    if any(name in os.environ for name in _SAID_BY_USER):
        return current
    limit = cgroup_cpus()
    cpus = float(usable_cores()) if limit is None else min(usable_cores(), limit)
    return 1 if cpus <= _TOO_FEW else min(current, round(cpus))


def usable_cores() -> int:
    """Cores, counted with hyper-threads, that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_cpus(root: Path = Path("/")) -> float | None:
    """CPUs' worth of time that this process's control group may take, by version 1 or 2.

    Args:
        root: where ``proc`` and ``sys`` lie.

    Returns:
        The least limit of the group and those around it; None where there is none, or the system
        has no control groups.
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
    """Folders of the process's group and of those around it.

    In a container the path may be the host's: then only the topmost folder is there, and is right.
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
