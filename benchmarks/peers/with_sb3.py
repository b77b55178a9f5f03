"""Stable-Baselines3's PPO on an Atari game, set as its model zoo sets it: `python with_sb3.py ENV STEPS`."""

import sys

import ale_py
import gymnasium as gym
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack
from turn import Clock, serve


def main(env_id: str, steps: int) -> None:
    """Train for `steps` whenever asked, each time from new weights with another seed."""
    gym.register_envs(ale_py)
    seed = 0

    def work(clock: Clock) -> dict[str, float]:
        nonlocal seed
        seed += 1
        envs = VecFrameStack(make_atari_env(env_id, n_envs=8, seed=seed), n_stack=4)
        model = PPO(
            "CnnPolicy", envs, n_steps=128, n_epochs=4, batch_size=256, vf_coef=0.5, ent_coef=0.01,
            learning_rate=lambda left: 2.5e-4 * left, clip_range=lambda left: 0.1 * left,
            stats_window_size=20, seed=seed,
        )  # fmt: skip
        clock.restart()
        model.learn(steps)
        done = clock.read()
        last = [episode["r"] for episode in model.ep_info_buffer]
        envs.close()
        return done | {"units": steps, "return": sum(last) / len(last) if last else float("nan")}

    serve(work)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
