"""What pictures for people cost, in three ways: `python -m benchmarks.pictures`.

As in a round 24,576 steps are played in 16 games, here at random, and people see 25 steps each of the clips
that are chosen from them when all has been played. Ways to their colour frames:

- `replay`, which Lockstep does: play with the small grey frames that the agent sees, then play the same
  actions again with colour frames as the observation, and keep what the clips need;
- `colour`: play in colour at once and keep every frame, for nobody knows yet which will be shown. What
  the agent sees would still have to be made of them; it is left out here;
- `states`: play consoles of one's own, one after the other, keep a copy of their state every 25 steps, and
  play on from there in colour. The agent's small frames are left out here as well.

All are told beside play without pictures. The last line is one JSON object: for each way how many times as
long it takes, and the MiB of pictures and states that it holds before the choice, each the larger one of the
two games'.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
from ale_py import ALEInterface

from benchmarks.env_throughput import CLIP, GAMES, console
from benchmarks.options import positive
from benchmarks.peers.turn import Clock, Work, serve
from benchmarks.side_by_side import Side, measure, ours, ratio
from services.agent_trainer import atari, envs

COPIES = 16
WAYS = {
    "replay": "played again in colour",
    "colour": "played in colour",
    "states": "from states of own consoles",
}
Segment = tuple[int, range]  # a game, and the steps of it that are shown
Played = tuple[int, int]  # frames that people see, and the bytes held before they were chosen


def film(game: str, way: str, actions: np.ndarray, segments: list[Segment]) -> Callable[[], Played]:
    """Return what plays `actions` [T, N] and makes the frames of `segments` in that way, or none."""
    if way == "states":
        return Consoles(game, actions, segments).film
    settings = atari.Settings()
    games = atari.make_games(game, actions.shape[1], settings, colour=way == "colour")

    def play() -> Played:
        kept = list[np.ndarray]()
        games.reset(seed=1)
        for row in actions:
            seen = games.step(row)[0]
            if way == "colour":
                kept.append(seen.copy())  # [N, 1, H, W, 3]
        if way == "replay":
            replayed = envs.replay(f"ALE/{GAMES[game]}-v5", 0, 1, actions, segments, settings)
            return sum(len(frames) for _, frames in replayed), 0
        if way == "colour":
            shown = [np.stack([kept[step][i, 0] for step in steps]) for i, steps in segments]
            return sum(map(len, shown)), sum(frames.nbytes for frames in kept)
        return 0, 0

    return play


class Consoles:
    """A console of one's own for each game, with a copy of its state every CLIP steps."""

    def __init__(self, game: str, actions: np.ndarray, segments: list[Segment]) -> None:
        self.actions, self.segments = actions, segments
        self.consoles = [console(game, seed) for seed in range(actions.shape[1])]
        self.legal = self.consoles[0].getMinimalActionSet()

    def film(self) -> Played:
        """Play every game to its end, then the clips."""
        shown, held = 0, 0
        for i, ale in enumerate(self.consoles):
            ale.reset_game()
            states = []
            for step, action in enumerate(self.actions[:, i].tolist()):
                if step % CLIP == 0:
                    states.append(ale.cloneState(include_rng=True))
                self.step(ale, action, ale.getScreenGrayscale)
            held += sum(len(state.__getstate__()) for state in states)
            for steps in (steps for env, steps in self.segments if env == i):
                ale.restoreState(states[steps.start // CLIP])
                row = self.actions[steps.start : steps.stop, i].tolist()
                shown += len(np.stack([self.step(ale, action, ale.getScreenRGB) for action in row]))
        return shown, held

    def step(self, ale: ALEInterface, action: int, see: Callable[[], np.ndarray]) -> np.ndarray:
        """Take a step's frames; return the larger one of the last two, pixel by pixel."""
        for _ in range(atari.FRAMES_PER_STEP - 1):
            ale.act(self.legal[action])
        before = see()
        ale.act(self.legal[action])
        after = see()
        if ale.game_over():
            ale.reset_game()
        return np.maximum(before, after)


def our_work(way: str, game: str, steps: int, clips: int) -> Work:
    """Return what plays `steps` in each game, and films as many clips as people see, or as there are."""
    draw = np.random.default_rng(1)
    length = -(-steps // CLIP) * CLIP  # whole clips
    actions = draw.integers(6, size=(length, COPIES))
    places = [(i, range(at, at + CLIP)) for i in range(COPIES) for at in range(0, length, CLIP)]
    chosen = draw.permutation(len(places))[:clips]
    play = film(game, way, actions, [places[number] for number in sorted(chosen)])

    def work(clock: Clock) -> dict[str, float]:
        clock.restart()
        shown, held = play()
        return {"units": actions.size, "shown": shown, "mib": held / 2**20}

    return work


def compare(game: str, steps: int, clips: int, turns: int) -> dict[str, dict[str, float]]:
    """Print how long each way took; return how many times as long as without pictures, and what it held."""

    def side(name: str, way: str) -> Side:
        return Side(name, ours("pictures", way, game, steps, clips))

    without = side("without pictures", "none")
    sides = {way: side(name, way) for way, name in WAYS.items()}
    print(f"\n{game}, {COPIES} games: steps")
    measure([without, *sides.values()], turns)
    found = {
        way: {"times": ratio(without, one), "mib": max(turn["mib"] for turn in one.turns)}
        for way, one in sides.items()
    }
    for way, row in found.items():
        print(f"{WAYS[way]:28} {row['times']:5.2f} times as long, {row['mib']:7,.1f} MiB held")
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=positive, default=3, help="turns of each side")
    parser.add_argument("--steps", type=positive, default=1536, help="steps of each game in a turn")
    parser.add_argument("--clips", type=positive, default=90, help="clips that people see")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        way, game, *sizes = args.serve
        serve(our_work(way, game, *map(int, sizes)))
        return
    found = [compare(game, args.steps, args.clips, args.turns) for game in GAMES]
    worst = {
        way: {key: round(max(one[way][key] for one in found), 2) for key in ("times", "mib")} for way in WAYS
    }
    print(json.dumps(worst))


if __name__ == "__main__":
    main()
