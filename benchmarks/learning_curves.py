"""Draw how agents learned: `python -m benchmarks.learning_curves RESULTS.jsonl --out PICTURE.svg`.

Reads the JSON lines that `benchmarks.atari` ends with, one or more of them, and draws the mean true return of
each round's evaluation over the labels given until then: a thin line for each seed, a thick one for their
mean. Lines of different teachers have colours of their own. `--ladder "y <= 101"` draws the share of games
that led up that ladder of Donkey Kong instead.
"""

import argparse
import json
import math
from collections.abc import Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path
from statistics import fmean
from typing import Any

from benchmarks.options import refusing

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 340, 56, 16, 40, 48
COLOURS = ("#2f6fde", "#b5651d", "#4a8f3c")  # readable on white and on black
QUIET = "#808080"

Line = dict[str, Any]
Curve = list[tuple[float, float]]  # labels so far, mean true return or share of games


def curves_of(lines: Sequence[Line], ladder: str | None = None) -> dict[str, list[Curve]]:
    """Return every seed's curve by teacher."""
    found: dict[str, list[Curve]] = {}
    for line in lines:
        every = [[one[ladder] for one in climbs] for climbs in line["ladders"]] if ladder else line["rounds"]
        for labeled, values in zip(line["labels_after"], every, strict=True):
            curve = [(float(x), float(y)) for x, y in zip(labeled, values, strict=True)]
            found.setdefault(line["teacher"], []).append(curve)
    return found


def lines_of(path: Path) -> list[Line]:
    """Read a file of lines that `benchmarks.atari` ended with; ValueError if it is none."""
    lines: list[Line] = []
    for number, text in enumerate(path.read_text("utf-8", "replace").splitlines(), 1):
        if not text:
            continue
        try:
            lines.append(json.loads(text))
            curves = [curve for group in curves_of(lines[-1:]).values() for curve in group]
            if not (lines[-1]["env_id"] and curves and all(curve and curve[-1][0] > 0 for curve in curves)):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{path}, line {number}, is none that benchmarks.atari ends with") from None
    if not lines:
        raise ValueError(f"{path} holds no line that benchmarks.atari ended with")
    return lines


def check_ladder(lines: Sequence[Line], ladder: str) -> None:
    """Raise ValueError if not every game of the lines has such a ladder."""
    climbs = [one for line in lines for seed in line.get("ladders") or [[{}]] for one in seed]
    if not all(ladder in one for one in climbs):
        known = ", ".join(sorted({name for one in climbs for name in one}))
        raise ValueError(f"not all lines have a ladder {ladder!r}; those there are: {known or 'none'}")


def range_of(games: Sequence[str], values: Sequence[float]) -> tuple[float, float]:
    """Return which values to show: in Pong all there may be, else those there are, in round quarters."""
    if [*games] == ["ALE/Pong-v5"]:
        return -21.0, 21.0
    low, high = min(0, *values), max(0, *values)
    unit = 10 ** math.floor(math.log10(max(high - low, 1) / 4))
    low = math.floor(low / unit) * unit
    return low, low + 4 * unit * max(math.ceil((high - low) / 4 / unit), 1)


def draw(title: str, curves: dict[str, list[Curve]], low: float, high: float, target: float | None) -> str:
    """Return an SVG of curves between the values `low` and `high`."""
    most = max(x for group in curves.values() for curve in group for x, _ in curve)

    def across(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * x / most, 1)

    def down(y: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low), 1)

    def text(words: str, x: float, y: float, anchor: str = "middle", colour: str = QUIET) -> str:
        return f'<text x="{x}" y="{y}" text-anchor="{anchor}" fill="{colour}">{escape(words)}</text>'

    def line(curve: Curve, colour: str, rest: str) -> str:
        points = " ".join(f"{across(x)},{down(y)}" for x, y in curve)
        return f'<polyline points="{points}" fill="none" stroke="{colour}" {rest}/>'

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif" font-size="13"><title>{escape(title)}</title>',
        text(title, LEFT, 20, "start"),
        text("labels", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8),
    ]
    for step in range(5):
        y, x = low + (high - low) * step / 4, most * step / 4
        parts.append(line([(0, y), (most, y)], QUIET, 'stroke-opacity="0.3"'))
        parts.append(text(f"{y:g}", LEFT - 8, down(y) + 4, "end"))
        parts.append(text(f"{x:.0f}", across(x), HEIGHT - BOTTOM + 18))
    if target is not None:
        parts.append(line([(0, target), (most, target)], QUIET, 'stroke-dasharray="4 4"'))
        words = f"target {target:g}"  # where the lines begin, for they end at it
        parts.append(text(words, LEFT + 4, down(target) - 4, "start"))
    for number, (teacher, group) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        parts += [line(curve, colour, 'stroke-opacity="0.45"') for curve in group]
        together = [[point for point in points if point] for points in zip_longest(*group)]
        mean = [(fmean(x for x, _ in points), fmean(y for _, y in points)) for points in together]
        parts.append(line(mean, colour, 'stroke-width="3" stroke-linejoin="round"'))
        seeds = f"{teacher}, {len(group)} seed{'s' * (len(group) > 1)}"
        parts.append(text(seeds, WIDTH - RIGHT - 150 * number, 20, "end", colour))
    return "\n".join([*parts, "</svg>", ""])


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "results", nargs="+", type=Path, help="files of lines that benchmarks.atari ended with"
    )
    parser.add_argument("--out", type=Path, required=True, help="the SVG to write")
    parser.add_argument(
        "--ladder", metavar='"y <= 101"', help="a ladder of Donkey Kong, as the lines name it"
    )
    parser.add_argument(
        "--range", nargs=2, type=float, help="values to show (default: all there may be, or those there are)"
    )
    parser.add_argument("--target", type=float, help="a value to mark")
    args = parser.parse_args()
    with refusing(parser):
        lines = [line for path in args.results for line in lines_of(path)]
        if args.ladder:
            check_ladder(lines, args.ladder)
        games = sorted({line["env_id"] for line in lines})
        what = f"share of games with {args.ladder}" if args.ladder else "true return of each round's agent"
        curves = curves_of(lines, args.ladder)
        values = [y for group in curves.values() for curve in group for _, y in curve]
        values += [] if args.target is None else [args.target]
        low, high = args.range or ((0.0, 1.0) if args.ladder else range_of(games, values))
        if low >= high:
            raise ValueError(f"--range {low:g} {high:g}: the first must be below the second")
        picture = draw(f"{', '.join(games)}: {what}", curves, low, high, args.target)
        args.out.write_text(picture, encoding="utf-8")
    print(f"{args.out} written")


if __name__ == "__main__":
    main()
