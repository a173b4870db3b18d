"""CPU threads of a command: asleep while they wait, no more than the container has time for."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from lsp_lightning.cli import app as cli
from lsp_lightning.cli import threads
from lsp_lightning.cli.main import main
from lsp_lightning.cli.threads import cgroup_cpus, default_threads, wait_asleep


def system(root, files):
    """A root folder with the given files."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V1 = "5:cpuset:/\n4:cpu,cpuacct:/docker/ab\n1:name=systemd:/docker/ab\n"
V2 = "0::/user/run.scope\n"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        # microseconds of CPU time a period of 100,000
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/run.scope/cpu.max": "150000 100000\n"}, 1.5),
        ({"proc/self/cgroup": V2, "sys/fs/cgroup/user/run.scope/cpu.max": "max 100000\n"}, None),
        (  # a group has no more than the ones around it
            {
                "proc/self/cgroup": V2,
                "sys/fs/cgroup/user/run.scope/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/user/cpu.max": "200000 100000\n",
            },
            2.0,
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 0.5),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/docker/ab/cpu.cfs_quota_us": "300000\n",
                "sys/fs/cgroup/cpu/docker/ab/cpu.cfs_period_us": "100000\n",
            },
            3.0,
        ),
        (  # inside of the container its own group is the topmost, and the host's path is not there
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "40000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "20000\n",
            },
            2.0,
        ),
        (
            {
                "proc/self/cgroup": V1,
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
        ),
        ({"proc/self/cgroup": "something else\n", "sys/fs/cgroup/cpu.max": ""}, None),
        ({}, None),  # macOS, Windows
    ],
)
def test_a_control_group_s_limit_is_its_quota_of_a_period(tmp_path, files, cpus):
    assert cgroup_cpus(system(tmp_path, files)) == cpus


@pytest.mark.parametrize(
    ("cores", "limit", "expected"),
    [
        # torch would take 8
        (16, None, 8),
        (16, 64.0, 8),
        (16, 4.0, 4),
        (16, 3.6, 4),
        (16, 2.4, 2),
        (4, None, 4),
        (3, 64.0, 3),
        # on two CPUs or fewer there is one thread
        (16, 2.0, 1),
        (16, 0.1, 1),
        (2, None, 1),
        (2, 64.0, 1),
        (1, None, 1),
    ],
)
def test_threads_are_no_more_than_the_cpus_and_one_on_two(monkeypatch, cores, limit, expected):
    monkeypatch.setattr(threads, "usable_cores", lambda: cores)
    monkeypatch.setattr(threads, "cgroup_cpus", lambda: limit)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert default_threads(8) == expected


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_that_the_user_gave_stays(monkeypatch, name):
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    monkeypatch.setattr(threads, "cgroup_cpus", lambda: 2.0)
    monkeypatch.setenv(name, "8")
    assert default_threads(8) == 8


@pytest.mark.usefixtures("untouched_process")
@pytest.mark.parametrize(("said", "expected"), [(None, 3), ("5", 5)])
def test_a_command_computes_with_as_many_threads(monkeypatch, said, expected):
    monkeypatch.setattr(threads, "usable_cores", lambda: 8)
    monkeypatch.setattr(threads, "cgroup_cpus", lambda: 3.0)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    torch.set_num_threads(5)
    during = []

    def command(args, policy):
        during.append(torch.get_num_threads())
        return SimpleNamespace(status=0)

    monkeypatch.setattr(cli, "SelfPlayCLI", command)
    assert main(["fit"]) == 0
    assert during == [expected]


def policy_of(code, **environment):
    """OMP_WAIT_POLICY in a fresh process after ``code``."""
    kept = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"}
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport os; print(os.environ.get('OMP_WAIT_POLICY'))"],
        env=kept | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return out.stdout.split()[-1]


def test_a_command_has_threads_wait_asleep_before_torch_loads():
    # found when cli, which loads torch, is imported; then the command need not run
    code = (
        "import sys, types, os; from lsp_lightning.cli.main import main\n"
        "class Found:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'lsp_lightning.cli.app':\n"
        "            assert 'torch' not in sys.modules\n"
        "            print(os.environ.get('OMP_WAIT_POLICY')); sys.exit()\n"
        "sys.meta_path.insert(0, Found()); main(['fit'])"
    )
    assert policy_of(code) == "PASSIVE"
    assert policy_of(code, OMP_WAIT_POLICY="ACTIVE") == "ACTIVE"


def test_importing_the_package_and_its_command_changes_nothing():
    assert policy_of("import lsp_lightning.cli.main, lsp_lightning.cli.threads") == "None"


def test_a_process_that_has_torch_keeps_its_environment(monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    wait_asleep()
    assert "OMP_WAIT_POLICY" not in os.environ
