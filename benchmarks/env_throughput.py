"""Frames of Atari a second, beside Gymnasium and EnvPool: `python -m benchmarks.env_throughput`.

64 environments play at random, grey, 84 pixels, the last four frames stacked; four frames pass at a step. In
Lockstep's figure people's pictures are included: of every seven steps one is of the play that clips are cut
from, and is played again in colour by `envs.replay`. In a round of configs/pong.toml it is one in three, in
one of configs/donkey_kong.toml three in seven, which `--filmed` measures. A turn films as much as a round of
either does, 24,576 steps, for that is how often games are seeded. The limit is twice what one core reaches by
`ale.act` alone, with nothing made of the picture. The last line is one JSON object: for each ratio the
smaller one of the two games.
"""

import argparse
import json
from collections.abc import Callable

import numpy as np
from ale_py import ALEInterface, LoggerMode, roms

from benchmarks.options import positive
from benchmarks.peers.turn import Clock, Work, serve
from benchmarks.side_by_side import Side, measure, ours, ratio, theirs
from services.agent_trainer import atari, envs

GAMES = {"pong": "Pong", "donkey_kong": "DonkeyKong"}
FILMED = 16  # environments of the play that clips are cut from, or more if that takes more
CLIP = 25  # steps


def console(game: str, seed: int) -> ALEInterface:
    """Return a console with a game in it, without sticky actions."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setInt("random_seed", seed)
    ale.setFloat("repeat_action_probability", 0.0)
    ale.loadROM(roms.get_rom_path(game))
    return ale


def bare(game: str, steps: int) -> Callable[[], int]:
    """Return what one core does by `ale.act` alone."""
    ale = console(game, 1)
    actions, draw = ale.getMinimalActionSet(), np.random.default_rng(1)

    def play() -> int:
        for number in draw.integers(len(actions), size=steps).tolist():
            for _ in range(4):
                ale.act(actions[number])
            if ale.game_over():
                ale.reset_game()
        return 4 * steps

    return play


def share(text: str) -> float:
    """Read a share of all: more than 0, at most 1."""
    if not 0 < (number := float(text)) <= 1:
        raise ValueError
    return number


def filmed_play(filmed: float, count: int, steps: int) -> tuple[int, int]:
    """Return of how many environments, and how many steps of each, the share `filmed` of all play is."""
    wanted = round(filmed * count * steps)
    shown = min(count, max(FILMED, -(-wanted // steps)))
    return shown, wanted // shown


def vector(game: str, kind: str, count: int, steps: int, filmed: float) -> Callable[[], int]:
    """Return what `count` copies of a game do: `plain` without films."""
    settings, draw = atari.Settings(), np.random.default_rng(1)
    games = atari.make_games(game, count, settings, hide_end=True)
    games.reset(seed=1)
    actions = int(games.single_action_space.n)  # type: ignore[attr-defined]
    shown, length = filmed_play(filmed if kind == "ours" else 0.0, count, steps)
    clips = [range(begin, min(begin + CLIP, length)) for begin in range(0, length, CLIP)]

    def play() -> int:
        done = draw.integers(actions, size=(steps, count))
        for row in done:
            games.step(row)
        if length:  # as much of the play as people may see, from the beginning of a game as it is in use
            cut = [(i, clip) for clip in clips for i in range(shown)]
            for _ in envs.replay(f"ALE/{GAMES[game]}-v5", 0, 0, done[:length, :shown], cut, settings):
                pass
        return 4 * count * steps

    return play


def our_work(kind: str, game: str, count: int, steps: int, filmed: float) -> Work:
    """Return what plays."""
    play = bare(game, count * steps) if kind == "bare" else vector(game, kind, count, steps, filmed)

    def work(clock: Clock) -> dict[str, float]:
        clock.restart()
        return {"units": play()}

    return work


def compare(game: str, count: int, steps: int, turns: int, filmed: float, peer: bool) -> dict[str, float]:
    """Print how the sides did on one game; return the ratios."""

    def side(name: str, kind: str) -> Side:
        return Side(name, ours("env_throughput", kind, game, count, steps, filmed))

    mine, plain = side("Lockstep, clips included", "ours"), side("Lockstep, without clips", "plain")
    others = {"vs_limit": side("ale.act alone, one core", "bare")}
    if peer:
        size = (count, steps)
        sync = theirs("envs", "with_gymnasium", f"ALE/{GAMES[game]}-v5", *size)
        others["vs_sync"] = Side("Gymnasium SyncVectorEnv", sync)
        others["vs_envpool"] = Side("EnvPool", theirs("envs", "with_envpool", f"{GAMES[game]}-v5", *size))
    print(f"\n{game}, {count} environments: frames")
    measure([mine, plain, *others.values()], turns)
    found = {key: ratio(mine, other) / (1 + (key == "vs_limit")) for key, other in others.items()}
    without = {key: ratio(plain, other) / (1 + (key == "vs_limit")) for key, other in others.items()}
    print("  ".join(f"{key} {value:.2f} (without clips {without[key]:.2f})" for key, value in found.items()))
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=positive, default=3, help="turns of each side")
    parser.add_argument("--steps", type=positive, default=2688, help="steps of each environment in a turn")
    parser.add_argument("--envs", type=positive, default=64, help="environments")
    parser.add_argument(
        "--filmed", type=share, default=1 / 7, help="share of the play that clips are cut from"
    )
    parser.add_argument("--alone", action="store_true", help="without the peers: only to see that it works")
    parser.add_argument("--serve", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        kind, game, count, steps, filmed = args.serve
        serve(our_work(kind, game, int(count), int(steps), float(filmed)))
        return
    size = (args.envs, args.steps, args.turns, args.filmed)
    found = {game: compare(game, *size, not args.alone) for game in GAMES}
    print(json.dumps({key: round(min(row[key] for row in found.values()), 3) for key in found["pong"]}))


if __name__ == "__main__":
    main()
