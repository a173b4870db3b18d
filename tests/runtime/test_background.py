"""The prefetcher: each call is made once, in its round, and its result is collected once."""

import pickle
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import Future

import pytest

from lsp_lightning.runtime import background
from lsp_lightning.runtime.background import Prefetcher


def wait_until_idle() -> None:
    """Wait until no thread makes calls any more."""
    while any(thread.name == "prefetch" for thread in threading.enumerate()):
        time.sleep(0.005)


def test_take_returns_results_once_and_leaves_out_failed_and_unknown_keys():
    prefetcher: Prefetcher[str, int] = Prefetcher(threads=2)
    calls = []
    for key in ("a", "bb", "a", "bb"):
        prefetcher.begin(key, lambda key=key: calls.append(key) or len(key))
    prefetcher.begin("zero", lambda: 1 // 0)
    wait_until_idle()
    assert [prefetcher.peek(key) for key in ("bb", "zero", "c")] == [2, None, None]
    assert prefetcher.take(["bb", "a", "bb", "zero", "c"]) == {"bb": 2, "a": 1}
    assert sorted(calls) == ["a", "bb"]
    assert prefetcher.take(["a"]) == {}


def test_take_waits_for_running_calls_and_drops_waiting_ones():
    prefetcher: Prefetcher[int, int] = Prefetcher(threads=1)
    gate: Future[int] = Future()
    calls = []
    prefetcher.begin(0, gate.result)
    while prefetcher.peek(0) is None and not prefetcher._begun:
        time.sleep(0.001)
    for k in (1, 2):
        prefetcher.begin(k, lambda k=k: calls.append(k) or k)
    threading.Timer(0.05, gate.set_result, [7]).start()
    assert prefetcher.take([2, 0]) == {0: 7}
    wait_until_idle()
    assert calls == []


def test_results_that_nobody_took_are_dropped_when_the_next_round_begins():
    prefetcher: Prefetcher[int, int] = Prefetcher(threads=1)
    for k in range(3):
        prefetcher.begin(k, lambda: 1)
        wait_until_idle()
    assert prefetcher.take([0]) == {0: 1}
    assert prefetcher.take([1]) == {1: 1}  # several takes belong to the same round
    prefetcher.begin(9, lambda: 9)
    wait_until_idle()
    assert prefetcher.take([2, 9]) == {9: 9}


def test_the_number_of_calls_is_limited_and_copies_start_empty(monkeypatch):
    monkeypatch.setattr(background, "_MAX_CALLS", 2)
    prefetcher: Prefetcher[int, int] = Prefetcher(threads=1, daemon=True)
    for k in range(5):
        prefetcher.begin(k, lambda k=k: k)
    wait_until_idle()
    copy = pickle.loads(pickle.dumps(prefetcher))
    assert copy._daemon
    assert copy.take(range(5)) == {}
    assert prefetcher.take(range(5)) == {0: 0, 1: 1}


@pytest.mark.parametrize("daemon", [False, True])
def test_close_waits_for_running_calls_unless_threads_are_daemons(daemon):
    prefetcher: Prefetcher[int, None] = Prefetcher(threads=1, daemon=daemon)
    begun, gate, ended = threading.Event(), threading.Event(), []

    def work() -> None:
        begun.set()
        gate.wait(20)
        ended.append(0)

    prefetcher.begin(0, work)
    prefetcher.begin(1, lambda: ended.append(1))
    begun.wait(20)
    timer = threading.Timer(0.1, gate.set)
    timer.start()
    prefetcher.close()
    assert ended == ([] if daemon else [0])
    timer.join()
    wait_until_idle()
    assert ended == [0]


def test_an_interrupted_program_does_not_make_the_waiting_calls():
    script = textwrap.dedent(
        """
        import threading, time
        from lsp_lightning.runtime.background import Prefetcher
        waits, abandons = Prefetcher(1), Prefetcher(1, daemon=True)
        for k in range(100):
            waits.begin(k, lambda: time.sleep(0.5))
            abandons.begin(k, lambda: time.sleep(60))
        time.sleep(0.1)
        print("sampling", flush=True)
        raise KeyboardInterrupt
        """
    )
    program = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout.readline() == "sampling\n"
    start = time.monotonic()
    _, errors = program.communicate(timeout=60)
    # all waiting calls would take 50 s, the abandoned one 60 s
    assert time.monotonic() - start < 15
    assert errors.rstrip().endswith("KeyboardInterrupt")
