"""Curves of the long runs on the tiny world, as a picture.

python -m benchmarks.tiny_long_plot docs/images/thousand-rounds.png

Draws the rows of tiny_long.json: means over the seeds, a point for every hundred rounds. Needs
Chromium and its driver (Debian: chromium, chromium-driver).
"""

import argparse
import tempfile
from pathlib import Path
from statistics import mean

from plotly.graph_objects import Figure, Scatter
from plotly.subplots import make_subplots

from benchmarks.photograph import photograph
from benchmarks.tiny_long import RESULT, Figures, arm_of, read_rows

#: Figures with their titles.
_PANELS = {
    "sampled": "held-out score",
    "malformed": "malformed share",
    "families": "families above 5 %",
    "level": "mean level of the queries",
}
#: Arms that are drawn, with their labels, colours and dashes.
_ARMS = {
    "paper": ("paper's objective", "#d62728", "dot"),
    "paper, gate and pool": ("paper's objective, gate and pool", "#d62728", "solid"),
    "learnability": ("Learnability", "#1f77b4", "dot"),
    "learnability, gate and pool": ("Learnability, gate and pool", "#1f77b4", "solid"),
    "long, penalty 0.7, beta 0.03": (
        "the same with penalty 0.7 and beta 0.03 (recommended)",
        "#2ca02c",
        "solid",
    ),
    "long, band": ("the same with Band", "#9467bd", "solid"),
    "long, past": ("the same with an earlier Challenger", "#8c564b", "solid"),
}
_WIDTH, _HEIGHT = 1200, 760


def figure(rows: dict[str, list[Figures]]) -> Figure:
    """Four panels over the rounds, a line for each arm."""
    found: Figure = make_subplots(
        rows=2, cols=2, subplot_titles=list(_PANELS.values()), vertical_spacing=0.14
    )
    for arm, (label, color, dash) in _ARMS.items():
        runs = [run for name, run in rows.items() if arm_of(name) == arm]
        ends = [row["round"] for row in runs[0]]
        for i, name in enumerate(_PANELS):
            line = Scatter(
                x=ends,
                y=[mean(run[t][name] for run in runs) for t in range(len(ends))],
                name=f"{label}, n = {len(runs)}",
                line={"color": color, "dash": dash, "width": 2},
                mode="lines",
                legendgroup=arm,
                showlegend=i == 0,
            )
            found.add_trace(line, row=1 + i // 2, col=1 + i % 2)
    found.update_layout(
        template="plotly_white",
        legend={"orientation": "h", "y": -0.08},
        margin={"l": 40, "r": 20, "t": 40, "b": 110},
        width=_WIDTH,
        height=_HEIGHT,
    )
    return found


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("png", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        figure(read_rows(RESULT)).write_html(
            page, include_plotlyjs=True, config={"displayModeBar": False}
        )
        photograph(page, args.png)


if __name__ == "__main__":
    main()
