"""How often CartPole is solved with a number of labels, through the whole embedded system.

    python -m benchmarks.cartpole_labels --seeds 1-30 --labels 100 --teacher oracle
    python -m benchmarks.cartpole_labels --seeds 1-30 --labels 150 --teacher mistake
    python -m benchmarks.cartpole_labels --seeds 1-30 --labels 100 --teacher coin

One system is started: labeler, coordinator, both trainers. Every seed is an experiment of its own, answered
over HTTP by a teacher of its own. No run stops early: a run counts as solved when the *final* policy's mean
true return over 100 evaluation episodes is at least 475, after the whole budget. The last line is one JSON
object.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from benchmarks.learning import configurations, wilson
from benchmarks.options import positive, refusing, seeds_of
from services import embedded, sitting, teachers
from services.client import Refused
from services.embedded import System
from shared.config import ExperimentConfig
from shared.settings import load_settings

START_S = 60.0
LOOK_S = 2.0  # between two looks for a failed round
KEEP_S = 0.25  # between two looks after the parts of the system


def run(system: System, config: ExperimentConfig, kind: str) -> dict[str, Any]:
    """Run one experiment to its end and return its report, as the admin API gives it."""
    embedded.ensure_experiment(system, config)
    teacher = teachers.Teacher(kind, seed=config.seed)
    name = f"{teacher.kind}-{config.seed}"
    teachers.teach(
        teachers.Lesson(system.url, config.name, teacher, system.secrets.teacher_token, name),
        should_stop=failure_of(system, config.name),
    )
    with sitting.admin(system) as api:
        report: dict[str, Any] = api.call("GET", f"/experiments/{config.name}")
    if report["state"] != "finished":
        raise RuntimeError(f"{config.name} did not finish: {report['rounds'][-1]['error']}")
    return report


def failure_of(system: System, name: str) -> Callable[[], bool]:
    """Return a function that says, looking every two seconds, whether `name` has a failed round."""
    looked_at = 0.0

    def failed() -> bool:
        nonlocal looked_at
        if time.monotonic() - looked_at < LOOK_S:
            return False
        looked_at = time.monotonic()
        with sitting.admin(system) as api:
            return bool(api.call("GET", f"/experiments/{name}")["rounds"][-1]["state"] == "failed")

    return failed


def wait_until_up(system: System) -> None:
    """Wait for the labeler's first answer."""
    began = time.monotonic()
    with sitting.admin(system) as api:
        while True:
            try:
                api.call("GET", "/experiments")
                return
            except Refused:
                if time.monotonic() - began > START_S:
                    raise
                time.sleep(0.1)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--config", type=Path, default=Path("configs/cartpole.toml"), help="the configuration"
    )
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("1-30"), help="1-30 or 4,7,9")
    parser.add_argument(
        "--labels", type=positive, default=100, help="labels in all, shared out over the rounds"
    )
    parser.add_argument("--teacher", choices=teachers.KINDS, default="oracle", help="who answers")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    parser.add_argument("--parallel", type=positive, default=2, help="experiments under way at once")
    args = parser.parse_args()
    fixed = ["evaluation.episodes=100", "evaluation.stop_when_solved=false"]
    with refusing(parser):
        configs = configurations(args.config, args.set + fixed, args.seeds, args.labels)
    configs = [config.model_copy(update={"name": f"seed-{config.seed}"}) for config in configs]
    goal = configs[0].evaluation.solved_return
    if goal is None:
        parser.error(f"{args.config} has no evaluation.solved_return to reach")
    results = []
    with (
        tempfile.TemporaryDirectory(prefix="lockstep-") as folder,
        embedded.running(load_settings(data_dir=folder, port=0)) as system,
        ThreadPoolExecutor(args.parallel) as pool,
        Progress(console=Console(file=sys.stderr)) as bar,
    ):
        wait_until_up(system)
        task = bar.add_task(f"{args.teacher}, {args.labels} labels", total=len(configs))
        print(f"{'seed':>5} {'labels':>6} {'seconds':>8}  true return by round")
        futures = [pool.submit(run, system, config, args.teacher) for config in configs]
        for config, future in zip(configs, futures, strict=True):
            while not future.done():
                system.look_after()
                time.sleep(KEEP_S)
            results.append(summary(config.seed, future.result()))
            line = "{seed:5d} {labels:6d} {seconds:8.1f}  ".format(**results[-1])
            print(line + " ".join(f"{value:6.1f}" for value in results[-1]["by_round"]), flush=True)
            bar.advance(task)
    solved = sum(result["by_round"][-1] >= goal for result in results)
    low, high = wilson(solved, len(results))
    print(f"solved {solved} of {len(results)}, 95 % Wilson interval {low:.2f} to {high:.2f}")
    last_line = {
        "seeds": args.seeds,
        "solved": solved,
        "labels": [result["labels"] for result in results],
        "returns": [result["by_round"][-1] for result in results],
        "seconds": [result["seconds"] for result in results],
    }
    print(json.dumps(last_line))


def summary(seed: int, report: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of one run."""
    rounds = report["rounds"]
    return {
        "seed": seed,
        "labels": sum(one["labels"]["given"] for one in rounds),
        "seconds": round(elapsed_s(report), 1),
        "by_round": [round(one["evaluation"]["mean"], 1) for one in rounds],
    }


def elapsed_s(report: dict[str, Any]) -> float:
    """Return the seconds from an experiment's creation to its end."""
    created, ended = (datetime.fromisoformat(report[key]) for key in ("created_at", "ended_at"))
    return (ended - created).total_seconds()


if __name__ == "__main__":
    main()
