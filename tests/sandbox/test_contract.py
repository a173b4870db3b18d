"""The interface of sandboxes: what both kinds guarantee."""

import ast
import copy
import os
import pickle
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lsp_lightning.errors import ConfigError
from lsp_lightning.sandbox import (
    BubblewrapSandbox,
    Limits,
    MontySandbox,
    Outcome,
    Program,
    SandboxError,
    bubblewrap,
)
from sandbox.conftest import LIMITS


def call(sandbox, body, *cases):
    """The outcome of calling a function with this body, which takes any arguments, on the cases."""
    return sandbox.run(Program(f"def f(*args):\n    {body}", "f", cases))


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("print('a')\nprint('b', end='')", "a\nb"),
        ("", ""),
        ("print('äß→😀')", "äß→😀\n"),
        ("for i in range(100): print(i)", "".join(f"{i}\n" for i in range(100))),
        ("def f(n): return n and 1 + f(n - 1)\nprint(f(100))", "100\n"),
        ("print(sorted([3, 1, 2]), sum(range(10**5)))", "[1, 2, 3] 4999950000\n"),
        ("print(len([0] * 10**6), len('x' * 10**6))", "1000000 1000000\n"),
        ("import re\nprint(re.sub('a+', 'b', 'aaac'))", "bc\n"),
        ("print(len(str(2**1000)), eval('((1))'))", "302 1\n"),
        ("import time\ntime.sleep(0.01)\nprint(time.time() > 1.7e9)", "True\n"),
        ("import random\nprint(0 <= random.random() < 1)", "True\n"),
        ("try:\n    1 / 0\nexcept ZeroDivisionError: print('caught')", "caught\n"),
    ],
)
def test_a_script_prints(sandbox, source, output):
    assert sandbox.run(Program(source)) == Outcome("ok", output)


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("open('x', 'w').write('mine')\nprint(open('x').read())", "mine\n"),
        ("import threading\nlock = threading.Lock()\nwith lock: print(1)", "1\n"),
        ("import ctypes\nprint(ctypes.CDLL(None).abs(-3))", "3\n"),
        ("import os\nprint(os.getcwd(), os.getuid(), os.path.exists('/dev/null'))", None),
        ("import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1)", "1\n"),
        ("import sys\nsys.setrecursionlimit(3000)\nprint(file=sys.stderr)\nprint(1)", "1\n"),
        ("import asyncio\nasync def f(): return 1\nprint(asyncio.run(f()))", "1\n"),
        ("import decimal, fractions, statistics, heapq, bisect\nprint(1)", "1\n"),
        ("import socket\na, b = socket.socketpair()\na.send(b'x')\nprint(b.recv(1))", "b'x'\n"),
        (
            "import sqlite3\nc = sqlite3.connect('x.db')\nc.execute('create table t(a)')\n"
            "c.execute('insert into t values (7)')\nc.commit()\nc.close()\n"
            "print(sqlite3.connect('x.db').execute('select a from t').fetchall())",
            "[(7,)]\n",
        ),
        (
            "import os, tempfile\nwith tempfile.NamedTemporaryFile() as f:\n"
            "    f.write(b'x')\n    f.flush()\n    os.fsync(f)\nos.sync()\nprint(1)",
            "1\n",
        ),
        (
            "import fcntl, mailbox\nf = open('x', 'w')\nfcntl.lockf(f, fcntl.LOCK_EX)\n"
            "m = mailbox.mbox('m')\nm.lock()\nm.add('From: a\\n\\nb')\nm.flush()\nprint(len(m))",
            "1\n",
        ),
        (
            "import os, shutil, threading\nr, w = os.pipe()\nos.set_blocking(r, False)\n"
            "os.set_inheritable(r, True)\ns = threading.Semaphore(1)\n"
            "print(s.acquire(timeout=1), s.acquire(timeout=0.01), os.isatty(1))\n"
            "open('a', 'w').write('x')\nshutil.copyfile('a', 'b')",
            "True False False\n",
        ),
        ("import atexit, resource\nprint(resource.getrlimit(resource.RLIMIT_CORE))", "(0, 0)\n"),
    ],
)
def test_bubblewrap_runs_all_of_python(bubblewrapped, source, output):
    assert bubblewrapped.run(Program(source)) == Outcome("ok", output or "/tmp 65534 True\n")


def test_values_keep_their_exact_types_and_order(sandbox):
    values = (
        None,
        True,
        0,
        -7,
        2.5,
        1e300,
        10**50,
        "ä\n\"'\\\0",
        [],
        [1, [2]],
        {},
        {"a": {"b": 1}},
    )
    outcome = call(sandbox, "return args[0]", *((value,) for value in values))
    assert outcome == Outcome("ok", values=values)
    assert [type(value) for value in outcome.values] == [type(value) for value in values]


def test_tuples_stay_tuples_on_the_way_in_and_become_lists_on_the_way_out(sandbox):
    outcome = call(sandbox, "return (args[0], {args[0]: 1}[(1, (2,))])", ((1, (2,)),))
    assert outcome.values == ([[1, [2]], 1],)


