"""An attack: a hostile program, and how it may end."""

from dataclasses import dataclass

#: Printed by an attack after its imports, to show that the attack itself has started.
STARTED = 'print("started", flush=True)'


@dataclass(frozen=True)
class Attack:
    """One hostile program.

    Args:
        name: unique name.
        ends: allowed statuses in bubblewrap, separated by spaces; empty: do not run it there.
        source: Python text; ``@NAME@`` stands for something of the host that the test offers.
        monty: allowed statuses in Monty; empty if Monty lacks what the source needs.
        says: text that must be in the output in bubblewrap; it shows that the attempt failed.
        function: called without arguments; used to attack the return of values.
    """

    name: str
    ends: str
    source: str
    monty: str = ""
    says: str = ""
    function: str | None = None
