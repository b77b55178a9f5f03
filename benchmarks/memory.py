"""How much memory each stage of a game's experiment takes, and that more steps take no more.

    python -m benchmarks.memory --config configs/donkey_kong.toml --labels 1500 --steps 20000 60000

Collecting, training the reward model on that many labels for one epoch, and training the agent for two
numbers of steps run in a process each, which tells its own peak. The last line is one JSON object, in MiB.
"""

import argparse
import json
import multiprocessing
import random
from pathlib import Path
from typing import Any

from benchmarks.learning import MemoryStore, configurations
from benchmarks.options import positive, refusing
from services.agent_trainer import stages
from services.reward_trainer import stages as reward_stages
from shared import memory
from shared.config import ExperimentConfig
from shared.jobs import CollectJob, LabelRecord, TrainAgentJob, TrainRewardJob, put_artifact


def collect(config: ExperimentConfig, labels: int) -> tuple[MemoryStore, list[LabelRecord], float]:
    """Collect one round; return its clips, its comparisons, repeated up to `labels`, and the peak."""
    store = MemoryStore()
    job = CollectJob(**about(config), agent=None, reward_model=None)
    found = stages.collect(job, store, lambda *_: None, lambda: False)
    pairs = [[found.clips[i].npz for i in one.clips] for one in found.comparisons]
    draw = random.Random(1)
    known = [
        LabelRecord(pairs[number % len(pairs)], [0, 1], draw.random() < 0.1, "nobody", 1)
        for number in range(labels)
    ]
    return store, known, found.metrics[memory.METRIC]


def train_reward(
    config: ExperimentConfig, store: MemoryStore, labels: list[LabelRecord]
) -> tuple[bytes, float]:
    """Train a reward model for one epoch; return it and the peak."""
    job = TrainRewardJob(**about(config), labels=labels, reward_model=None, agent=None)
    trained = reward_stages.train_reward(job, store, lambda *_: None, lambda: False)
    return store.get(trained.reward_model.key), float(trained.metrics[memory.METRIC])


def train_agent(config: ExperimentConfig, model: bytes) -> float:
    """Train an agent on that reward model; return the peak."""
    store = MemoryStore()
    saved = put_artifact(store, "reward_model", "model", model)
    job = TrainAgentJob(**about(config), reward_model=saved, agent=None)
    trained = stages.train_agent(job, store, lambda *_: None, lambda: False)
    return float(trained.metrics[memory.METRIC])


def about(config: ExperimentConfig) -> dict[str, Any]:
    """Return what every job says."""
    common = {"attempt_id": 1, "round_number": 1, "seed": 1, "prefix": "p/", "log_dir": None}
    return {**common, "config": config.model_dump()}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/pong.toml"), help="the configuration")
    parser.add_argument("--labels", type=positive, help="labels to train on (default: all of the run's)")
    parser.add_argument(
        "--steps", type=positive, nargs=2, default=[20_000, 60_000], help="two lengths to train"
    )
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    args = parser.parse_args()
    with refusing(parser):
        (config,) = configurations(args.config, [*args.set, "reward_model.epochs=1"], [1])
    count = args.labels or config.label_budget()
    peaks: dict[str, float] = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:  # a fresh process for each
        store, labels, peaks["collecting"] = pool.apply(collect, (config, count))
        what = f"training_reward, {count} labels"
        model, peaks[what] = pool.apply(train_reward, (config, store, labels))
        for steps in args.steps:
            agent = config.agent.model_copy(update={"total_steps": steps})
            longer = config.model_copy(update={"agent": agent})
            peaks[f"training_agent, {steps} steps"] = pool.apply(train_agent, (longer, model))
    for name, peak in peaks.items():
        print(f"{name:36} {peak:8.0f} MiB")
    print(json.dumps({name: round(peak) for name, peak in peaks.items()}))


if __name__ == "__main__":
    main()
