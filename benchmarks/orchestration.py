"""How long the system takes between stages: `python -m benchmarks.orchestration [--seed 1] [--set K=V]`.

Over a whole run with the oracle, from the database's rows: from a round's last label to the reward trainer's
first step, and from the end of each trained stage to the first step of the next. A first step is the first
progress that a trainer process reports, so the step itself is part of the figure.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from sqlalchemy import func, select

from benchmarks.whole_run import demo
from shared.database import Database
from shared.models import Attempt, Comparison, Preference, Round
from shared.states import AttemptState, RoundState


def gaps(database: Database) -> list[tuple[str, int, float]]:
    """Return what was waited for, in which round, and for how many seconds."""
    found = []
    with database.read() as session:
        won = select(Attempt, Round.number).join(Round).where(Attempt.state == AttemptState.SUCCEEDED)
        last_label = select(Round.number, func.max(Preference.answered_at)).select_from(Preference)
        last_label = last_label.join(Comparison).join(Round).group_by(Round.number)
        labeled = {row[0]: row[1] for row in session.execute(last_label)}
        previous: Attempt | None = None
        for attempt, number in session.execute(won.order_by(Attempt.id)):
            if attempt.stage == RoundState.TRAINING_REWARD:
                began, what = labeled[number], "last label → reward trainer"
            else:
                began = previous.ended_at if previous else None
                what = (
                    "reward trainer → agent"
                    if attempt.stage == RoundState.TRAINING_AGENT
                    else "agent → collecting"
                )
            if began is not None:  # nothing comes before the first stage of all
                found.append((what, number, (attempt.first_step_at - began).total_seconds()))
            previous = attempt
    return found


def main() -> None:
    """Run the demo, print every gap, their median and 95th percentile."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in lockstep demo")
    options = parser.parse_args()
    everything = ["evaluation.stop_when_solved=false", *options.set]  # all rounds, for more gaps
    with tempfile.TemporaryDirectory() as folder:
        database, _, _ = demo(Path(folder), options.seed, everything)
        found = gaps(database)
        database.close()
    print(f"{'round':>5} {'seconds':>8}  from → to the first step of")
    for what, number, seconds in found:
        print(f"{number:>5} {seconds:>8.3f}  {what}")
    waits = sorted(seconds for _, _, seconds in found)
    p95 = statistics.quantiles(waits, n=20, method="inclusive")[-1]
    figures = {"median_s": round(statistics.median(waits), 3), "p95_s": round(p95, 3), "gaps": len(waits)}
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
