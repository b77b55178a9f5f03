"""How many labelers one labeler process carries, beside what Postgres and the web framework give alone.

    python -m benchmarks.api_load             # everything, about three minutes
    python -m benchmarks.api_load --only ratios --turns 5
    python -m benchmarks.api_load --only crowd --labelers 1000 --seconds 60

*crowd*: simulated labelers on Postgres, one label each 4 s, doing what the label page does (an answer, then
a claim that keeps four comparisons in hand). *ratios*, in turns, so that every figure is taken in the same
minutes: 16 clients that claim and answer as fast as they can on Postgres, pgbench with 16 clients and the
same statements in the same transactions, 16 clients on SQLite, and 16 that ask an endpoint that does nothing.
Medians over the turns. Everything is on 127.0.0.1 and in temporary folders, and stops by itself.
The last line is one JSON object.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select

from benchmarks.options import positive
from shared import label_statements as sql
from shared.database import Database, migrate
from shared.models import Clip, Comparison, Experiment, Labeler, Round
from shared.settings import Settings
from tests import scenes, services

ROOT = Path(__file__).parent.parent
CLIENTS = 16
LEASE_S = 300.0
IN_HAND = 4  # comparisons that the label page keeps

# What pgbench runs: the statements of one claim and of one answer, each in its transaction, as the server
# sends them for somebody who asks alone and holds nothing. \\gset and \\aset take a row's columns into
# variables. Sometimes somebody else got the comparison: the server looks for another one, pgbench goes to its
# next turn.
FOUND = sql.OPEN.pgbench.replace("SELECT c.id,", "SELECT c.id AS comparison,")
SCRIPT = [
    ("\\set labeler :client_id + 1", ""),
    ("\\set preference random(1, 9223372036854775807)", ""),
    ("\\set comparison_id 0", ""),
    ("BEGIN", ";"),
    (sql.SET_UP, ";"),
    (sql.NEWEST_ROUND.pgbench, ";"),
    (sql.HELD.pgbench, ";"),
    (FOUND, "\\gset"),
    (sql.GRANT.pgbench, "\\aset"),
    ("COMMIT", ";"),
    ("\\if :comparison_id > 0", ""),
    ("BEGIN", ";"),
    (sql.SET_UP, ";"),
    (sql.LOCK.pgbench, ";"),
    (sql.STANDING.pgbench, ";"),
    (sql.TAKE_AT_ONCE.pgbench, ";"),
    ("COMMIT", ";"),
    ("\\endif", ""),
]
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and all below it have taken so far (on Linux, else 0)."""
    try:
        # After the name in brackets; fields 14 to 17 are its own time and that of children that have ended.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        below = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS + sum(cpu_seconds(int(child)) for child in below)


def add_labelers(scene: scenes.Scene, count: int) -> list[str]:
    """Add labelers and return their tokens."""
    tokens = [f"token-of-labeler-{number}" for number in range(count)]
    with scene.database.write() as session:
        people = [
            {
                "name": f"labeler {number}",
                "kind": "person",
                "token_sha256": hashlib.sha256(token.encode()).hexdigest(),
                "created_at": datetime.now(UTC),
            }
            for number, token in enumerate(tokens)
        ]
        session.execute(insert(Labeler), people)
    return tokens


def add_comparisons(scene: scenes.Scene, count: int) -> None:
    """Fill the round up to `count` comparisons, over the clips that it has."""
    round_ = scene.round()
    with scene.database.write() as session:
        clips = list(session.scalars(select(Clip.id).where(Clip.round_id == round_.id)))
        rows = [
            {
                "round_id": round_.id,
                "number": number,
                "held_out": False,
                "labels_wanted": 1,
                "labels_given": 0,
                "clip_ids": [clips[number % len(clips)], clips[(number * 7 + 1) % len(clips)]],
            }
            for number in range(len(clips) // 2 + 1, count + 1)
        ]
        if rows:
            session.execute(insert(Comparison), rows)


class Place:
    """A database with labelers, and a labeler process that serves it."""

    def __init__(self, folder: Path, database_url: str, labelers: int) -> None:
        self.pids: dict[str, int] = {}  # of the servers, by name
        (port,) = services.free_ports(1)
        self.settings = scenes.settings_for(folder, database_url, port=port, log_level="WARNING")
        self.port, self.made = port, 0
        migrate(database_url)
        with scenes.Scene(self.settings, name="labelers") as scene:
            self.tokens = add_labelers(scene, labelers)

    def experiment(self, comparisons: int) -> str:
        """Make a fresh experiment and return its name."""
        self.made += 1
        name = f"load-{self.made}"
        few = {"comparisons_per_round": 8, "lease_s": LEASE_S}
        with scenes.Scene(self.settings, name=name, labels=few) as scene:
            scene.collect()
            add_comparisons(scene, comparisons)
        return name

    def launch(self, folder: Path) -> services.Launch:
        """Return how its labeler process is started."""

        def answers() -> None:
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5).close()

        return services.Launch(
            [sys.executable, "-m", "services.labeler"],
            folder,
            answers,
            run_as={"env": environment_of(self.settings)},
        )

    def play(self, mode: str, clients: int, seconds: float, **plan: Any) -> dict[str, Any]:
        """Let simulated labelers at the server; return what they saw, and what it took of the processors."""
        plan |= {"mode": mode, "port": self.port, "seconds": seconds, "tokens": self.tokens[:clients]}
        before = {name: cpu_seconds(pid) for name, pid in self.pids.items()}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.http_load"],
            input=json.dumps(plan),
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT,
            timeout=seconds + 120,
        )
        seen: dict[str, Any] = json.loads(done.stdout)
        took = {name: cpu_seconds(pid) - before[name] for name, pid in self.pids.items()}
        took["client"] = seen["client_cpu_s"]
        seen["cpu_ms_a_call"] = {
            name: round(1000 * cpu_s / max(seen["calls"], 1), 3) for name, cpu_s in took.items()
        }
        return seen


