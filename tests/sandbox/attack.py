"""What an attack is: hostile source, how it may end, and what it must not get."""

from dataclasses import dataclass

#: Printed by an attack once its imports are done: one that never starts shows nothing.
STARTED = 'print("started", flush=True)'


@dataclass(frozen=True)
class Attack:
    """One hostile program.

    Args:
        name: unique.
        ends: statuses it may end with under bubblewrap, separated by spaces; empty: not run there.
        source: ``@NAME@`` stands for what the test offers as bait.
        monty: the same for Monty; empty where the source needs what Monty does not have.
        says: text that must be in the output under bubblewrap: the attempt failed as it should.
        function: called on no arguments, so that the attack is on the way back of values.
    """

    name: str
    ends: str
    source: str
    monty: str = ""
    says: str = ""
    function: str | None = None
