"""The results as one page of plots that needs no network."""

from collections.abc import Callable, Mapping, Sequence

import plotly.graph_objects as go
import plotly.io

from lsp_lightning.reproduce.arms import Arm, World
from lsp_lightning.reproduce.figures import FEWEST, Interval, Row

#: Colours that stay apart for most kinds of colour blindness (Okabe and Ito), then repeated dashed.
_COLOURS = ("#000000", "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
#: Arms that are drawn at first; a click on the legend shows the others.
_FIRST = {"base", "random", "grpo", "few", "zero", "paper", "lsp"}
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:">
<style>body {{ font: 16px sans-serif; max-width: 70em; margin: 2em auto; padding: 0 1em }}</style>
</head><body><h1>{title}</h1>
<p>Means over seeds, with 95 % t-intervals over the seeds; final scores have one from three seeds
on. Click an arm in a legend to show or hide it; double-click to show it alone.</p>
{figures}
</body></html>
"""

Rows = Mapping[str, Mapping[int, Row]]
Points = Sequence[tuple[float, float]]


def page(world: World, rounds: int, rows: Rows) -> str:
    """The page as HTML: curves over the rounds, final scores, queries, pass@k."""
    arms = [arm for arm in world.arms if arm.name in rows]
    main = [arm for arm in arms if arm.changes is None]
    figures = [
        _scores("Final scores on unmet tasks, sampled", arms, rows),
        _lines("Held-out tasks for choosing settings", "share solved", main, rows, _heldout),
        _lines("Queries without a right answer", "share", main, rows, _game("malformed")),
        _lines("Level of the queries", "level", main, rows, _game("level")),
        _lines("pass@k", "share solved", main, rows, lambda row: list(row.curve().items()), "k"),
    ]
    drawn = [figure for figure in figures if figure.data]
    parts = [
        plotly.io.to_html(
            figure,
            include_plotlyjs=i == 0,
            full_html=False,
            div_id=f"figure-{i}",
            config={"displaylogo": False},
        )
        for i, figure in enumerate(drawn)
    ]
    title = f"Comparison in the world {world.name}, {rounds} rounds a stage"
    return _PAGE.format(title=title, figures="\n".join(parts))


def _scores(title: str, arms: Sequence[Arm], rows: Rows) -> go.Figure:
    """A dot for each seed, and the mean of each arm with its interval."""
    seeds = {
        arm.label: [row.figures()["sampled, unmet"] for row in rows[arm.name].values()]
        for arm in arms
    }
    found = [Interval.of(values) for values in seeds.values()]
    dots = go.Scatter(
        x=[value for values in seeds.values() for value in values],
        y=[label for label, values in seeds.items() for _ in values],
        name="seeds",
        mode="markers",
        marker={"color": _COLOURS[2], "size": 5, "opacity": 0.5},
        hoverinfo="skip",
    )
    means = go.Scatter(
        x=[interval.mean for interval in found],
        y=list(seeds),
        error_x={"array": [i.half if i.n >= FEWEST else None for i in found]},
        name="mean",
        mode="markers",
        marker={"color": _COLOURS[1], "size": 9},
        text=[f"{arm.about} (n = {i.n})" for arm, i in zip(arms, found, strict=True)],
    )
    figure = go.Figure([means, dots])
    figure.update_yaxes(autorange="reversed")
    height = 160 + 24 * len(arms)
    return figure.update_layout(
        title=title, xaxis_title="share solved", height=height, template="simple_white"
    )


def _lines(
    title: str,
    label: str,
    arms: Sequence[Arm],
    rows: Rows,
    points: Callable[[Row], Points],
    over: str = "round",
) -> go.Figure:
    """A line with a band for each arm that has points."""
    figure = go.Figure()
    numbers = {arm.name: i for i, arm in enumerate(sorted(arms, key=_is_later))}
    for arm in arms:
        values: dict[float, list[float]] = {}
        for row in rows[arm.name].values():
            for x, y in points(row):
                values.setdefault(x, []).append(y)
        if values:
            known = [(x, Interval.of(ys)) for x, ys in sorted(values.items())]
            figure.add_traces(_band(arm, known, numbers[arm.name]))
    figure.update_layout(
        title=title, xaxis_title=over, yaxis_title=label, height=480, template="simple_white"
    )
    if over == "k":
        figure.update_xaxes(type="log", tickvals=[2**i for i in range(10)])
    return figure


def _is_later(arm: Arm) -> bool:
    """Whether an arm is not drawn at first, so that those that are have plain colours."""
    return arm.name not in _FIRST


def _band(arm: Arm, known: Sequence[tuple[float, Interval]], number: int) -> list[go.Scatter]:
    """The mean, and the area between both ends of its intervals."""
    colour = _COLOURS[number % len(_COLOURS)]
    dash = _DASHES[number // len(_COLOURS) % len(_DASHES)]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    shared = {
        "legendgroup": arm.name,
        "visible": True if arm.name in _FIRST else "legendonly",
    }
    lines = [
        go.Scatter(
            x=[x for x, _ in known],
            y=[interval.mean for _, interval in known],
            name=arm.label,
            line={"color": colour, "dash": dash},
            **shared,
        )
    ]
    ends = [(x, interval) for x, interval in known if interval.n > 1]
    if ends:
        around = [(x, i.high) for x, i in ends] + [(x, i.low) for x, i in reversed(ends)]
        lines.append(
            go.Scatter(
                x=[x for x, _ in around],
                y=[y for _, y in around],
                fill="toself",
                fillcolor=f"rgba({red},{green},{blue},0.12)",
                line={"width": 0},
                mode="lines",
                hoverinfo="skip",
                showlegend=False,
                **shared,
            )
        )
    return lines


def _heldout(row: Row) -> Points:
    return row.heldout


def _game(name: str) -> Callable[[Row], Points]:
    return lambda row: [(end, figures[name]) for end, figures in row.game if name in figures]
