"""The seccomp filter, run by a small BPF interpreter as the kernel would run it."""

import struct

import pytest

from lsp_lightning.sandbox.seccomp import (
    ALLOW,
    ARCHITECTURES,
    BY_ARGUMENT,
    DENIED,
    EPERM,
    KILL,
    PRETENDED,
    seccomp_filter,
)

ENOTTY, ENOSYS, SUCCESS = 0x50019, 0x50026, 0x50000
READ = {"x86_64": 0, "aarch64": 63}


def answer(machine: str, number: int, *arguments: int, architecture: int | None = None) -> int:
    """The filter's decision on one system call."""
    architecture = architecture or ARCHITECTURES[machine][0]
    data = struct.pack("=IIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    program = list(struct.iter_unpack("=HBBI", seccomp_filter(machine)))
    at = loaded = 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            loaded &= value
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value}[code]
            at += if_true if holds else if_false


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_filter_allows_read_and_refuses_the_denied_calls(machine):
    assert answer(machine, READ[machine]) == ALLOW
    assert answer(machine, 457) == answer(machine, 9999) == ENOSYS
    numbers = [pair[ARCHITECTURES[machine][1]] for pair in DENIED.values()]
    assert {answer(machine, n) for n in numbers if n is not None} == {EPERM}
    pretended = [pair[ARCHITECTURES[machine][1]] for pair in PRETENDED.values()]
    assert {answer(machine, n) for n in pretended} == {SUCCESS}


@pytest.mark.parametrize("machine", ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "arguments", "decision"),
    [
        ("fcntl", (3, 3), ALLOW),  # F_GETFL
        ("fcntl", (3, 1030), ALLOW),  # F_DUPFD_CLOEXEC
        ("fcntl", (3, 6), SUCCESS),  # F_SETLK
        ("fcntl", (3, 7), SUCCESS),  # F_SETLKW
        ("fcntl", (3, 37), EPERM),  # F_OFD_SETLK
        ("fcntl", (3, 1024), EPERM),  # F_SETLEASE
        ("fcntl", (3, 1031), EPERM),  # F_SETPIPE_SZ
        ("fcntl", (3, 3 + 2**32), ALLOW),  # the kernel reads 32 bits
        ("fcntl", (3, 1024 + 2**32), EPERM),
        ("fcntl", (3, 9999), EPERM),
        ("ioctl", (3, 0x5421), ALLOW),  # FIONBIO
        ("ioctl", (3, 0x5412), ENOTTY),  # TIOCSTI
        ("futex", (0, 128), ALLOW),
        ("futex", (0, 128 | 9 | 256), ALLOW),  # what threading.Lock uses
        ("futex", (0, 9 | 256), EPERM),
        ("futex", (128, 1), EPERM),
        ("socketpair", (1, 1), ALLOW),
        ("socketpair", (40, 1), EPERM),
    ],
)
def test_some_calls_are_decided_by_an_argument(machine, name, arguments, decision):
    number = BY_ARGUMENT[name].numbers[ARCHITECTURES[machine][1]]
    assert answer(machine, number, *arguments) == decision


@pytest.mark.parametrize("column", [0, 1])
def test_no_number_is_in_the_tables_twice(column):
    rules = (rule.numbers for rule in BY_ARGUMENT.values())
    numbers = [pair[column] for pair in (*DENIED.values(), *PRETENDED.values(), *rules)]
    found = [number for number in numbers if number is not None]
    assert len(set(found)) == len(found)
    assert max(found) < 457


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_calls_of_another_architecture_kill_the_process(machine):
    assert answer(machine, READ[machine], architecture=0x40000003) == KILL
    assert answer(machine, 0x40000000 + READ[machine]) == KILL
    assert answer(machine, 0xFFFFFFFF) == KILL
