"""The worker pool: order of replies, limits, killed workers, copies and threads."""

import copy
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lsp_lightning.runtime.workers import LineWorkers, WorkersError

ODD = textwrap.dedent(
    '''
    """A worker that fails in every way it is asked to."""
    import os, sys, time
    from lsp_lightning.runtime import workers

    workers._GRACE_SECONDS = 0.5

    def handle(request):
        if request == "pid": return os.getpid()
        if request == "sleep": time.sleep(60)
        if request == "busy": return len(str(9 ** 9 ** 9))  # one C call, no Python thread runs
        if request == "exit": os._exit(3)
        if request == "raise": raise ValueError("bad")
        if request == "memory": return len(bytearray(2 ** 30))
        if request == "garbage": os.write(replies, b"no json\\n"); time.sleep(60)
        if request == "half": os.write(replies, b"12"); os._exit(0)
        if request == "print": print("5"); print("6", file=sys.stderr); return "printed"
        if request == "unserializable": return object()
        return request

    replies = 3  # the file descriptor that serve writes replies to
    workers.serve(handle)
    '''
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder on the workers' path with odd.py, and two modules that never call serve."""
    folder = tmp_path_factory.mktemp("modules")
    (folder / "odd.py").write_text(ODD)
    (folder / "broken.py").write_text("raise ImportError('no such luck')\n")
    (folder / "chatty.py").write_text("print('hello')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        yield folder


@pytest.fixture(scope="module")
def pool(folder):
    pool = LineWorkers("odd", processes=2, memory=2**29)
    yield pool
    pool.close()


def test_replies_come_in_order_for_any_json(pool):
    requests = [1, "two", None, [3.5, {"k": "\ud800\0\u202e"}], "x" * 1_000_000, *range(50)]
    assert pool.map(requests, 20) == requests


def test_no_requests_no_replies_no_processes(folder):
    assert LineWorkers("broken").map([], 1) == []


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit memory")
def test_a_request_over_the_memory_limit_is_none(pool):
    assert pool.map([1, "memory", 2], 10) == [1, None, 2]


@pytest.mark.parametrize("request_", ["sleep", "exit", "raise", "unserializable"])
def test_a_failing_request_is_none_and_does_not_affect_others(pool, request_):
    assert pool.map([1, request_, 2, 3], 0.5) == [1, None, 2, 3]


@pytest.mark.parametrize("request_", ["garbage", "half"])
def test_an_invalid_reply_is_none(pool, request_):
    assert pool.map([1, request_, 2], 2) == [1, None, 2]


def test_one_long_c_call_is_killed_at_its_limit(pool):
    pool.map([0, 0], 20)
    start = time.monotonic()
    assert pool.map(["busy"], 0.3) == [None]
    assert time.monotonic() - start < 2


def test_prints_are_discarded(pool):
    assert pool.map(["print", 1], 10) == ["printed", 1]


def test_a_worker_that_died_between_requests_is_replaced(pool):
    for pid in set(pool.map(["pid", "pid"], 10)):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    assert pool.map([1, 2, 3], 10) == [1, 2, 3]


def test_starting_a_worker_does_not_count_as_time_of_its_request(folder):
    (folder / "slow.py").write_text(
        "import time\nfrom lsp_lightning.runtime.workers import serve\n"
        "time.sleep(0.6)\nserve(lambda r: r)\n"
    )
    pool = LineWorkers("slow", processes=1)
    assert pool.map([1], 0.5) == [1]
    pool.close()


@pytest.mark.parametrize(
    ("module", "cause"),
    [("broken", "no such luck"), ("chatty", "hello"), ("not_there_at_all", "not_there_at_all")],
)
def test_workers_that_do_not_start_say_why(folder, module, cause):
    pool = LineWorkers(module)
    for _ in range(2):  # the pool is not stuck afterwards
        with pytest.raises(WorkersError, match=cause):
            pool.map([1, 2, 3], 1)


def test_copies_and_pickles_hold_settings_only(pool):
    assert pool.map([1], 10) == [1]
    for twin in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool))):
        assert (twin.module, twin.processes, twin.memory) == ("odd", 2, 2**29)
        assert twin.map([2], 10) == [2]
        assert twin.map(["pid"], 10) != pool.map(["pid"], 10)
        twin.close()


def test_many_threads_share_the_pool(pool):
    with ThreadPoolExecutor(6) as threads:
        replies = list(threads.map(lambda i: pool.map([i, "exit" if i == 3 else -i], 20), range(6)))
    assert replies == [[i, None if i == 3 else -i] for i in range(6)]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")  # an orphan may stay a zombie for ever
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"


def _ends_within(pid: int, seconds: float) -> bool:
    limit = time.monotonic() + seconds
    while _is_running(pid) and time.monotonic() < limit:
        time.sleep(0.05)
    return not _is_running(pid)


def test_close_and_garbage_collection_end_the_workers(folder):
    pool = LineWorkers("odd", processes=1)
    (first,) = pool.map(["pid"], 10)
    pool.close()
    assert _ends_within(first, 5)
    (second,) = pool.map(["pid"], 10)  # a closed pool starts again
    del pool
    assert _ends_within(second, 5)


@pytest.mark.parametrize("last", ["1", "'busy'"])
def test_no_worker_outlives_its_parent(folder, last):
    # the parent is killed while its worker is idle, or inside of one C call
    script = (
        "import threading, time\nfrom lsp_lightning.runtime.workers import LineWorkers\n"
        "pool = LineWorkers('odd', processes=1)\nprint(*pool.map(['pid'], 10), flush=True)\n"
        f"threading.Thread(target=pool.map, args=([{last}], 0.8)).start()\n"
        "time.sleep(0.3)\nprint('killed', flush=True)\ntime.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    assert parent.stdout.readline() == "killed\n"
    parent.kill()
    parent.communicate()
    assert _ends_within(worker, 6)