def test_cases_do_not_share_their_arguments(sandbox):
    shared = [1]
    outcome = call(sandbox, "args[0].append(2)\n    return args[0]", (shared,), (shared,))
    assert outcome.values == ([1, 2], [1, 2])
    assert shared == [1]


def test_arguments_reach_a_program_without_parsing(sandbox, monkeypatch):
    # programs run in threads, and before Python 3.13 two threads that parse at once can fail
    monkeypatch.setattr(ast, "parse", lambda *args, **kwargs: pytest.fail("parsed"))
    assert call(sandbox, "return args[0]", ({"a": (1, [2])},)).values == ({"a": [1, [2]]},)


def test_prints_of_a_called_function_are_discarded(sandbox):
    source = "print('7')\ndef f():\n    print('[\"value\", 8]\\n' * 10000)\n    return 9"
    assert sandbox.run(Program(source, "f", ((),))) == Outcome("ok", values=(9,))


@pytest.mark.parametrize(
    ("source", "function", "cases", "detail"),
    [
        ("def f(:", "f", ((),), ""),
        ("def f(): return 1", "g", ((),), "NameError"),
        ("def f(): return 1", "f", ((1,),), "TypeError"),
        ("def f(x): return x", "f", ((),), "TypeError"),
        ("f = 1", "f", ((),), "TypeError"),
        ("def f(): return 1 / 0", "f", ((),), "ZeroDivisionError: division by zero"),
        ("raise ValueError('why')", None, (), "ValueError: why"),
        ("raise SystemExit", None, (), "SystemExit"),
        ("assert 1 == 2", None, (), "AssertionError"),
        ("def f(x): return 1 / x", "f", ((1,), (0,), (2,)), "ZeroDivisionError"),
        ("def f(): return 1", "f()#", ((),), "not an identifier"),
        ("def f(): return 1", "f\n", ((),), "not an identifier"),
        ("def f(): return 1", "lambda", ((),), "not an identifier"),
        ("def f(): return 1\nx = [", "f", ((),), ""),
        ("def f(): return 1\nx = '''", "f", ((),), ""),
        ("def f(): return 1\nx = \\", "f", ((),), ""),
        ("print('\ud800')", None, (), "surrogates"),
    ],
)
def test_a_failing_program_gives_an_error_in_one_line(sandbox, source, function, cases, detail):
    outcome = sandbox.run(Program(source, function, cases))
    assert (outcome.status, outcome.values) == ("error", ())
    assert detail in outcome.detail
    assert len(outcome.detail.splitlines()) == 1


def test_too_much_output_is_cut_at_the_limit(sandbox):
    outcome = sandbox.run(Program("print('ä' * 10**5)"))
    assert outcome.status == "output"
    assert LIMITS.output_bytes - 4 < len(outcome.output.encode()) <= LIMITS.output_bytes + 3


def test_values_pass_up_to_the_size_limit(sandbox):
    assert call(sandbox, "return 'x' * 9900", ()).status == "ok"
    assert call(sandbox, "return 'x' * 10001", ()).status == "error"
    assert call(sandbox, "return 'x' * 6000", (), ()).status == "error"


def test_the_time_limit_covers_all_calls_together(sandbox):
    # each call takes more than a tenth of the limit, all of them far more than the limit
    outcome = call(sandbox, "return sum(i for i in range(10**6))", *[()] * 100)
    assert outcome.status == "timeout"


def test_run_all_returns_outcomes_in_order(sandbox):
    programs = [Program(f"print({i})") for i in range(8)]
    programs[5] = Program("while True: pass")
    outcomes = sandbox.run_all(programs)
    assert [o.output for o in outcomes] == ["" if i == 5 else f"{i}\n" for i in range(8)]
    assert outcomes[5].status == "timeout"
    assert sandbox.run_all([]) == []


def test_many_threads_share_a_sandbox(sandbox):
    def run(i):
        return call(sandbox, "return args[0] + 1", (i,)).values

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(run, range(12))) == [(i + 1,) for i in range(12)]


@pytest.mark.parametrize("kind", [MontySandbox, BubblewrapSandbox])
def test_copies_and_pickles_keep_the_settings(kind):
    sandbox = kind(LIMITS)
    for other in (copy.deepcopy(sandbox), pickle.loads(pickle.dumps(sandbox))):
        assert type(other) is kind
        assert other.limits == LIMITS


def test_a_used_sandbox_can_be_copied_closed_and_used_again(sandbox):
    other = copy.deepcopy(sandbox)
    for _ in range(2):
        assert other.run(Program("print(1)")).output == "1\n"
        other.close()
        other.close()


def holdings() -> tuple[int, int, int]:
    """Open files, threads and children of this process."""
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    return len(os.listdir("/proc/self/fd")), threading.active_count(), len(children)


