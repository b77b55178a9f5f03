"""An environment of your own, as small as it can be: a basket catches falling fruit.

    env_id = "catch:Catch-v0"         # in a configuration: this file's name, then the registered one

Copy it, rename it, change the rules. What Lockstep asks of an environment: docs/environments.md.
"""

from typing import Any

import gymnasium as gym
import numpy as np

WIDTH, HEIGHT = 9, 10  # cells
PIXELS = 24  # of a cell's side
SKY, FRUIT, BASKET = (235, 243, 250), (214, 68, 60), (92, 64, 42)


class Catch(gym.Env[np.ndarray, int]):
    """Move left, stay or move right, so that the basket is where each fruit comes down.

    Everything random is drawn from `self.np_random`: the same seed and actions must give the same play, since
    what people see is drawn afterwards by playing again.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}  # noqa: RUF012 (Gymnasium's own way)
    observation_space = gym.spaces.Box(0.0, 1.0, (3,), np.float32)
    action_space = gym.spaces.Discrete(3)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin in the middle, with a new fruit."""
        super().reset(seed=seed)  # this seeds self.np_random
        self.basket = WIDTH // 2
        self.drop()
        return self.observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move the basket, let the fruit fall by a cell; a caught fruit is worth 1, a lost one -1.

        The reward is what the simulated teacher judges by, and the true return of the evaluation. The agent
        never sees it.
        """
        self.basket = int(np.clip(self.basket + int(action) - 1, 0, WIDTH - 1))
        self.row += 1
        reward = 0.0
        if self.row == HEIGHT - 1:
            reward = 1.0 if abs(self.basket - self.column) <= 1 else -1.0
        elif self.row == HEIGHT:
            self.drop()
        return self.observe(), reward, False, False, {}

    def drop(self) -> None:
        """Let a new fruit appear at the top."""
        self.column, self.row = int(self.np_random.integers(WIDTH)), 0

    def observe(self) -> np.ndarray:
        """Return what the agent and the reward model see: a vector of numbers of about size 1."""
        place = (self.basket / (WIDTH - 1), self.column / (WIDTH - 1), self.row / (HEIGHT - 1))
        return np.array(place, np.float32)

    def render(self) -> np.ndarray:
        """Return what people see: a picture [H, W, 3] of bytes."""
        cells = np.full((HEIGHT, WIDTH, 3), SKY, np.uint8)
        cells[-1, max(0, self.basket - 1) : self.basket + 2] = BASKET
        cells[self.row, self.column] = FRUIT
        return cells.repeat(PIXELS, axis=0).repeat(PIXELS, axis=1)


gym.register("Catch-v0", entry_point=Catch, max_episode_steps=100)
