"""Gymnasium's SyncVectorEnv playing an Atari game at random: `python with_gymnasium.py ENV ENVS STEPS`."""

import sys

import ale_py
import gymnasium as gym
import numpy as np
from turn import Clock, serve


def main(env_id: str, count: int, steps: int) -> None:
    """Play `steps` in each environment whenever asked."""
    gym.register_envs(ale_py)

    def make() -> gym.Env:
        env = gym.make(env_id, frameskip=1, repeat_action_probability=0.0)
        env = gym.wrappers.AtariPreprocessing(env, frame_skip=4, screen_size=84)
        return gym.wrappers.FrameStackObservation(env, 4)

    envs = gym.vector.SyncVectorEnv([make] * count, autoreset_mode=gym.vector.AutoresetMode.SAME_STEP)
    draw, actions = np.random.default_rng(1), int(envs.single_action_space.n)
    envs.reset(seed=1)

    def work(clock: Clock) -> dict[str, float]:
        clock.restart()
        for _ in range(steps):
            envs.step(draw.integers(actions, size=count))
        return {"units": 4 * count * steps}

    serve(work)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
