"""The sandboxes under test, one of each for all tests: an attack must not harm the next run."""

import pytest
from boxes import require_bubblewrap

from lsp_lightning.sandbox import BubblewrapSandbox, Limits, MontySandbox, Sandbox, bubblewrap

#: Stands in the command line of every process of a box, so that survivors can be found.
MARKER = "box-of-the-tests"
LIMITS = Limits(seconds=0.6, memory_mib=128, output_bytes=10_000)


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
    """Each of the two."""
    return request.getfixturevalue(request.param)
