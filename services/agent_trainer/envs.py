"""Environments: how they are made, what they hide from everything that learns, and what a teacher judges by.

An end that the environment decides on (a pole that falls) would give the task away: an agent that knows
when it is cut off learns to last, whatever people prefer. So such an end is hidden. `HideTermination` reports
it as a time limit like any other, and first lets the episode linger: the last observation stays for some
steps, so that segments can show the end without crossing it, and a fallen pole is a place to be in, good or
bad only by people's judgement.
"""

import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import DtypeObservation, FrameStackObservation

from services.agent_trainer import atari, donkey_kong
from shared.config import DONKEY_KONG
from shared.settings import load_settings

# Frames are drawn off screen; pygame needs no display and should not greet on standard output.
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

Env = gym.Env[Any, Any]
MAX_WIDTH = 320  # pixels of a frame; larger ones are reduced by whole numbers
STACK = 4  # grey pictures that the agent sees at once
MIN_PICTURE = 36  # pixels of a side: less leaves nothing for the convolutions
REPEATED = 25  # steps that an environment of somebody's own must play alike twice


class UnknownEnvironment(ValueError):
    """No such environment, or one that this agent cannot play; the message says what would do."""


class HideTermination(gym.Wrapper[Any, Any, Any, Any]):
    """Never report `terminated`: hold the last observation for `linger` rewardless steps, then truncate."""

    def __init__(self, env: Env, linger: int) -> None:
        super().__init__(env)
        self.linger = linger
        self.left: int | None = None  # steps left to linger; None while the episode is going on
        self.last: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, Any]:
        """Begin a new episode."""
        self.left = None
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Play a step, or let one pass if the episode has come to its hidden end."""
        if self.left is not None:
            self.left -= 1
            return self.last, 0.0, False, self.left == 0, {}
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated and self.linger > 0:
            self.left, self.last = self.linger, observation
            return observation, reward, False, False, info
        return observation, reward, False, terminated or truncated, info


def make_env(env_id: str, linger: int | None = None, render: bool = False) -> Env:
    """Make one environment: as it is, or with its termination hidden if `linger` is given.

    Of an environment that observes single grey pictures the last STACK are stacked. Raises UnknownEnvironment
    if Gymnasium does not know it or the agent cannot play it.
    """
    if ":" in env_id and (own := str(load_settings().environments_dir)) not in sys.path:
        sys.path.insert(0, own)  # first, as in a trainer process
    try:
        env: Env = gym.make(env_id, render_mode="rgb_array" if render else None, disable_env_checker=True)
    except Exception as error:
        raise UnknownEnvironment(_why_not(env_id, error)) from error
    _check_playable(env_id, env)
    if render and env_id.startswith("CartPole-"):  # drawn small: four times as fast
        screen = {"screen_width": 320, "screen_height": 240}
        vars(env.unwrapped).update(screen)
    if linger is not None:
        env = HideTermination(env, linger)
    space = env.observation_space
    if len(space.shape or ()) == 2:
        return FrameStackObservation(env, STACK)
    return env if np.issubdtype(space.dtype, np.floating) else DtypeObservation(env, np.float32)


def _why_not(env_id: str, error: Exception) -> str:
    """Say why an environment cannot be made, and what would help."""
    module, colon, name = env_id.partition(":")
    if not colon:
        works = "ALE/Pong-v5" if env_id.startswith("ALE/") else "CartPole-v1"
        return f"there is no environment {env_id!r} to play ({error}); {works} is one that works"
    if isinstance(error, ModuleNotFoundError) and f"'{module}'" in str(error):
        return (
            f"there is no module {module!r} that could register {name}: {module}.py belongs into the folder "
            f"that LOCKSTEP_ENVIRONMENTS_DIR names ({load_settings().environments_dir}), on every machine "
            "that trains"
        )
    if isinstance(error, gym.error.UnregisteredEnv):
        return (
            f"{module} can be imported, but registers no environment {name} ({error}): it should call "
            f"gymnasium.register({name!r}, entry_point=…, max_episode_steps=…)"
        )
    return f"{env_id} cannot be made: {type(error).__name__}: {error}"


def _check_playable(env_id: str, env: Env) -> None:
    """Raise UnknownEnvironment unless the agent can play it and people can watch it."""
    seen = env.observation_space
    vector = isinstance(seen, gym.spaces.Box) and len(seen.shape) == 1
    picture = isinstance(seen, gym.spaces.Box) and len(seen.shape) == 2 and seen.dtype == np.uint8
    if not vector and not (picture and min(seen.shape or (0,)) >= MIN_PICTURE):
        raise UnknownEnvironment(
            f"{env_id} observes {seen}; the agent needs a vector of numbers, or one grey picture, uint8 "
            f"[H, W] of at least {MIN_PICTURE} pixels a side (gymnasium.wrappers.GrayscaleObservation and "
            "ResizeObservation make one)"
        )
    if not isinstance(env.action_space, gym.spaces.Discrete) or env.action_space.start != 0:
        raise UnknownEnvironment(
            f"{env_id} acts in {env.action_space}; the agent needs Discrete actions, numbered from 0"
        )
    if env.spec is None or env.spec.max_episode_steps is None:
        raise UnknownEnvironment(
            f"{env_id} has no time limit, so an episode might never end: register it with max_episode_steps"
        )
    if "rgb_array" not in env.metadata.get("render_modes", ()):
        raise UnknownEnvironment(
            f"{env_id} cannot be drawn for people: its metadata names no render mode rgb_array, in which "
            "render() returns a picture, uint8 [H, W, 3]"
        )


def check(env_id: str) -> None:
    """Raise UnknownEnvironment unless an environment of somebody's own keeps Gymnasium's rules and ours.

    That it does the same again from the same seed is among them: people's pictures are drawn in a replay.
    """
    env = make_env(env_id, render=True)
    try:
        with warnings.catch_warnings():  # advice, which a stage cannot pass on
            warnings.simplefilter("ignore")
            check_env(env.unwrapped, skip_render_check=True)
            if _first_steps(env) != _first_steps(env):  # check_env looks at one step, where chance may agree
                raise ValueError(
                    "it is not deterministic, the same seed and actions led to something else. "
                    "Draw every random number from self.np_random"
                )
            env.reset(seed=1)
            _picture(env_id, env)
    except UnknownEnvironment:
        raise
    except Exception as error:
        raise UnknownEnvironment(f"{env_id} breaks a rule of Gymnasium: {error}") from error
    finally:
        env.close()


def _first_steps(env: Env) -> list[bytes]:
    """Return what an environment shows from one seed and one row of random actions on, always the same."""
    env.action_space.seed(1)
    seen, ended = [np.asarray(env.reset(seed=1)[0]).tobytes()], False
    while not ended and len(seen) <= REPEATED:
        observation, _, terminated, truncated, _ = env.step(env.action_space.sample())
        seen.append(np.asarray(observation).tobytes())
        ended = terminated or truncated
    return seen


def _picture(env_id: str, env: Env) -> np.ndarray:
    """Return what people see of an environment now: a frame [H, W, 3] uint8."""
    frame = np.asarray(env.render())
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise UnknownEnvironment(
            f"{env_id} cannot be shown: render() must return a picture, uint8 [H, W, 3], not "
            f"{frame.dtype} {list(frame.shape)}"
        )
    return shrink(frame)


def make_envs(
    env_id: str, count: int, linger: int | None = None, settings: atari.Settings | None = None
) -> VectorEnv[Any, Any, Any]:
    """Make `count` environments that are stepped together and reset in the same step.

    `linger` hides termination, see `make_env`; a game of Atari has its end hidden, and never lingers.
    """
    if game := atari.rom_name(env_id):
        return atari.make_games(game, count, settings or atari.Settings(), hide_end=linger is not None)
    make_env(env_id).close()  # a clear error before Gymnasium's own
    if ":" in env_id:  # somebody's own, which may break a rule that shows only later
        check(env_id)
    makers = [lambda: make_env(env_id, linger)] * count
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP)


class Episodes:
    """Whole episodes of an environment as it is, side by side, one each: copy i is seeded with `seed + i`."""

    def __init__(self, env_id: str, count: int, seed: int, settings: atari.Settings) -> None:
        game = atari.rom_name(env_id)
        self.games = atari.make_games(game, count, settings) if game else None
        self.envs = [] if game else [make_env(env_id) for _ in range(count)]
        self.current: np.ndarray  # [count, *O]: where each episode stands
        if self.games:
            self.current = self.games.reset(seed=seed)[0].copy()
        else:
            self.current = np.stack([env.reset(seed=seed + i)[0] for i, env in enumerate(self.envs)])

    def step(self, alive: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Take actions [n] in the copies numbered `alive` [n]; return rewards [n] and who ended [n]."""
        if self.games:  # all are stepped, and those that have ended play on unseen
            full = np.zeros(len(self.current), int)
            full[alive] = actions
            observations, rewards, terminated, truncated, info = self.games.step(full)
            ended = (terminated | truncated)[alive]
            self.current[alive] = observations[alive]
            if ended.any():
                self.current[alive[ended]] = info["final_obs"][alive[ended]]
            return rewards[alive], ended
        rewards, ended = np.zeros(len(alive)), np.zeros(len(alive), bool)
        for row, (i, action) in enumerate(zip(alive, actions.tolist(), strict=True)):
            self.current[i], rewards[row], terminated, truncated, _ = self.envs[i].step(action)
            ended[row] = terminated or truncated
        return rewards, ended

    def close(self) -> None:
        """Let go of what the environments hold."""
        for env in [self.games] if self.games else self.envs:
            env.close()


