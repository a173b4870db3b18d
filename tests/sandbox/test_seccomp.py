"""The seccomp filter, run by a small BPF interpreter as the kernel would run it."""

import struct

import pytest

from lsp_lightning.sandbox.seccomp import ALLOW, ARCHITECTURES, DENIED, EPERM, KILL, seccomp_filter

ENOSYS = 0x50026
READ = {"x86_64": 0, "aarch64": 63}


def answer(machine: str, number: int, architecture: int | None = None) -> int:
    """The filter's decision on one system call."""
    data = struct.pack("=IIQ6Q", number, architecture or ARCHITECTURES[machine][0], 0, *[0] * 6)
    program = list(struct.iter_unpack("=HBBI", seccomp_filter(machine)))
    at = loaded = 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        if code == 0x06:
            return value
        if code == 0x20:
            (loaded,) = struct.unpack_from("=I", data, value)
        else:
            holds = {0x15: loaded == value, 0x35: loaded >= value}[code]
            at += if_true if holds else if_false


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_the_filter_allows_read_and_refuses_the_denied_calls(machine):
    assert answer(machine, READ[machine]) == ALLOW
    assert answer(machine, 457) == answer(machine, 9999) == ENOSYS
    numbers = [pair[ARCHITECTURES[machine][1]] for pair in DENIED.values()]
    assert {answer(machine, n) for n in numbers if n is not None} == {EPERM}


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_calls_of_another_architecture_kill_the_process(machine):
    assert answer(machine, READ[machine], architecture=0x40000003) == KILL
    assert answer(machine, 0x40000000 + READ[machine]) == KILL
    assert answer(machine, 0xFFFFFFFF) == KILL