def environment_of(settings: Settings) -> dict[str, str]:
    """Return an environment in which a process of ours takes these settings and no others."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LOCKSTEP_")}
    told = {
        "LOCKSTEP_DATA_DIR": str(settings.data_dir),
        "LOCKSTEP_DATABASE_URL": settings.database_url,
        "LOCKSTEP_PORT": str(settings.port),
        "LOCKSTEP_LOG_LEVEL": settings.log_level,
    }
    return kept | told | {"PYTHONPATH": str(ROOT)}


@contextmanager
def served(database_url: str | None, labelers: int, postgres_pid: int = 0) -> Iterator[Place]:
    """Serve a database, a fresh SQLite file where none is named."""
    with services.folder_of("api-load") as folder:
        place = Place(folder, database_url or f"sqlite:///{folder / 'lockstep.db'}", labelers)
        with services.running(place.launch(folder)) as labeler:
            place.pids = {"labeler": labeler.pid} | ({"postgres": postgres_pid} if postgres_pid else {})
            yield place


@contextmanager
def postgres(fsync: bool) -> Iterator[tuple[str, int]]:
    """Start a Postgres that keeps house as it does in production; yield SQLAlchemy's address, and its pid."""
    with services.folder_of("postgres") as folder:
        launch, url = services.postgres_in(folder, survives_crashes=fsync)
        options = {"autovacuum": "on", "shared_buffers": "256MB", "fsync": "on" if fsync else "off"}
        more = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with services.running(replace(launch, command=launch.command + more)) as process:
            yield url.replace("postgresql:", "postgresql+psycopg:"), process.pid


def pgbench(place: Place, experiment: str, seconds: float) -> float:
    """Return how often a second pgbench claims and answers."""
    database = Database(place.settings.database_url)
    with database.read() as session:
        query = select(Round.id).join(Experiment).where(Experiment.name == experiment)
        round_ = session.scalars(query).one()
    values = {
        "name": experiment, "round": round_, "start": 0, "count": 1, "lease_s": LEASE_S, "shown": "[0, 1]",
        "ranks": "[0, 1]", "seconds": 1.5,
    }  # fmt: skip
    with services.folder_of("pgbench") as folder:
        script = folder / "script.sql"
        script.write_text("".join(f"{text.strip()}{end}\n" for text, end in SCRIPT))
        command = [services.find("pgbench"), "-n", "-M", "prepared", "-c", str(CLIENTS), "-j", "2"]
        command += ["-T", str(round(seconds)), "-f", str(script)]
        command += [part for name, value in values.items() for part in ("-D", f"{name}={value}")]
        url = place.settings.database_url.replace("+psycopg", "")
        done = subprocess.run([*command, url], capture_output=True, text=True)
    if done.returncode != 0 or "aborted" in done.stderr:
        raise RuntimeError(f"pgbench failed:\n{done.stdout}\n{done.stderr[-2000:]}")
    with database.read() as session:
        given = select(func.sum(Comparison.labels_given)).where(Comparison.round_id == round_)
        answers = int(session.scalars(given).one())
    database.close()
    return answers / round(seconds)


