"""EnvPool playing an Atari game at random: `python with_envpool.py TASK ENVS STEPS`."""

import sys

import envpool
import numpy as np
from turn import Clock, serve


def main(task: str, count: int, steps: int) -> None:
    """Play `steps` in each environment whenever asked."""
    envs = envpool.make(task, env_type="gymnasium", num_envs=count, num_threads=2, seed=1)
    draw, actions = np.random.default_rng(1), int(envs.action_space.n)
    envs.reset()

    def work(clock: Clock) -> dict[str, float]:
        clock.restart()
        for _ in range(steps):
            envs.step(draw.integers(actions, size=count))
        return {"units": 4 * count * steps}

    serve(work)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
