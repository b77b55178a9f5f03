"""How dependably PPO learns a game from its true reward: `python -m benchmarks.agent_alone --seeds 11-13`.

No labels and no reward model: what a preset's agent makes of a reward that is right bounds what preferences
can teach it. These figures are never those of preferences. The reward is the game's own score, and a line for
each seed has the points won and lost in each part of the training, over all games at once. Donkey Kong's
score says little: with `--config configs/donkey_kong.toml` the reward is what its teacher judges by, how far
Mario is, and the line has the games that ended, and those that led up the first whole ladder and the second.

The last line is one JSON object. `--until` stops a schedule early: the first part of a run tells most of what
a setting does.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorWrapper

from benchmarks.atari import LADDERS
from benchmarks.learning import MemoryStore, configurations
from benchmarks.options import positive, refusing, seeds_of
from services.agent_trainer import donkey_kong, envs, ppo, stages
from services.torch_setup import set_up
from shared.config import DONKEY_KONG, ExperimentConfig

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

    def take(self) -> tuple[int, ...]:
        """Return both counts, and begin anew."""
        counts, self.won, self.lost = (self.won, self.lost), 0, 0
        return counts


class Places(VectorWrapper[Any, Any, Any]):
    """Games of Donkey Kong whose reward is what its teacher judges by, from consoles played beside them."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self.consoles = [donkey_kong.Console() for _ in range(env.num_envs)]
        self.stood: list[np.ndarray] = []  # of each game the memory, as of where he last stood [128]
        self.highest = np.zeros(env.num_envs, int)  # the smallest y of each game so far
        self.ended: list[int] = []  # the same of the games that ended

    def begin(self, game: int, frames: int) -> np.ndarray:
        """Let a console begin where its game does."""
        self.highest[game] = donkey_kong.FLOORS[0]
        return self.consoles[game].begin(frames)

    def reset(self, **options: Any) -> Any:
        """Begin all games."""
        observations, info = self.env.reset(**options)
        self.stood = [self.begin(i, int(n)) for i, n in enumerate(info["episode_frame_number"])]
        return observations, info

    def step(self, actions: Any) -> Any:
        """Play a step in each, and judge it."""
        observations, scores, terminated, truncated, info = self.env.step(actions)
        judged = np.zeros(len(actions), np.float32)
        for i, console in enumerate(self.consoles):
            seen = donkey_kong.grounded(np.stack([self.stood[i], console.step(int(actions[i]))]))
            judged[i] = donkey_kong.judge(seen, np.array([0, scores[i]]))[1]
            self.stood[i] = seen[1]
            self.highest[i] = min(self.highest[i], seen[1, donkey_kong.MARIO_Y])
        for i in np.flatnonzero(terminated | truncated):
            self.ended.append(int(self.highest[i]))
            self.stood[i] = self.begin(i, int(info["episode_frame_number"][i]))
        return observations, judged, terminated, truncated, info

    def take(self) -> tuple[int, ...]:
        """Return how many games ended, and led up the first ladder and the second, and begin anew."""
        ended, self.ended = self.ended, []
        return len(ended), *(sum(y <= ladder for y in ended) for ladder in LADDERS)


def learn(config: ExperimentConfig, steps: int, until: int) -> list[tuple[int, ...]]:
    """Train a fresh agent on the true reward with a schedule of `steps`; return the counts of each part."""
    args = ppo.Args(
        env_id=config.env_id,
        seed=config.seed,
        **config.agent.model_dump(exclude=stages.NOT_PPO | {"total_steps"}),
        total_steps=steps,
    )
    games: Any = envs.make_envs(config.env_id, args.num_envs, config.agent.linger, stages.games(config))
    if config.env_id == DONKEY_KONG:
        games.env = counted = Places(games.env)  # within: the game shows no numbers of actions and frames
    else:
        games = counted = Points(games)  # type: ignore[assignment]
    agent = stages.load_agent(config, MemoryStore(), None)
    parts, batch, played = list[tuple[int, ...]](), args.num_envs * args.num_steps, 0

    def count(fraction: float, metrics: dict[str, float]) -> None:
        nonlocal played
        played += batch
        if played >= PART * (len(parts) + 1):
            parts.append(counted.take())

    ppo.train(args, agent, games, "env", count, lambda: played >= until)
    games.close()
    return parts


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("configs/pong.toml"), help="the configuration")
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("11-13"), help="11-13 or 4,7,9")
    parser.add_argument("--steps", type=positive, help="of the schedule (default: those of the last round)")
    parser.add_argument("--until", type=positive, help="stop after so many steps (default: at the end)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    args = parser.parse_args()
    with refusing(parser):
        configs = configurations(args.config, args.set, args.seeds)
    set_up()
    every, minutes = [], []
    for seed, config in zip(args.seeds, configs, strict=True):
        steps = args.steps or config.agent.final_steps or config.agent.total_steps
        used = time.process_time()
        every.append(learn(config, steps, args.until or steps))
        minutes.append(round((time.process_time() - used) / 60, 1))
        counts = "  ".join(":".join(map(str, part)) for part in every[-1])
        what = "ended:first ladder:second" if config.env_id == DONKEY_KONG else "won:lost"
        print(
            f"seed {seed:3d}  {what} in each {PART} steps  {counts}  {minutes[-1]} core minutes", flush=True
        )
    print(json.dumps({"seeds": args.seeds, "set": args.set, "parts": every, "core_minutes": minutes}))


if __name__ == "__main__":
    main()
