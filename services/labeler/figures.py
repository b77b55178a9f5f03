"""Plotly figures of the admin page's charts, made here and drawn by the browser.

Plotly takes a while to load, so that happens at the first chart, not when the labeler starts.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

from services.labeler.charts import Chart

COLOURS = (
    "#3b8f7f",
    "#c9762b",
    "#6a7fd0",
    "#b8528c",
    "#8a8f2f",
    "#5aa0c8",
    "#8d6e63",
)  # on light and on dark


def figure(chart: Chart) -> dict[str, Any]:
    """Return a chart as Plotly's JSON. Text, grid and ground take the page's colours in the browser."""
    import plotly.graph_objects as go

    across = [row[0] for row in chart.rows]
    numbered = chart.columns[0] == "round"
    drawn = go.Figure()
    for colour, name in enumerate(chart.drawn):
        up = [row[chart.columns.index(name)] for row in chart.rows]
        paint = COLOURS[colour % len(COLOURS)]
        if chart.kind == "lines":
            mark = {"color": paint, "size": 7}
            trace = go.Scatter(
                x=across, y=up, name=name, mode="lines+markers", line={"color": paint}, marker=mark
            )
        else:
            trace = go.Bar(x=across, y=up, name=name, marker={"color": paint})
        drawn.add_trace(trace)
    drawn.update_layout(
        template="none",
        barmode="stack" if chart.kind == "stacked" else "group",
        margin={"l": 60, "r": 16, "t": 12, "b": 44},
        showlegend=len(chart.drawn) > 1,
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hovermode="x unified",
        xaxis={
            "title": {"text": chart.columns[0]},
            "automargin": True,
            **({"dtick": _every(len(across))} if numbered else {}),
        },
        yaxis={"title": {"text": chart.unit}, "rangemode": "tozero" if chart.kind != "lines" else "normal"},
    )
    found: dict[str, Any] = json.loads(drawn.to_json())
    return found


def _every(rounds: int) -> int:
    """Return how many rounds lie between two numbers at the axis: whole ones, about ten in all."""
    return max(1, -(-rounds // 10))


@cache
def script() -> Path:
    """Return where the installed Plotly keeps its script for browsers."""
    import plotly

    return Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
