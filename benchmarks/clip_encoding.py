"""A clip's time to be written and its size, beside imageio-ffmpeg's: `python -m benchmarks.clip_encoding`.

84 frames of 160 × 210 of each game, random play: frames in, a file's bytes out. imageio-ffmpeg is as it is by
default. The last line is one JSON object: our time over theirs, on the clock and of the processor, and our
bytes over theirs, each the larger of the games'.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import numpy as np
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from benchmarks.options import positive
from benchmarks.peers.turn import Clock, Work, serve
from benchmarks.side_by_side import Side, measure, ours, ratio, theirs
from services.agent_trainer.clips import encode_mp4

GAMES = ("pong", "donkey_kong")
FPS = 15.0


def play(game: str, frames: int) -> np.ndarray:
    """Return whole pictures [frames, 210, 160, 3] of random play, from some way into the game."""
    games = AtariVectorEnv(
        game, 1, num_threads=1, autoreset_mode=AutoresetMode.SAME_STEP, img_height=210, img_width=160,
        grayscale=False, stack_num=1,
    )  # fmt: skip
    games.reset(seed=1)
    draw = np.random.default_rng(1)
    shown = [games.step(draw.integers(6, size=1))[0][0, 0].copy() for _ in range(66 + frames)]
    games.close()
    return np.stack(shown[66:])


def our_work(path: str) -> Work:
    """Return what encodes the frames at `path`."""
    frames = np.load(path)

    def work(clock: Clock) -> dict[str, float]:
        clock.restart()
        return {"units": 1, "bytes": len(encode_mp4(frames, FPS))}

    return work


def compare(game: str, frames: int, turns: int, peer: bool = True) -> dict[str, float]:
    """Print how the sides did on one game; return the ratios, those of our side alone without `peer`."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.npy"
        np.save(path, play(game, frames))
        sides = [Side("Lockstep", ours("clip_encoding", path))]
        sides += [Side("imageio-ffmpeg", theirs("imageio", "with_imageio", path))] if peer else []
        print(f"\n{game}: {frames} frames")
        measure(sides, turns)
    mine, other = sides[0], sides[-1]
    for side in sides:
        print(f"{side.name:14} {statistics.median(turn['bytes'] for turn in side.turns):10,.0f} bytes")
    return {
        "time_ratio": 1 / ratio(mine, other),
        "cpu_ratio": 1 / ratio(mine, other, "cpu"),
        "bytes_ratio": mine.turns[0]["bytes"] / other.turns[0]["bytes"],
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=positive, default=15, help="clips that each side writes of each game")
    parser.add_argument("--frames", type=positive, default=84, help="frames of a clip")
    parser.add_argument("--alone", action="store_true", help="without the peer: only to see that it works")
    parser.add_argument("--serve", metavar="FRAMES", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(our_work(args.serve))
        return
    found = {game: compare(game, args.frames, args.turns, not args.alone) for game in GAMES}
    print()
    for game, row in found.items():
        print(f"{game:12} " + "  ".join(f"{name} {value:.2f}" for name, value in row.items()))
    print(json.dumps({key: round(max(row[key] for row in found.values()), 3) for key in found["pong"]}))


if __name__ == "__main__":
    main()