def ratios(place: Place, small: Place, turns: int, seconds: float) -> dict[str, Any]:
    """Measure the four in turns; return the medians."""
    found = []
    print(f"{'turn':>4} {'pgbench/s':>10} {'API/s':>8} {'ratio':>6} {'p99 ms':>7}", end="")
    print(f" {'no-op/s':>9} {'p99 ms':>7} {'SQLite/s':>9} {'ratio':>6} {'p99 ms':>7}", end="")
    print("   (pairs of claim and answer; calls)")
    for turn in range(1, turns + 1):
        plenty = int(3000 * seconds)
        bench = pgbench(place, place.experiment(plenty), seconds)
        pairs = place.play("pairs", CLIENTS, seconds, experiment=place.experiment(plenty))
        noop = small.play("noop", CLIENTS, seconds)
        lite = small.play("pairs", CLIENTS, seconds, experiment=small.experiment(plenty))
        row = {
            "pgbench_ratio": pairs["answers_a_second"] / bench,
            "noop_ratio": lite["calls_a_second"] / noop["calls_a_second"],
            "p99_ms": pairs["p99_ms"],
            "errors": sum(one["errors"] for one in (pairs, noop, lite)),
        }
        found.append(row)
        print(
            f"{turn:>4} {bench:>10.0f} {pairs['answers_a_second']:>8.0f} {row['pgbench_ratio']:>6.2f}"
            f" {pairs['p99_ms']:>7.1f} {noop['calls_a_second']:>9.0f} {noop['p99_ms']:>7.1f}"
            f" {lite['calls_a_second']:>9.0f} {row['noop_ratio']:>6.2f} {lite['p99_ms']:>7.1f}",
            flush=True,
        )
        for name, one in (("Postgres", pairs), ("no-op", noop), ("SQLite", lite)):
            print(f"     {name:<9} {tell_cpu(one)}", flush=True)
        tell_errors(pairs, noop, lite)
    medians = {name: statistics.median(row[name] for row in found) for name in found[0] if name != "errors"}
    return {name: round(value, 3) for name, value in medians.items()} | {
        "errors": sum(row["errors"] for row in found)
    }


def crowd(place: Place, labelers: int, seconds: float, period_s: float) -> dict[str, Any]:
    """Let a crowd label at a person's pace."""
    enough = int(labelers * (IN_HAND + 2 + seconds / period_s))
    seen = place.play(
        "paced", labelers, seconds, period_s=period_s, count=IN_HAND, experiment=place.experiment(enough)
    )
    print(f"{labelers} labelers, one label each {period_s:g} s, for {seconds:g} s, {enough} comparisons")
    for name in ("answers", "answers_a_second", "calls", "p50_ms", "p99_ms", "max_ms", "errors"):
        print(f"  {name:<16} {seen[name]}")
    print(f"  {tell_cpu(seen)}")
    tell_errors(seen)
    return seen


def tell_cpu(seen: dict[str, Any]) -> str:
    """Return what a call took of the processors: that is steadier than any rate on a machine with others."""
    parts = [f"{name} {ms:.2f}" for name, ms in seen["cpu_ms_a_call"].items()]
    return "processor ms a call: " + ", ".join(parts)


def tell_errors(*seen: dict[str, Any]) -> None:
    """Say what went wrong, to whoever looks."""
    for one in seen:
        for error in one["first_errors"]:
            print(f"  error: {error}", file=sys.stderr)


def main() -> None:
    """Print the tables and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=["ratios", "crowd"], help="one part alone")
    parser.add_argument(
        "--turns", type=positive, default=3, help="how often the ratios are taken (default: 3)"
    )
    parser.add_argument("--turn-seconds", type=float, default=5.0, help="of each part of a turn (default: 5)")
    parser.add_argument("--labelers", type=positive, default=1000, help="in the crowd (default: 1000)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of the crowd (default: 60)")
    parser.add_argument("--period", type=float, default=4.0, help="seconds for a label (default: 4)")
    parser.add_argument("--fsync", action="store_true", help="let Postgres wait for the disk")
    args = parser.parse_args()
    line: dict[str, Any] = {"errors": 0}
    with ExitStack() as stack:
        url, pid = stack.enter_context(postgres(args.fsync))
        place = stack.enter_context(served(url, max(args.labelers, CLIENTS), pid))
        if args.only != "ratios":
            seen = crowd(place, args.labelers, args.seconds, args.period)
            line |= {"errors": seen["errors"], "p99_ms": seen["p99_ms"], "labels": seen["answers"]}
        if args.only != "crowd":
            small = stack.enter_context(served(None, CLIENTS))
            found = ratios(place, small, args.turns, args.turn_seconds)
            line["errors"] += found.pop("errors")
            line |= {"p99_ms_16_clients": found.pop("p99_ms")} | found
    print(json.dumps(line))


if __name__ == "__main__":
    main()
