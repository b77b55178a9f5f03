"""What a teacher of Donkey Kong judges by: how far Mario got, read from the console's memory.

The game's score would not do: it pays for jumped barrels and for the girl, and nothing for the ladders
between. So a step is judged by where Mario is: the girder he has climbed to, and how near he is to a whole
ladder up from it. The score breaks ties.
"""

from functools import cache

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms

from services.agent_trainer import atari

# Bytes of the console's 128. A smaller y is higher; JUMP counts down in the air, and is 255 otherwise.
MARIO_X, MARIO_Y, JUMP = 19, 27, 11
FLOORS = np.array([154, 132, 101, 76, 48, 21])  # y at the head of each ladder, the lowest girder first
LADDERS = ((110,), (50, 82), (90, 110), (50, 70), (110,), (78,))  # x of the whole ladders up from each girder
WIDTH = 80.0  # of a girder
SCORE = 1e-4  # what a point of the game's own score is worth beside a girder


class Console:
    """The console of one game, driven as ALE's vector environment, which shows no memory, drives its own."""

    def __init__(self) -> None:
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self.ale = ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.loadROM(roms.get_rom_path("donkey_kong") or "")
        self.legal = self.ale.getMinimalActionSet()

    def begin(self, frames: int) -> np.ndarray:
        """Begin a game: FIRE, then nothing, for as many frames as were drawn; return the memory [128]."""
        self.ale.reset_game()
        for frame in range(frames):
            self.ale.act(Action.FIRE if frame == 0 else Action.NOOP)
        return self.ale.getRAM()

    def step(self, action: int) -> np.ndarray:
        """Take the action of this number for a step's frames; return the memory [128] uint8."""
        for _ in range(atari.FRAMES_PER_STEP):
            if not self.ale.game_over():
                self.ale.act(self.legal[action])
        return self.ale.getRAM()


def memory(settings: atari.Settings, seed: int, actions: list[int]) -> np.ndarray:
    """Play `actions` again from `seed`; return the console's memory after each of T steps: [T, 128] uint8.

    A jump is no climb in it, see `grounded`. ValueError with sticky actions: their draws cannot be repeated.
    """
    if settings.sticky_actions:
        raise ValueError("Donkey Kong's teacher needs atari.sticky_actions = 0")
    console, games = _console(), atari.make_games("donkey_kong", 1, settings)
    seen, ends = np.empty((len(actions), 128), np.uint8), list[int]()
    _, info = games.env.reset(seed=seed)
    console.begin(int(info["episode_frame_number"][0]))
    for step, action in enumerate(actions):
        number = games.allowed[[action]]
        _, _, terminated, truncated, info = games.env.step(number)
        seen[step] = console.step(int(number[0]))
        if terminated[0] or truncated[0]:
            console.begin(int(info["episode_frame_number"][0]))
            ends.append(step + 1)
    games.close()
    return np.concatenate([grounded(game) for game in np.split(seen, ends)])


@cache  # to make one takes as long as some hundred steps
def _console() -> Console:
    return Console()


def height(seen: np.ndarray) -> int:
    """Return the smallest y, the highest place, that Mario came to, by memory [T, 128], jumps grounded."""
    return int(seen[:, MARIO_Y].min(initial=FLOORS[0]))


def grounded(seen: np.ndarray) -> np.ndarray:
    """Return memory [T, 128] of one game in which a jump is no climb: Mario is where he left the ground."""
    seen = seen.copy()
    for step in np.flatnonzero(seen[:, JUMP] != 255):
        seen[step, MARIO_Y] = seen[step - 1, MARIO_Y] if step else FLOORS[0]
    seen[:, JUMP] = 255
    return seen


def judge(seen: np.ndarray, rewards: np.ndarray) -> np.ndarray:
    """Return the judgement [T] of steps, by the memory [T, 128], with jumps grounded, and the score [T]."""
    x, y = seen[:, MARIO_X].astype(float), seen[:, MARIO_Y].astype(float)
    climbed = np.interp(-y, -FLOORS, np.arange(len(FLOORS)))  # 0 on the lowest girder, 5 on the highest
    girder = np.minimum(climbed.astype(int), len(FLOORS) - 2)
    near = np.stack([1 - np.abs(x[:, None] - xs).min(1) / WIDTH for xs in LADDERS], 1).clip(min=0)  # [T, 6]
    steps = np.arange(len(x))
    # A girder slopes by less than the first of these shares of the way to the next; a ladder lies between.
    above = np.interp(climbed - girder, (0.35, 0.75), (0, 1))
    nearness = (1 - above) * near[steps, girder] + above * near[steps, girder + 1]
    judged: np.ndarray = climbed + 0.5 * nearness + SCORE * rewards
    return judged
