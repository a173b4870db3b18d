"""The results as Markdown."""

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import mean

from lsp_lightning.reproduce.arms import Arm, World
from lsp_lightning.reproduce.claims import FURTHER, MARGIN, PAPER, Decided, decide
from lsp_lightning.reproduce.figures import FEWEST, Interval, Row, compared

_SCORE = "sampled, unmet"
#: Columns of the first table: head, figure, digits.
_COLUMNS = (
    ("sampled", "sampled", 3),
    ("sampled, unmet tasks", _SCORE, 3),
    ("tasks met", "tasks met", 0),
    ("greedy", "greedy", 3),
    ("pass@8", "pass@8", 3),
)
_GAME = (
    ("malformed", "queries, malformed", 2),
    ("distinct", "queries, distinct", 2),
    ("level", "queries, level", 2),
    ("family entropy", "queries, family_entropy", 2),
    ("KL, Solver", "KL, Solver", 2),
    ("KL, Challenger", "KL, Challenger", 2),
)
_LEVELS = tuple((f"level {level}", f"level {level}", 3) for level in (1, 2, 3))
#: Arms that the others are compared with.
_PEERS = ("base", "grpo", "lsp")

Rows = Mapping[str, Mapping[int, Row]]
Column = tuple[str, Callable[[Arm], str]]


def markdown(world: World, rounds: int, rows: Rows) -> str:
    """All tables, with how to read them."""
    main = [arm for arm in world.arms if arm.changes is None and arm.name in rows]
    ablations = [arm for arm in world.arms if arm.changes is not None and arm.name in rows]
    parts = [_introduction(world, rounds)]
    parts += ["## Claims of the paper", _CLAIMS, _claims(world, decide(PAPER, rows), True)]
    parts += ["## Further questions", _claims(world, decide(FURTHER, rows), False)]
    parts += ["## Scores", _table(main, [_seeds(rows), *_columns(rows, _COLUMNS)])]
    parts += ["## Differences", _DIFFERENCES, _table(main, _differences(world, rows))]
    parts += ["## Levels and queries", _QUERIES]
    parts += [_table(main, [*_columns(rows, _LEVELS), *_columns(rows, _GAME), _time(rows)])]
    if any(row.curve() for arm in main for row in rows[arm.name].values()):
        parts += ["## Sharpening or new skill", _CURVE.format(every=world.curve_every)]
        parts += [_table(main, _curves(world, rows))]
    if ablations:
        parts += ["## One change at a time", _ABLATIONS]
        parts += [_table(ablations, _changed(world, rows))]
    return "\n\n".join(parts) + "\n"


_CLAIMS = (
    "The paper's figures are win rates in percent on 805 prompts (one standard error: 1.7), of "
    "version 3 and version 1, which have other judges. Ours are shares of tasks solved, so only "
    "the direction of a difference can be compared. *Seen here*: the whole interval is on the "
    f"claimed side; *as good as* allows {MARGIN:g}. *Not seen*: it is wholly on the other side. "
    "Each verdict is about one interval: among twenty, one is wrong by chance. With one seed the "
    "interval is over the tasks and decides nothing: another run may differ more."
)
_DIFFERENCES = (
    "Sampled score of the arm minus that of another one with the same seed, on the tasks that "
    "neither has met. *Its control* is the arm that goes on with its first stage (see the labels). "
    "With one seed the interval is over the tasks: it leaves out how much runs differ."
)
_QUERIES = (
    "Share solved of the unmet tasks of each level; then the queries that the trained policy "
    "writes as the Challenger; then the KL to the reference in nats a completion, in the last ten "
    "rounds (a second stage has the end of the first as its reference)."
)
_CURVE = (
    "pass@k of every {every}th task from 64 answers. Training that only makes sure what the base "
    "does sometimes raises pass@1 and leaves pass@64 as it was."
)
_ABLATIONS = (
    "Each differs in one setting from the arm in the second column. With two seeds both values "
    "stand in place of an interval."
)


def _introduction(world: World, rounds: int) -> str:
    return (
        f"# Comparison in the world {world.name}\n\n{rounds} rounds a stage. Cells are means over "
        "n seeds with 95 % t-intervals over the seeds: how another run would differ, on the same "
        "tasks and the same base. *Unmet tasks* are those that the run's Challenger did not happen "
        "to write."
    )