def test_many_runs_leave_no_open_file_thread_or_process(sandbox):
    n = 300 if isinstance(sandbox, MontySandbox) else 9
    programs = [Program("print(1)"), Program("1 / 0"), Program("print('x' * 20000)")]
    sandbox.run_all(programs)
    before = holdings()
    sandbox.run_all(programs * (n // 3))
    assert holdings() == before


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Limits(seconds=0), "seconds"),
        (lambda: Limits(seconds=float("nan")), "seconds"),
        (lambda: Limits(seconds=float("inf")), "seconds"),
        (lambda: Limits(memory_mib=63), "memory_mib"),
        (lambda: Limits(output_bytes=0), "output_bytes"),
    ],
)
def test_an_impossible_limit_is_refused_by_its_key(make, key):
    with pytest.raises(ConfigError, match=f"^model.rewards.sandbox.*{key}: "):
        make()


@pytest.mark.parametrize("bad", [{1}, {1: 2}, float("nan"), b"x", object(), "\ud800"])
def test_arguments_that_are_not_plain_are_refused(bad):
    with pytest.raises(ValueError, match=r"."):
        Program("", "f", ((bad,),))


def test_cases_need_a_function():
    with pytest.raises(ValueError, match="function"):
        Program("", None, ((1,),))


def test_importing_sandbox_loads_neither_torch_nor_monty():
    code = (
        "import sys, lsp_lightning.sandbox as s\ns.MontySandbox(), s.BubblewrapSandbox()\n"
        "print({'torch', 'lightning', 'pydantic_monty'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_without_bubblewrap_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"not installed; install bubblewrap .*, or use the"):
        BubblewrapSandbox().prepare()


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ("bubblewrap 0.6.2", r"bubblewrap is version 0\.6\.2; install 0\.8 or later, or use the"),
        ("bubblewrap 0.7", r"bubblewrap is version 0\.7; install"),
        ("bubblewrap 0.10.0", "bubblewrap fails here"),  # only the version of this one is right
        ("something else", "bubblewrap fails here"),
    ],
)
def test_an_old_bubblewrap_is_refused_by_its_version(says, error, tmp_path, monkeypatch):
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\necho '{says}'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(bubblewrap, "supported", lambda: True)
    with pytest.raises(ConfigError, match=rf"^model\.rewards\.sandbox: {error}") as caught:
        BubblewrapSandbox().prepare()
    assert len(str(caught.value).splitlines()) == 1


def test_a_sandbox_that_fails_is_found_by_prepare(bubblewrapped, monkeypatch):
    monkeypatch.setattr(bubblewrap, "_libraries", lambda: ["--ro-bind", "/missing", "/missing"])
    with pytest.raises(ConfigError, match=r"bubblewrap fails here .*missing"):
        BubblewrapSandbox().prepare()
    with pytest.raises(SandboxError, match="missing"):
        bubblewrapped.run(Program("print(1)"))


def test_a_sandbox_that_shows_the_host_is_refused(bubblewrapped, monkeypatch):
    box = bubblewrap._box

    def open_box(rules, world):
        command = box(rules, world)
        place = command.index("--chdir")
        return [*command[:place], "--bind", "/tmp", "/tmp", *command[place:]]

    monkeypatch.setattr(bubblewrap, "_box", open_box)
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    with pytest.raises(ConfigError, match=r"allows reading .* host, writing files of the host;"):
        BubblewrapSandbox().prepare()


def test_a_sandbox_that_can_be_written_to_is_refused(bubblewrapped, monkeypatch):
    box = bubblewrap._box

    def open_box(rules, world):
        command = box(rules, world)
        place = command.index("--chdir")
        assert command[place - 2 : place] == ["--remount-ro", "/"]
        return [*command[: place - 2], *command[place:]]

    monkeypatch.setattr(bubblewrap, "_box", open_box)
    with pytest.raises(ConfigError, match="it allows writing beside the scratch folder"):
        BubblewrapSandbox().prepare()


def test_a_sandbox_without_the_seccomp_filter_is_refused(bubblewrapped, monkeypatch):
    box = bubblewrap._box
    monkeypatch.setattr(bubblewrap, "_box", lambda rules, world: box(rules, world)[:-2])
    with pytest.raises(ConfigError, match="it allows starting processes"):
        BubblewrapSandbox().prepare()


class Unsteady(MontySandbox):
    """A sandbox that fails itself for some programs."""

    def _run(self, program):
        if program.source.startswith("#"):
            raise SandboxError("no worker")
        return super()._run(program)


def test_a_failure_of_the_sandbox_affects_one_program_only():
    sandbox = Unsteady(LIMITS)
    programs = [Program("print(1)"), Program("# lost"), Program("print(2)")]
    outcomes = sandbox.run_all(programs)
    assert outcomes == [Outcome("ok", "1\n"), None, Outcome("ok", "2\n")]
    with pytest.raises(SandboxError, match="no worker"):
        sandbox.run_all([Program("# lost"), Program("# lost")])
    assert sandbox.run_all([]) == []
    sandbox.close()


def test_worlds_differ_in_seeds_and_each_repeats_its_own(sandbox):
    if isinstance(sandbox, MontySandbox):
        source = "import random, time\nprint(random.random(), time.time())"
    else:  # in bubblewrap, clock and random numbers are the host's
        source = "print([hash(c) for c in 'abc'])"
    prints = [sandbox.run(Program(source, world=world)).output for world in (0, 1, 2, 0, 1, 2)]
    assert prints[:3] == prints[3:]
    assert len({*prints}) == 3
