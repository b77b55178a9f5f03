"""Plotly figures of the admin page's charts, made here and drawn by the browser.

Plain values, as Plotly's schema has them: its Python classes, which check each of them, cost a hundred times
more and are for the tests. Its installed package also holds the script that draws.
"""

from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from services.labeler.chart import Chart

COLOURS = (
    "#3b8f7f",
    "#c9762b",
    "#6a7fd0",
    "#b8528c",
    "#8a8f2f",
    "#5aa0c8",
    "#8d6e63",
)  # on light and on dark


PANEL_H, TALL, SIDE_BY_SIDE = 120, 260, 3  # pixels; from so many panels on they stand in two columns


def figure(chart: Chart) -> dict[str, Any]:
    """Return a chart as Plotly's JSON. Text, grid and ground take the page's colours in the browser."""
    layout: dict[str, Any] = {
        "height": TALL,
        "barmode": "stack" if chart.kind == "stacked" else "group",
        "margin": {"l": 60, "r": 16, "t": 12, "b": 44},
        "showlegend": len(chart.drawn) > 1 and chart.kind != "panels",
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "hovermode": "x unified",
        "xaxis": _across(chart),
        "yaxis": {
            "title": {"text": chart.unit},
            "automargin": True,
            "rangemode": "normal" if chart.kind in ("lines", "panels") else "tozero",
        },
    }
    if chart.kind == "panels":
        layout |= _panels(chart)
    if chart.kind == "diagonal":
        line = {"type": "line", "x0": 0, "y0": 0, "x1": 1, "y1": 1, "line": {"dash": "dash", "width": 1}}
        layout["shapes"] = [line]
        for axis in ("xaxis", "yaxis"):
            layout[axis]["range"] = [0, 1]
    return {
        "data": [_trace(chart, number, name) for number, name in enumerate(chart.drawn)],
        "layout": layout,
    }


def _trace(chart: Chart, number: int, name: str) -> dict[str, Any]:
    column = chart.columns.index(name)
    trace: dict[str, Any] = {
        "x": [one.isoformat() if isinstance(one, datetime) else one for one, *_ in chart.rows],
        "y": [row[column] for row in chart.rows],
        "name": name,
    }
    paint = COLOURS[number % len(COLOURS)]
    if chart.kind in ("bars", "stacked"):
        # A bar over time begins where its time does and is as wide.
        time = {"xperiod": 60_000 * chart.bar_min, "xperiodalignment": "middle"} if chart.bar_min else {}
        return trace | {"type": "bar", "marker": {"color": paint}} | time
    few = chart.columns[0] == "round" or chart.kind == "diagonal"  # each point by itself
    mode = "lines+markers" if few else "lines"
    nth = str(number + 1) if number else ""
    axes = {"xaxis": f"x{nth}", "yaxis": f"y{nth}"} if chart.kind == "panels" else {}
    line, mark = {"color": paint}, {"color": paint, "size": 7 if chart.kind != "panels" else 5}
    return trace | {"type": "scatter", "mode": mode, "line": line, "marker": mark} | axes


def _across(chart: Chart) -> dict[str, Any]:
    whole = (
        {"dtick": _every(len(chart.rows))}
        if chart.columns[0] == "round"
        else {"nticks": 4 if chart.bar_min else 7}
    )
    return {"title": {"text": chart.columns[0]}, "automargin": True, "tickangle": 0, **whole}


def _panels(chart: Chart) -> dict[str, Any]:
    """Lay out a panel for each column, of its own unit, over the same rounds."""
    count = len(chart.drawn)
    columns = 2 if count >= SIDE_BY_SIDE else 1
    rows = -(-count // columns)
    layout: dict[str, Any] = {
        "height": max(TALL, PANEL_H * rows + 60),
        "margin": {"l": 52, "r": 12, "t": 28, "b": 44},
        "grid": {"rows": rows, "columns": columns, "pattern": "independent", "ygap": 0.42, "xgap": 0.3},
        "annotations": [],
        "hovermode": "closest",
    }
    for number, name in enumerate(chart.drawn, start=1):
        nth = str(number) if number > 1 else ""  # as Plotly writes the first
        lowest = number > count - columns
        title = {"title": {"text": chart.columns[0] if lowest else ""}}
        layout[f"xaxis{nth}"] = {**_across(chart), **title, **({"matches": "x"} if nth else {})}
        layout[f"yaxis{nth}"] = {"title": {"text": ""}, "nticks": 4, "automargin": True}
        layout["annotations"].append(
            {
                "text": name, "showarrow": False, "xref": f"x{nth} domain", "yref": f"y{nth} domain",
                "x": 0, "y": 1, "xanchor": "left", "yanchor": "bottom",
            }
        )  # fmt: skip
    return layout


def _every(rounds: int) -> int:
    """Return how many rounds lie between two numbers at the axis: whole ones, about ten in all."""
    return max(1, -(-rounds // 10))


@cache
def script() -> Path:
    """Return where the installed Plotly keeps its script for browsers."""
    import plotly

    return Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
