"""How dependably PPO learns a game from its own score: `python -m benchmarks.agent_alone --seeds 11-13`.

No labels and no reward model: what a preset's agent makes of a reward that is right bounds what preferences
can teach it. These figures are never those of preferences. A line for each seed has the points won and lost
in each part of the training, over all games at once; the last line is one JSON object. `--until` stops a
schedule early: the first part of a run tells most of what a setting does.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorWrapper

from benchmarks.learning import MemoryStore, seeds_of
from services.agent_trainer import envs, ppo, stages
from services.torch_setup import set_threads
from shared import config as configuration
from shared.config import ExperimentConfig

PART = 20_480  # steps whose points are counted together


class Points(VectorWrapper[Any, Any, Any]):
    """Games, and the points that were won and lost in them since they were last asked for."""

    won = lost = 0

    def step(self, actions: Any) -> Any:
        """Play a step in each, and count."""
        stepped = self.env.step(actions)
        self.won += int((stepped[1] > 0).sum())
        self.lost += int((stepped[1] < 0).sum())
        return stepped

    def take(self) -> tuple[int, int]:
        """Return both counts, and begin anew."""
        counts, self.won, self.lost = (self.won, self.lost), 0, 0
        return counts


def learn(config: ExperimentConfig, steps: int, until: int) -> list[tuple[int, int]]:
    """Train a fresh agent on the true reward with a schedule of `steps`; return the points of each part."""
    args = ppo.Args(
        env_id=config.env_id,
        seed=config.seed,
        **config.agent.model_dump(exclude=stages.NOT_PPO | {"total_steps"}),
        total_steps=steps,
    )
    games = Points(envs.make_envs(config.env_id, args.num_envs, config.agent.linger, stages.games(config)))
    agent = stages.load_agent(config, MemoryStore(), None)
    parts, batch, played = list[tuple[int, int]](), args.num_envs * args.num_steps, 0

    def count(fraction: float, metrics: dict[str, float]) -> None:
        nonlocal played
        played += batch
        if played >= PART * (len(parts) + 1):
            parts.append(games.take())

    ppo.train(args, agent, games, "env", count, lambda: played >= until)
    games.close()
    return parts


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/pong.toml"), help="the configuration")
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("11-13"), help="11-13 or 4,7,9")
    parser.add_argument("--steps", type=int, help="of the schedule (default: those of the last round)")
    parser.add_argument("--until", type=int, help="stop after so many steps (default: at the end)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    args = parser.parse_args()
    overrides = configuration.parse_overrides(args.set)
    set_threads()
    shares, minutes = [], []
    for seed in args.seeds:
        config = configuration.load(args.config, overrides | {"seed": seed})
        steps = args.steps or config.agent.final_steps or config.agent.total_steps
        used = time.process_time()
        parts = learn(config, steps, args.until or steps)
        minutes.append(round((time.process_time() - used) / 60, 1))
        shares.append([round(won / max(1, won + lost), 2) for won, lost in parts])
        points = " ".join(f"{won}:{lost}" for won, lost in parts)
        print(
            f"seed {seed:3d}  won:lost in each {PART} steps  {points}  {minutes[-1]} core minutes", flush=True
        )
    last = [one[-1] for one in shares if one]
    if last:
        print(
            f"won at last: {np.mean(last):.2f} of all points on average, {min(last):.2f} with the worst seed"
        )
    print(json.dumps({"seeds": args.seeds, "set": args.set, "won": shares, "core_minutes": minutes}))


if __name__ == "__main__":
    main()
