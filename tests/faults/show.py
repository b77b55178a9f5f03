"""The outcome of a run, for people and for programs."""

import json
import statistics

from rich.console import Console
from rich.table import Table

from tests.faults.run import Outcome


def show(outcome: Outcome, console: Console) -> None:
    """Print the table by kind, what is wrong, and the figures as one JSON object on the last line."""
    table = Table("fault", "struck", "survived", "recovery: median s", "most s", "next stage: most s")
    for name in sorted({one.kind for one in outcome.struck}):
        ours = [one for one in outcome.struck if one.kind == name]
        times = [one.recovery_s for one in ours if one.recovery_s is not None]
        moved = [one.moved_s for one in ours if one.moved_s is not None]
        table.add_row(
            name, str(len(ours)), str(sum(one.survived for one in ours)),
            f"{statistics.median(times):.1f}" if times else "-", f"{max(times):.1f}" if times else "-",
            f"{max(moved):.1f}" if moved else "-",
        )  # fmt: skip
    console.print(table)
    for one in outcome.struck:
        if not one.survived:
            console.print(
                f"not survived: {one.kind} in {one.stage}: {one.problem}", markup=False, soft_wrap=True
            )
        elif one.recovery_s is not None and one.recovery_s > outcome.limit_s:
            console.print(
                f"slow: {one.kind} in {one.stage}: {one.recovery_s:.1f} s, slowed down by {one.slowdown:.0f}",
                markup=False,
                soft_wrap=True,
            )
    for what, wrong in outcome.checks.items():
        console.print(f"{what}: {'yes' if not wrong else f'NO, {len(wrong)} times'}", markup=False)
        for line in wrong[:5]:
            console.print(f"    {line}", markup=False, soft_wrap=True)
    for line in outcome.left_out:
        console.print(f"left out: {line}", markup=False)
    times = [one.recovery_s for one in outcome.struck if one.recovery_s is not None]
    figures = {
        "faults": len(outcome.struck),
        "survived": sum(one.survived for one in outcome.struck),
        "seed": outcome.seed,
        "kinds": len({one.kind for one in outcome.struck}),
        "rounds": outcome.rounds,
        "attempts": outcome.attempts,
        "labels": outcome.labels,
        "recovery_median_s": round(statistics.median(times), 2) if times else None,
        "recovery_max_s": round(max(times), 2) if times else None,
        "recovery_limit_s": outcome.limit_s,
        "machine_slowdown_median": round(statistics.median(one.slowdown for one in outcome.struck), 1),
        "within_limit": sum(time_s <= outcome.limit_s for time_s in times),
        "wrong": {what: len(wrong) for what, wrong in outcome.checks.items()},
        "left_out": len(outcome.left_out),
    }
    print(json.dumps(figures))
