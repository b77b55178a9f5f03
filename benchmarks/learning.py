"""How often CartPole is solved with a number of labels: the stages of the real system, in one process.

    python -m benchmarks.learning --seeds 1-30 --labels 60 --teacher oracle
    python -m benchmarks.learning --seeds 1-30 --labels 60 --set segments.length=25 --set segments.noise=0

The stages are the very functions that the workers run; database, queue, pages and pictures are left out, so
that a run takes seconds. A run counts as solved when the final policy's mean true return is at least the
configuration's `evaluation.solved_return` after the whole budget; no run stops early. The last line is one
JSON object.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.options import positive, refusing, seeds_of
from services.agent_trainer import stages as agent_stages
from services.reward_trainer import stages as reward_stages
from services.teachers import KINDS, Teacher, answer
from shared import config as configuration
from shared import memory
from shared.config import ExperimentConfig
from shared.jobs import Artifact, CollectJob, LabelRecord, TrainAgentJob, TrainRewardJob


@dataclass
class MemoryStore:
    """A store that lasts as long as the run."""

    data: dict[str, bytes] = field(default_factory=dict)

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`."""
        self.data[key] = data

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Return what was kept."""
        return self.data[key]


Trained = tuple[MemoryStore, Artifact, Artifact]  # with the newest reward model and agent
Tell = Callable[[int, float, Trained], None]


def run(
    config: ExperimentConfig, teacher: Teacher, tell: Tell = lambda number, mean, trained: None
) -> dict[str, Any]:
    """Run all rounds of one experiment; return what came of each.

    `tell` hears of each round its number, the mean true return and what was trained.
    """
    store, data = MemoryStore(), config.model_dump()
    labels: list[LabelRecord] = []
    agent: Artifact | None = None
    model: Artifact | None = None
    rounds, labeled = list[float](), list[int]()
    begin, times, peaks = time.perf_counter(), np.zeros(3), np.zeros(3)
    for number in range(1, config.rounds + 1):
        about: dict[str, Any] = {"attempt_id": 1, "round_number": number, "seed": config.seed}
        about |= {"prefix": f"{number}/", "config": data, "log_dir": None}

        def around(stage: str, number: int = number) -> tuple[Any, ...]:
            words = f"seed {config.seed}, round {number}: {stage}"
            return store, lambda done, metrics: on_terminal(f"{words}, {done:.0%}"), lambda: False

        clock = [time.perf_counter()]
        collected = agent_stages.collect(
            CollectJob(**about, agent=agent, reward_model=model), *around("collecting"), encode=None
        )
        judgements = [clip.judgement for clip in collected.clips]
        for comparison in collected.comparisons:
            ranks = answer(teacher, number, judgements, *comparison.clips)
            clips = [collected.clips[i].npz for i in comparison.clips]
            if ranks is not None:
                labels.append(LabelRecord(clips, ranks, comparison.held_out, teacher.kind, number))
        clock.append(time.perf_counter())
        trained = reward_stages.train_reward(
            TrainRewardJob(**about, labels=labels, reward_model=model, agent=agent),
            *around("training the reward model"),
        )
        model = trained.reward_model
        clock.append(time.perf_counter())
        result = agent_stages.train_agent(
            TrainAgentJob(**about, reward_model=model, agent=agent),
            *around("training the agent"),
            encode=None,
        )
        agent = result.agent
        clock.append(time.perf_counter())
        times += np.diff(clock)
        peaks = np.maximum(peaks, [one.metrics[memory.METRIC] for one in (collected, trained, result)])
        rounds.append(float(np.mean(result.true_returns)))
        labeled.append(len(labels))
        on_terminal("")
        tell(number, rounds[-1], (store, model, agent))
    return {
        "labels": len(labels),
        "labels_after": labeled,  # each round
        "rounds": rounds,
        "seconds": time.perf_counter() - begin,
        "stage_seconds": times.round(2).tolist(),
        "stage_peak_mib": peaks.round().tolist(),
        "metrics": trained.metrics,
    }


def on_terminal(words: str) -> None:
    """Show words, if somebody looks on, in a line that the next ones take the place of."""
    if sys.stderr.isatty():
        print(f"\r\033[K{words}", end="\r", file=sys.stderr, flush=True)


def wilson(solved: int, runs: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a rate (Wilson 1927)."""
    z, rate = 1.96, solved / runs
    centre, spread = (
        rate + z * z / (2 * runs),
        z * math.sqrt(rate * (1 - rate) / runs + (z / (2 * runs)) ** 2),
    )
    scale = 1 + z * z / runs
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def label_split(labels: int, rounds: int) -> dict[str, int]:
    """Share `labels` out: round 1 gets twice the share of every other round, and what is left over.

    ValueError if there are too few.
    """
    each = labels // (rounds + 1)
    if each == 0:
        raise ValueError(f"{labels} labels are too few for {rounds} rounds: give {rounds + 1} or more")
    return {"comparisons_per_round": each, "comparisons_first_round": labels - each * (rounds - 1)}


def configurations(
    path: Path, changes: list[str], seeds: list[int], labels: int | None = None
) -> list[ExperimentConfig]:
    """Return a file's configuration with each of `seeds`, changed as `--set` and `--labels` say.

    ValueError, before anything runs, if it cannot be used.
    """
    overrides = configuration.parse_overrides(changes)
    if labels is not None:
        split = label_split(labels, configuration.load(path, overrides).rounds)
        overrides = {f"labels.{key}": value for key, value in split.items()} | overrides
    return [configuration.load(path, overrides | {"seed": seed}) for seed in seeds]


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--config", type=Path, default=Path("configs/cartpole.toml"), help="the configuration"
    )
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("1-30"), help="1-30 or 4,7,9")
    parser.add_argument("--labels", type=positive, help="labels in all, shared out over the rounds")
    parser.add_argument("--teacher", choices=KINDS, default="oracle", help="who answers")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    args = parser.parse_args()
    with refusing(parser):
        configs = configurations(args.config, args.set, args.seeds, args.labels)
    results = []
    for seed, config in zip(args.seeds, configs, strict=True):
        result = run(config, Teacher(args.teacher, seed=seed))
        results.append(result)
        target = config.evaluation.solved_return or math.inf
        by_round = " ".join(f"{value:5.0f}" for value in result["rounds"])
        print(
            f"seed {seed:5d}  labels {result['labels']:4d}  true return by round {by_round}  "
            f"held-out accuracy {result['metrics'].get('held_out/accuracy', math.nan):.2f}  "
            f"{result['seconds']:.1f} s {result['stage_seconds']}",
            flush=True,
        )
    finals = [result["rounds"][-1] for result in results]
    solved = sum(value >= target for value in finals)
    low, high = wilson(solved, len(finals))
    print(f"solved {solved}/{len(finals)}, 95 % Wilson interval {low:.2f} to {high:.2f}")
    summary = {
        "seeds": args.seeds,
        "solved": solved,
        "labels": [result["labels"] for result in results],
        "returns": [round(value, 1) for value in finals],
        "seconds": [round(result["seconds"], 2) for result in results],
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
