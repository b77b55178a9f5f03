"""CleanRL's PPO, its script unchanged: `python with_cleanrl.py CHECKOUT ppo_atari ENV STEPS`.

Timed from the first reset of the environments on: how long they take to make is no part of it.
"""

import contextlib
import io
import re
import runpy
import sys
from pathlib import Path

import ale_py.registration
import gymnasium as gym
from turn import Clock, serve


def main(checkout: str, script: str, env_id: str, steps: int) -> None:
    """Train for `steps` whenever asked, each time from new weights with another seed."""
    ale_py.registration.register_v0_v4_envs()  # this Gymnasium does not ask ALE for its games by itself
    sys.path.insert(0, checkout)
    reset, clocks, seed = gym.vector.SyncVectorEnv.reset, [Clock()], 0

    def timed_reset(self, **options):
        clocks[-1].restart()
        return reset(self, **options)

    gym.vector.SyncVectorEnv.reset = timed_reset

    def work(clock: Clock) -> dict[str, float]:
        nonlocal seed
        seed += 1
        clocks.append(clock)
        path = str(Path(checkout, "cleanrl", f"{script}.py"))
        sys.argv = [path, "--env-id", env_id, "--total-timesteps", str(steps), "--seed", str(seed)]
        with contextlib.redirect_stdout(io.StringIO()) as said:
            runpy.run_path(path, run_name="__main__")
        found = re.findall(r"global_step=\d+, episodic_return=\[?([-\d.]+)", said.getvalue())
        last = [float(value) for value in found[-20:]]
        return {"units": steps, "return": sum(last) / len(last) if last else float("nan")}

    serve(work)


if __name__ == "__main__":
    main(*sys.argv[1:4], int(sys.argv[4]))