def judgement(
    env_id: str, settings: atari.Settings, seed: int, actions: np.ndarray, observations: np.ndarray | None,
    rewards: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """Return what a teacher judges by, one number for each of T steps, played from `seed` on.

    actions: [T]; observations: [T, D] what each step led to, None for frames; rewards: [T] the environment's
    own. Teachers alone read it. It is the environment's reward, but in CartPole (`judge_cartpole`) and
    Donkey Kong.
    """
    if env_id == DONKEY_KONG:
        return donkey_kong.judge(donkey_kong.memory(settings, seed, actions.tolist()), rewards)
    if env_id.startswith("CartPole-") and observations is not None:
        return judge_cartpole(observations)
    return rewards.astype(np.float64)


def judge_cartpole(observations: np.ndarray) -> np.ndarray:
    """Return the judgement [T] of CartPole states [T, 4]: position, speed, angle, angular speed.

    CartPole's own reward is 1 a step, so segments of equal length would always tie. What a sensible person
    looks at instead: a fallen pole, or a cart off the track, is the worst (−2 a step); any other step is
    worth 1, less how far the cart is from the centre (up to 0.5), how far the pole leans (up to 0.3) and how
    much both move (up to 0.1 each). The limits are those at which the environment ends an episode.
    """
    x, speed, angle, spin = np.abs(observations.astype(np.float64)).T
    x, angle = x / 2.4, angle / np.radians(12)
    calm = 1 - 0.5 * x - 0.3 * angle - 0.1 * np.minimum(speed / 2, 1) - 0.1 * np.minimum(spin / 2, 1)
    return np.where((x > 1) | (angle > 1), -2.0, calm)


def replay(
    env_id: str, linger: int | None, seed: int, actions: np.ndarray, segments: Sequence[tuple[int, range]],
    settings: atari.Settings | None = None,
) -> Iterator[tuple[int, np.ndarray]]:  # fmt: skip
    """Play `actions` [T, N] again in environments seeded with `seed`, `seed + 1`, …, and film segments of it.

    A segment is an environment and the steps of it to show. Gives each segment's place in `segments` and what
    its steps led to, frames [L, H, W, 3] uint8, as soon as the last is there: few are in memory at a time.

    An environment is a function of its seed and its actions, so pictures need not be drawn, nor kept, while
    the agent plays: only those that people will see are drawn afterwards. Episodes follow one another as
    they do in `make_envs`.
    """
    mine: dict[int, list[int]] = {}  # of each environment its segments
    for number, (env, _) in enumerate(segments):
        mine.setdefault(env, []).append(number)
    wanted = {env: {step for number in mine[env] for step in segments[number][1]} for env in mine}
    if game := atari.rom_name(env_id):
        drawn = atari.pictures(game, settings or atari.Settings(), seed, actions, wanted)
    else:
        drawn = _pictures(env_id, linger, seed, actions, wanted)
    frames: dict[int, list[np.ndarray]] = {}
    for env, step, frame in drawn:
        for number in mine[env]:
            steps = segments[number][1]
            if step in steps:
                frames.setdefault(number, []).append(frame)
                if step == steps[-1]:
                    yield number, np.stack(frames.pop(number))


def _pictures(
    env_id: str, linger: int | None, seed: int, actions: np.ndarray, wanted: Mapping[int, set[int]]
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Do what `atari.pictures` does, for the environments of Gymnasium: one after another."""
    for copy, steps in wanted.items():
        env = make_env(env_id, linger, render=True)
        env.reset(seed=seed + copy)
        lingering, frame = False, None
        for step, action in enumerate(actions[: max(steps) + 1, copy].tolist()):
            _, _, terminated, truncated, _ = env.step(action)
            if step in steps:
                if frame is None or not lingering:  # a picture that stands still is drawn once
                    frame = _picture(env_id, env)
                yield copy, step, frame
                lingering = isinstance(env, HideTermination) and env.left is not None
            else:
                frame = None
            if terminated or truncated:
                env.reset()
                lingering, frame = False, None
        env.close()


def shrink(frame: np.ndarray) -> np.ndarray:
    """Return a frame [H, W, 3] reduced by a whole number to at most MAX_WIDTH, with even sides."""
    factor = -(-frame.shape[1] // MAX_WIDTH)
    if factor > 1:  # the mean of two pixels of each block, on its diagonal, keeps thin lines
        height, width = (side // factor * factor for side in frame.shape[:2])
        a, b = frame[:height:factor, :width:factor], frame[1:height:factor, 1:width:factor]
        frame = (a & b) + ((a ^ b) >> 1)
    return np.ascontiguousarray(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])


def frame_rate(env_id: str) -> float:
    """Return the frames a second at which the environment's play runs at its natural speed."""
    if atari.rom_name(env_id):
        return atari.FRAMES_PER_SECOND / atari.FRAMES_PER_STEP
    env = make_env(env_id)
    env.close()
    return float(env.metadata.get("render_fps", 30))
