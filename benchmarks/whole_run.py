"""Whole runs of the embedded system by `lockstep demo`, for the benchmarks that look at what is left."""

import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import select

from shared.database import Database
from shared.models import Experiment

REPOSITORY = Path(__file__).parent.parent


def demo(folder: Path, seed: int, overrides: Sequence[str]) -> tuple[Database, datetime, int]:
    """Run the demo; return its database, when the command was started (UTC), and its exit status.

    RuntimeError, with what the command said, if the run neither solved the task nor spent its budget.
    """
    arguments = ["demo", "--data-dir", str(folder), "--seed", str(seed)]
    for pair in overrides:
        arguments += ["--set", pair]
    mine = {name: value for name, value in os.environ.items() if not name.startswith("LOCKSTEP_")}
    began = datetime.now(UTC)
    answer = subprocess.run(
        [sys.executable, "-m", "services", *arguments],
        cwd=REPOSITORY,
        env=mine,
        capture_output=True,
        text=True,
    )
    if answer.returncode not in (0, 1):
        raise RuntimeError(answer.stdout + answer.stderr)
    return Database(f"sqlite:///{folder / 'demo-1' / 'lockstep.db'}"), began, answer.returncode


def seconds_until_the_end(database: Database, began: datetime) -> float:
    """Return the seconds from `began` until the experiment was finished."""
    with database.read() as session:
        ended_at = session.scalars(select(Experiment.ended_at)).one()
    assert ended_at is not None
    return (ended_at - began).total_seconds()
