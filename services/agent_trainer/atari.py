"""Atari games: many at once in C++, with the score out of sight, and filmed in colour by playing them again.

The Arcade Learning Environment steps all copies of a game in its own threads and prepares the frames there:
the larger of the last two of four frames, grey, small, the last four stacked. What would give the task away
never leaves this file: rows of the picture that show the score or the bonus are cut off, lives are made
black, a lost life ends nothing, and the end of a game is reported as a time limit like any other.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper

ROWS, COLUMNS = 210, 160  # of the console's picture
FRAMES_PER_STEP = 4
FRAMES_PER_SECOND = 60
# Rows that are shown, to people too; the score stands above them. Games that are not here are shown whole.
VISIBLE = {"pong": (35, 195), "donkey_kong": (14, 194)}
# Boxes within them that are made black (top, bottom, left, right): Donkey Kong's two boxes are lives.
BLACK = {"donkey_kong": (20, 35, 112, 132)}


@dataclass(frozen=True)
class Settings:
    """How a game is prepared; the fields are those of a configuration's `[atari]`."""

    frame_size: int = 84
    sticky_actions: float = 0.0
    actions: tuple[int, ...] | None = None
    max_frames: int = 27_000


Kind = tuple[str, int, int, float, int]  # what copies of a game are: see make_games
# Copies that nobody plays. A stage needs as many alike as the one before, and making one takes 90 ms.
_idle: dict[Kind, VectorEnv[Any, Any, Any]] = {}
KINDS_KEPT = 5  # what a round plays, evaluates, films for clips and for the video, and one to look at


class Game(VectorWrapper[Any, Any, Any]):
    """Copies of a game that show only what may be seen, and take only the actions that are allowed."""

    def __init__(self, env: VectorEnv[Any, Any, Any], kind: Kind, settings: Settings, hide_end: bool) -> None:
        super().__init__(env)
        self.kind, self.hide_end = kind, hide_end
        game = kind[0]
        height, width = env.single_observation_space.shape[1:3]  # type: ignore[index]
        first, last = VISIBLE.get(game, (0, ROWS))
        # A small row is a mean of the console's rows that it covers, so one that is partly hidden is hidden.
        self.rows = slice(-(-first * height // ROWS), last * height // ROWS)
        top, bottom, left, right = BLACK.get(game, (0, 0, 0, 0))
        self.black = (
            slice(top * height // ROWS, -(-bottom * height // ROWS)),
            slice(left * width // COLUMNS, -(-right * width // COLUMNS)),
        )
        every = range(int(env.single_action_space.n))  # type: ignore[attr-defined]
        self.allowed = np.array(settings.actions or every)
        stack, height, *rest = env.single_observation_space.shape or ()
        shape = (stack, len(range(height)[self.rows]), *rest)
        self.single_observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        self.single_action_space = gym.spaces.Discrete(len(self.allowed))
        for name in ("observation", "action"):
            space = getattr(self, f"single_{name}_space")
            setattr(self, f"{name}_space", gym.vector.utils.batch_space(space, env.num_envs))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin new games; copy i is seeded with `seed + i`."""
        observations, _ = self.env.reset(seed=seed, options=options)
        return self.visible(observations), {}

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Play a step in each; `final_obs` [N, ...] has the last picture of those that ended."""
        observations, rewards, terminated, truncated, info = self.env.step(self.allowed[actions])
        if self.hide_end:
            terminated, truncated = np.zeros_like(terminated), terminated | truncated
        final = {"final_obs": self.visible(info["final_obs"])} if "final_obs" in info else {}
        return self.visible(observations), rewards, terminated, truncated, final

    def close(self, **options: Any) -> None:
        """End the play, and leave the copies to whoever makes as many alike next."""
        if self.env is not None:
            _idle[self.kind] = self.env
            self.env = None  # type: ignore[assignment]  # who plays on would disturb others
            while len(_idle) > KINDS_KEPT:
                del _idle[next(iter(_idle))]

    def visible(self, frames: np.ndarray) -> np.ndarray:
        """Return what may be seen of frames [N, C, H, W, ...]."""
        if self.black[0].stop:
            frames[:, :, self.black[0], self.black[1]] = 0
        return frames[:, :, self.rows]


def rom_name(env_id: str) -> str | None:
    """Return the name under which the game of `ALE/DonkeyKong-v5` is known to ALE, None if it is none."""
    known = gym.registry.get(env_id) if env_id.startswith("ALE/") else None
    return str(known.kwargs["game"]) if known else None


def make_games(
    game: str, count: int, settings: Settings, hide_end: bool = False, colour: bool = False
) -> Game:
    """Make `count` copies of a game that reset in the same step.

    `colour` shows single frames as people see them, [1, H, W, 3], instead of four small grey ones
    [4, H, W]; everything else about the play is the same.
    """
    size = 0 if colour else settings.frame_size
    kind = game, count, size, settings.sticky_actions, settings.max_frames
    games = _idle.pop(kind, None) or AtariVectorEnv(
        game,
        count,
        num_threads=1 if count == 1 else 0,
        max_num_frames_per_episode=settings.max_frames,
        repeat_action_probability=settings.sticky_actions,
        autoreset_mode=AutoresetMode.SAME_STEP,
        img_height=size or ROWS,
        img_width=size or COLUMNS,
        grayscale=not colour,
        stack_num=1 if colour else 4,
        frameskip=FRAMES_PER_STEP,
        reward_clipping=False,
    )
    unknown = [action for action in settings.actions or () if action >= games.single_action_space.n]  # type: ignore[attr-defined]
    if unknown:
        raise ValueError(f"{game} has {games.single_action_space.n} actions, and none of number {unknown}")  # type: ignore[attr-defined]
    return Game(games, kind, settings, hide_end)


def pictures(
    game: str, settings: Settings, seed: int, actions: np.ndarray, wanted: Mapping[int, set[int]]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Play `actions` [T, N] again in copies seeded with `seed`, `seed + 1`, …; give pictures as they come.

    Of each copy those of the steps that are `wanted`: copy, step and frame [H, W, 3] uint8 of what it led to.
    ALE draws every chance, sticky actions included, from the seed, so the same play comes out of it; training
    never pays for a picture.
    """
    games = make_games(game, actions.shape[1], settings, colour=True)
    games.reset(seed=seed)
    for step in range(max(map(max, wanted.values()), default=-1) + 1):
        observations, _, terminated, truncated, info = games.step(actions[step])
        for copy in [copy for copy, steps in wanted.items() if step in steps]:
            ended = terminated[copy] or truncated[copy]
            yield copy, step, (info["final_obs"] if ended else observations)[copy, 0].copy()
    games.close()
