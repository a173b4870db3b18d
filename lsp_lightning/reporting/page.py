"""One HTML file from some runs: it opens offline, and its Content-Security-Policy forbids requests.

Texts of a run enter in two ways only: into HTML by Jinja with autoescape, or as JSON that the
page's script inserts as text.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from lsp_lightning import __version__
from lsp_lightning.reporting.charts import Charts
from lsp_lightning.reporting.queries import Transcript
from lsp_lightning.reporting.reading import Run
from lsp_lightning.reporting.settings import differing, main_settings
from lsp_lightning.reporting.verdict import judge

#: Answers on the page unless told otherwise, and bytes of them: the page stays below 15 MB.
ROWS, _BYTES = 12_000, 7_500_000
#: Most characters of a text, from the first that gives a page of this size.
_LIMITS = (2000, 1000, 500, 250, 120, 60)
#: What could end a script or is a line break to some parsers; all are letters of JSON's strings.
_UNSAFE = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def page(runs: Sequence[Run], most_rows: int = ROWS) -> str:
    """The whole page.

    Args:
        runs: what it shows, side by side.
        most_rows: most answers of all runs together; 0 shows all.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    charts = Charts(runs)
    share = most_rows and max(1, most_rows // len(runs))
    transcripts = [Transcript.of(run.rows, share) for run in runs]
    queries, limit = _within(transcripts)
    environment = Environment(
        loader=PackageLoader("lsp_lightning.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scripts = [_plotly(), *map(_template, ("charts.js", "queries.js"))]
    settings = [main_settings(run) for run in runs]
    return environment.get_template("report.html").render(
        version=__version__,
        runs=runs,
        verdicts=[judge(run) for run in runs],
        labels=dict.fromkeys(name for found in settings for name in found),
        settings=settings,
        differing=differing(runs) if len(runs) > 1 else [],
        charts=charts,
        transcripts=transcripts,
        limit=limit,
        sampled=_told(runs, transcripts),
        style=_template("report.css"),
        scripts=scripts,
        policy=_policy(scripts),
        data=in_script(_data(runs, charts, queries)),
    )


def _data(runs: Sequence[Run], charts: Charts, queries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the scripts of the page read; the charts in the order of the page."""
    games = [
        {
            "players": game.players,
            "rate": game.solve_rate,
            "error": game.standard_error,
        }
        if (game := run.crossplay)
        else None
        for run in runs
    ]
    return {
        "runs": [
            {"name": run.name, "rounds": rounds}
            for run, rounds in zip(runs, charts.rounds, strict=True)
        ],
        "charts": [
            {"kinds": chart.kinds, "lines": chart.lines, "limits": chart.limits}
            for chart in (*charts.curves, *charts.indicators, *charts.others)
        ],
        "crossplay": games,
        "queries": queries,
    }


def _told(runs: Sequence[Run], transcripts: Sequence[Transcript]) -> str:
    """How many answers of each run are on the page, in one line."""
    parts = []
    for run, found in zip(runs, transcripts, strict=True):
        count = (
            f"{found.shown:,} of {found.total:,}"
            if found.shown < found.total
            else f"all {found.total:,}"
        )
        name = f"{run.name}: " if len(runs) > 1 else ""
        parts += [f"{name}{count} answers and refused queries"] if found.total else []
    whole = (
        "A sample of whole groups: " if any(t.shown < t.total for t in transcripts) else "Shown: "
    )
    return f"{whole}{'; '.join(parts)}."


def _within(transcripts: Sequence[Transcript]) -> tuple[list[dict[str, Any]], int]:
    """The queries of all runs with texts so short that they fit. -> them, and characters a text."""
    texts = [
        str(row.get(name) or "")[: _LIMITS[0]]
        for transcript in transcripts
        for group in transcript.groups
        for row in group
        for name in ("answer", "judged_answer")
    ]
    for limit in _LIMITS:
        # escaping many texts takes long, so the size is estimated first
        if sum(len(text[:limit].encode(errors="replace")) for text in texts) > _BYTES:
            continue
        found = [transcript.as_json(limit) for transcript in transcripts]
        if len(in_script(found).encode()) <= _BYTES:
            return found, limit
    return [transcript.as_json(_LIMITS[-1]) for transcript in transcripts], _LIMITS[-1]


def in_script(value: object) -> str:
    """A value as JSON that is safe inside of a ``<script type="application/json">``.

    >>> in_script("</script>")
    '"\\\\u003c/script\\\\u003e"'
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.translate(_UNSAFE)


def _policy(scripts: Sequence[str]) -> str:
    """Only these scripts run, and nothing is loaded; styles and pictures come from the page."""
    digests = (base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts)
    sources = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; "
        "img-src data: blob:; base-uri 'none'; form-action 'none'"
    )


def _plotly() -> str:
    # not get_plotlyjs(): importing its module takes a second
    text = (files("plotly") / "package_data" / "plotly.min.js").read_text(encoding="utf-8")
    return _whole(text)


def _template(name: str) -> str:
    path = files("lsp_lightning.reporting") / "templates" / name
    return _whole(path.read_text(encoding="utf-8"))


def _whole(script: str) -> str:
    """The script, if nothing in it ends its element."""
    assert "</script" not in script.lower(), "a script must not end its element"
    assert "<!--" not in script, "a script must not open a comment"
    return script