def cell(found: Interval, digits: int = 3, sign: str = "") -> str:
    """A mean with its interval, as ``0.874 [0.866, 0.882]``; "-" if nothing is known.

    With two seeds their values take its place, as ``0.874 (0.870, 0.878)``.
    """
    if math.isnan(found.mean):
        return "-"
    style = f"z{sign}.{digits}f" if not sign else f"{sign}z.{digits}f"
    text = f"{found.mean:{style}}"
    if math.isnan(found.half):
        return text
    if 1 < len(found.values) < FEWEST:
        return f"{text} ({', '.join(f'{value:{style}}' for value in found.values)})"
    return f"{text} [{found.low:{style}}, {found.high:{style}}]"


def _table(arms: Sequence[Arm], columns: Sequence[Column]) -> str:
    """A table with a row for each arm, without columns that are empty for all of them."""
    cells = {head: [text(arm) for arm in arms] for head, text in columns}
    shown = {head: texts for head, texts in cells.items() if set(texts) != {"-"}}
    lines = [f"| arm | {' | '.join(shown)} |", "|---" * (len(shown) + 1) + "|"]
    for i, arm in enumerate(arms):
        lines.append(f"| {arm.label} | {' | '.join(texts[i] for texts in shown.values())} |")
    return "\n".join(lines)


def _seeds(rows: Rows) -> Column:
    return "n", lambda arm: str(len(rows[arm.name]))


def _time(rows: Rows) -> Column:
    def text(arm: Arm) -> str:
        # without an interval: it says more about the machine
        values = [row.seconds for row in rows[arm.name].values()]
        return f"{mean(values):.0f}" if arm.stages else "-"

    return "seconds", text


def _columns(rows: Rows, columns: Sequence[tuple[str, str, int]]) -> list[Column]:
    def of(figure: str, digits: int) -> Callable[[Arm], str]:
        def text(arm: Arm) -> str:
            found = [row.figures().get(figure, math.nan) for row in rows[arm.name].values()]
            return cell(Interval.of(found), digits)

        return text

    return [(head, of(figure, digits)) for head, figure, digits in columns]


def _gain(rows: Rows, peer: Callable[[Arm], str | None], figure: str) -> Callable[[Arm], str]:
    """The difference of an arm to another one."""

    def text(arm: Arm) -> str:
        other = peer(arm)
        if other is None or other == arm.name or other not in rows:
            return "-"
        return cell(compared(rows[arm.name], rows[other], figure), 3, "+")

    return text


def _differences(world: World, rows: Rows) -> list[Column]:
    columns: list[Column] = [_seeds(rows)]
    for peer in filter(rows.__contains__, _PEERS):
        to_peer = _gain(rows, lambda arm, peer=peer: peer, _SCORE)  # type: ignore[misc]
        columns.append((f"minus {world.arm(peer).label}", to_peer))
    return [*columns, ("minus its control", _gain(rows, lambda arm: arm.control, _SCORE))]


def _curves(world: World, rows: Rows) -> list[Column]:
    def at(k: int) -> Callable[[Arm], str]:
        return lambda arm: cell(
            Interval.of([row.curve().get(k, math.nan) for row in rows[arm.name].values()])
        )

    ks = [k for k in (1, 4, 16, 64) if k <= world.curve_draws]
    last = _gain(rows, lambda arm: "base", f"curve@{ks[-1]}")
    return [*((f"pass@{k}", at(k)) for k in ks), (f"pass@{ks[-1]} minus base", last)]


def _changed(world: World, rows: Rows) -> list[Column]:
    def parent(arm: Arm) -> str | None:
        return arm.changes

    return [
        ("changes", lambda arm: world.arm(parent(arm) or "").label),
        ("about", lambda arm: arm.about),
        _seeds(rows),
        *_columns(rows, [_COLUMNS[1], _COLUMNS[3]]),
        ("minus the unchanged arm", _gain(rows, parent, _SCORE)),
        *_columns(rows, _GAME),
    ]


def _claims(world: World, decided: Sequence[Decided], paper: bool) -> str:
    heads = ["claim", *(["paper, v3", "paper, v1"] if paper else []), "here", "difference", "n"]
    lines = [f"| {' | '.join([*heads, 'verdict'])} |", "|---" * (len(heads) + 1) + "|"]
    if not decided:
        return "The arms that these are about have not been measured."
    for found in decided:
        claim = found.claim
        here = f"{world.arm(claim.arm).label} minus {world.arm(claim.other).label}"
        if claim.figure != _SCORE:
            here += f" ({claim.figure.replace('curve@', 'pass@')})"
        texts = [claim.says, *([claim.v3, claim.v1] if paper else []), here]
        texts += [cell(found.found, 3, "+"), str(found.found.n), found.verdict]
        lines.append(f"| {' | '.join(texts)} |")
    return "\n".join(lines)
