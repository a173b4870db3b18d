"""One sandbox of each kind for all tests, because an attack must not affect the next run."""

import os

import pytest
from boxes import require_bubblewrap

from lsp_lightning.sandbox import BubblewrapSandbox, Limits, MontySandbox, Sandbox, bubblewrap

#: Part of the command line of every process that these tests sandbox, to find survivors.
MARKER = f"sandbox-of-the-tests-{os.getpid()}"
LIMITS = Limits(seconds=1.0, memory_mib=128, output_bytes=10_000)


@pytest.fixture(scope="session")
def bubblewrapped() -> Sandbox:
    """A bubblewrap sandbox whose processes carry the marker."""
    require_bubblewrap()
    with pytest.MonkeyPatch.context() as patch:
        command = bubblewrap._interpreter()
        patch.setattr(bubblewrap, "_interpreter", lambda: [*command, MARKER])
        sandbox = BubblewrapSandbox(LIMITS)
        yield sandbox
        sandbox.close()


@pytest.fixture(scope="session")
def montied() -> Sandbox:
    """A Monty sandbox."""
    sandbox = MontySandbox(LIMITS)
    yield sandbox
    sandbox.close()


@pytest.fixture(params=["montied", "bubblewrapped"])
def sandbox(request) -> Sandbox:
    """Each kind of sandbox."""
    return request.getfixturevalue(request.param)
