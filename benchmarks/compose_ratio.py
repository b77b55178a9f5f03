"""How much slower is a warm run in the full size? `python -m benchmarks.compose_ratio [--runs 5]`.

CartPole with the oracle, on the compose stack (brought up for it, images built before) and in the embedded
size, by turns within the same minutes, with the same seed and so the same labels. A first run of each warms
the trainers and does not count. Each idles while the other works. A run lasts from the experiment's creation
to its end. The columns say how long its stages had a worker; the rest is labeling and handing on.
"""

import argparse
import json
import statistics
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from benchmarks.options import positive, refusing
from services import embedded, teachers
from shared import config as configuration
from shared.settings import load_settings
from tests.compose.stack import Stack, running

CONFIG = Path(__file__).parent.parent / "configs" / "cartpole.toml"
STAGES = ("collecting", "training_reward", "training_agent")


@dataclass(frozen=True)
class Size:
    """A running system."""

    name: str
    url: str
    admin_token: str
    teacher_token: str


def run(size: Size, name: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Run one experiment to its end; return its report."""
    wanted = configuration.load(CONFIG, overrides | {"name": name})
    headers = {"Authorization": f"Bearer {size.admin_token}"}
    with httpx.Client(base_url=f"{size.url}/api/admin", headers=headers, trust_env=False) as admin:
        body = {"config": wanted.model_dump(mode="json")}
        admin.post("/experiments", json=body).raise_for_status()
        teachers.teach(teachers.Lesson(size.url, name, teachers.Teacher(), size.teacher_token))
        return dict(admin.get(f"/experiments/{name}").raise_for_status().json())


def seconds(one: dict[str, Any], begin: str) -> float:
    """Return the seconds from the moment named `begin` to the end of an experiment or attempt."""
    return (datetime.fromisoformat(one["ended_at"]) - datetime.fromisoformat(one[begin])).total_seconds()


def stages(report: dict[str, Any]) -> list[float]:
    """Return for each stage how long workers were at it, over all rounds."""
    attempts = [attempt for round_ in report["rounds"] for attempt in round_["attempts"]]
    return [sum(seconds(one, "claimed_at") for one in attempts if one["stage"] == stage) for stage in STAGES]


@contextmanager
def embedded_size(folder: Path) -> Iterator[Size]:
    """Run the embedded size."""
    leaving = threading.Event()
    with embedded.running(load_settings(data_dir=folder, port=0)) as system:

        def look_after() -> None:
            while not leaving.wait(0.25):
                system.look_after()

        keeper = threading.Thread(target=look_after)
        keeper.start()
        try:
            await_answer(system.url)
            yield Size("embedded", system.url, system.secrets.admin_token, system.secrets.teacher_token)
        finally:
            leaving.set()
            keeper.join()


def await_answer(url: str) -> None:
    """Wait until the labeler answers."""
    transport = httpx.HTTPTransport(retries=8)  # with growing pauses: two minutes in all
    with httpx.Client(transport=transport, timeout=60) as client:
        client.get(f"{url}/readyz").raise_for_status()


def full_size(stack: Stack) -> Size:
    """Return the compose stack as a size."""
    token = stack.compose("exec", "-T", "labeler", "cat", "/run/secrets/lockstep_teacher_token").strip()
    return Size("full", stack.url, stack.admin_token, token)


def compare(runs: int, overrides: dict[str, Any]) -> dict[str, float]:
    """Run both sizes by turns, printing a table; return the medians and their ratio."""
    took: dict[str, list[float]] = {"embedded": [], "full": []}
    rounds = set()
    print(f"{'size':>9} {'run':>4} {'rounds':>6} {'seconds':>8}" + "".join(f" {one:>16}" for one in STAGES))
    with (
        tempfile.TemporaryDirectory() as folder,
        running("lockstep-ratio") as stack,
        embedded_size(Path(folder)) as small,
    ):
        for number in range(runs + 1):
            for size in (small, full_size(stack)):
                report = run(size, f"run-{number}", overrides)
                rounds.add(len(report["rounds"]))
                whole = seconds(report, "created_at")
                if number:
                    took[size.name].append(whole)
                row = f"{size.name:>9} {number or 'warm':>4} {len(report['rounds']):>6} {whole:>8.2f}"
                print(row + "".join(f" {one:>16.2f}" for one in stages(report)), flush=True)
    if len(rounds) > 1:
        raise SystemExit(f"the runs are not alike: {sorted(rounds)} rounds")
    medians = {name: round(statistics.median(all_), 2) for name, all_ in took.items()}
    return {"ratio": round(medians["full"] / medians["embedded"], 3), **medians, "runs": runs}


def main() -> None:
    """Compare, and print the figures as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=positive, default=5, help="of each size")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="as in lockstep create"
    )
    options = parser.parse_args()
    with refusing(parser):
        overrides = configuration.parse_overrides(options.set)
        configuration.load(CONFIG, overrides)
    print(json.dumps(compare(options.runs, overrides)))


if __name__ == "__main__":
    main()
