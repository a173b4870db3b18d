"""Every attack fails: it gets nothing, leaves nothing behind, and the next program runs."""

import os
import socket
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from lsp_lightning.sandbox import Program, Sandbox
from sandbox.attack import Attack
from sandbox.attacks_reach import REACH
from sandbox.attacks_resources import RESOURCES
from sandbox.attacks_shared import SHARED
from sandbox.attacks_values import BACK
from sandbox.conftest import LIMITS, MARKER

ATTACKS = RESOURCES + REACH + SHARED + BACK
SECRET = "the-secret-of-the-host"
#: With the process id, because other test runs on this machine would take the same name.
UNIX_NAME = f"host-of-the-tests-{os.getpid()}"
#: Seconds over the time limit that a program may take on a busy machine.
OVER = 1.5


class Bait:
    """What attacks try to reach: a secret file, a secret variable, services, a place to write."""

    def __init__(self, folder: Path) -> None:
        self.secret = folder / "secret"
        self.secret.write_text(SECRET)
        self.target = folder / "target"
        self.folder = folder
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.unix.bind(str(folder / "unix"))
        self.abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.abstract.bind(f"\0{UNIX_NAME}")
        for service in (self.tcp, self.unix, self.abstract):
            service.setblocking(False)

    def fill(self, source: str) -> str:
        """The source with the names replaced by what they stand for."""
        for name, value in {
            "@SECRET_FILE@": str(self.secret),
            "@TARGET@": str(self.target),
            "@PROJECT@": str(Path(__file__).parents[2]),
            "@UNIX_PATH@": str(self.folder / "unix"),
            "@UNIX_NAME@": UNIX_NAME,
        }.items():
            source = source.replace(name, repr(value))
        source = source.replace("@SECRET_NAME@", "SECRET_OF_THE_HOST")
        source = source.replace("@PORT@", str(self.tcp.getsockname()[1]))
        return source.replace("@PID@", str(os.getpid()))

    def check_untouched(self) -> None:
        """Assert that nothing connected, sent, wrote or changed anything."""
        with pytest.raises(BlockingIOError):
            self.tcp.accept()
        for service in (self.unix, self.abstract):
            with pytest.raises(BlockingIOError):
                service.recv(1)
        assert self.secret.read_text() == SECRET
        assert sorted(p.name for p in self.folder.iterdir()) == ["secret", "unix"]

    def close(self) -> None:
        """Close the services."""
        for service in (self.tcp, self.unix, self.abstract):
            service.close()


@pytest.fixture(scope="module")
def bait(tmp_path_factory):
    bait = Bait(tmp_path_factory.mktemp("host"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_OF_THE_HOST", SECRET)
        yield bait
    bait.close()


def survivors() -> list[str]:
    """Processes with the marker, and zombie children of this process."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and MARKER.encode() in (entry / "cmdline").read_bytes():
                found.append(entry.name)
            elif entry.name.isdigit():
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                found += [entry.name] if state == "Z" and int(parent) == os.getpid() else []
        except OSError:
            continue  # the process has just ended
    return found


def check_nobody_survives() -> None:
    """Assert that no process survives; the kernel takes a moment to end a namespace."""
    deadline = time.monotonic() + 3
    while survivors() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert survivors() == []


def timed(sandbox: Sandbox, program: Program):
    """The outcome of a program, which must end within the time limit."""
    start = time.monotonic()
    outcome = sandbox.run(program)
    assert time.monotonic() - start < LIMITS.seconds + OVER
    return outcome


def check_harmless_program(sandbox: Sandbox) -> None:
    """Assert that a harmless program gets the right result."""
    program = Program("def double(x):\n    return x * 2", "double", ((21,), ("a",), ([1],)))
    outcome = timed(sandbox, program)
    assert (outcome.status, outcome.values) == ("ok", (42, "aa", [1, 1]))


def check(attack: Attack, sandbox: Sandbox, ends: str, says: str, bait: Bait) -> None:
    """Run one attack. That the next program runs is shown by the next attack, which must start."""
    # less time for what only its end stops
    seconds = 0.4 if ends == "timeout" else LIMITS.seconds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sandbox, "limits", replace(LIMITS, seconds=seconds))
        attempt(attack, sandbox, bait.fill(attack.source), ends, says)
    bait.check_untouched()
    check_nobody_survives()


def attempt(attack: Attack, sandbox: Sandbox, source: str, ends: str, says: str) -> None:
    # the output of a called function is discarded, so a run without one shows that it starts
    alone = Program(source if attack.function is None else f"{source}\n{attack.function}()")
    for _ in range(3):  # on a busy machine the time may be over before it starts
        outcome = timed(sandbox, alone)
        if "started" in outcome.output:
            break
    assert "started" in outcome.output, f"never started: {outcome}"
    assert says in outcome.output
    printed = outcome.output
    if attack.function is not None:
        outcome = timed(sandbox, Program(source, attack.function, ((),)))
        assert outcome.output == ""
    assert outcome.status in ends.split(), outcome
    assert len(outcome.values) == (outcome.status == "ok" and attack.function is not None)
    assert len(printed.encode()) <= LIMITS.output_bytes
    assert SECRET not in f"{outcome}{printed}"
    assert "REACHED" not in printed
    assert outcome.detail.isprintable()
    assert len(outcome.detail) <= 200


def named(attacks: list[Attack]) -> list:
    return [pytest.param(attack, id=attack.name.replace(" ", "-")) for attack in attacks]


@pytest.mark.parametrize("attack", named([a for a in ATTACKS if a.ends]))
def test_bubblewrap_withstands(attack, bubblewrapped, bait):
    check(attack, bubblewrapped, attack.ends, attack.says, bait)


@pytest.mark.parametrize("attack", named([a for a in ATTACKS if a.monty]))
def test_monty_withstands(attack, montied, bait):
    check(attack, montied, attack.monty, "", bait)
    check_harmless_program(montied)  # its workers outlive a program


def test_after_all_attacks_a_program_gets_the_right_result(bubblewrapped):
    check_harmless_program(bubblewrapped)


def test_sandboxes_do_not_see_each_others_locks(bubblewrapped):
    source = (
        "import fcntl, os, time\nnull = os.open(os.devnull, os.O_RDWR)\n"
        "library = os.open(os.__file__, os.O_RDONLY)\n"
        "fcntl.lockf(null, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "fcntl.lockf(library, fcntl.LOCK_SH | fcntl.LOCK_NB)\ntime.sleep(0.3)\nprint(1)"
    )
    outcomes = bubblewrapped.run_all([Program(source), Program(source)])
    assert [outcome.output for outcome in outcomes] == ["1\n", "1\n"]


def test_there_are_many_different_attacks():
    assert max(Counter(attack.name for attack in ATTACKS).values()) == 1
    assert sum(bool(attack.ends) for attack in ATTACKS) >= 100
    assert sum(bool(attack.monty) for attack in ATTACKS) >= 40


def test_each_run_has_an_empty_scratch_folder_and_fresh_modules(sandbox):
    sandbox.run(Program("import json\njson.marked = 1\nopen('dropped', 'w').write('x')"))
    name = "bubblewrapped" if "Bubblewrap" in type(sandbox).__name__ else "montied"
    look = "import json\nprint(hasattr(json, 'marked'))"
    if name == "bubblewrapped":
        look += "\nimport os\nprint(os.listdir('/tmp'))"
    assert sandbox.run(Program(look)).output in {"False\n[]\n", "False\n"}
