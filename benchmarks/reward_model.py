"""Comparisons a second learned from, beside imitation: `python -m benchmarks.reward_model`.

Both train on the same made-up pairs of CartPole's shape, with two hidden layers of 32. imitation is as in its
documentation (batches of 32); Lockstep as in its presets (all comparisons in a step), and once more in
batches of 32. An epoch over B comparisons counts as B, for an ensemble too. The last line is one JSON object:
ratios for clips of 25, 50 and 100 steps, a single network's and those of an ensemble of three.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.options import positive
from benchmarks.peers.turn import Clock, Work, serve
from benchmarks.side_by_side import Side, measure, ours, ratio, theirs
from services.reward_trainer import reward_model
from services.torch_setup import set_up

LENGTHS = (25, 50, 100)
EPOCHS, THEIR_EPOCHS = 80, 3  # each as its own presets and documentation have it


def make_clips(path: Path, comparisons: int, length: int) -> None:
    """Store random walks, and which of each pair is better: the one that stays nearer to 0."""
    draw = np.random.default_rng(1)
    steps = draw.normal(size=(comparisons, 2, length + 1, 4)).astype(np.float32) / 5
    observations = steps.cumsum(2)
    worth = -np.square(observations[:, :, 1:]).sum((2, 3))
    np.savez(
        path,
        observations=observations,
        actions=draw.integers(0, 2, (comparisons, 2, length)),
        ranks=(worth < worth[:, ::-1]).astype(np.int64),
    )


def our_work(path: str, members: int, epochs: int, batch_size: int) -> Work:
    """Return what trains a new model on the clips at `path`."""
    set_up()
    data = np.load(path)
    clips, ranks = torch.from_numpy(data["observations"][:, :, 1:]), torch.from_numpy(data["ranks"])
    preferences = reward_model.Preferences(clips, ranks, torch.zeros(len(clips), dtype=torch.bool))
    args = reward_model.Args(members=members, epochs=epochs, batch_size=batch_size or None)

    def work(clock: Clock) -> dict[str, float]:
        model = reward_model.RewardModel(clips.shape[3:], args)
        clock.restart()
        accuracy = reward_model.train(model, preferences)["train/accuracy"]
        return {"units": len(clips) * epochs, "accuracy": accuracy}

    return work


def compare(members: int, length: int, comparisons: int, turns: int, epochs: int, peer: bool) -> float:
    """Print how the sides did; return the ratio of Lockstep, as its presets are, to imitation."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clips.npz"
        make_clips(path, comparisons, length)
        mine = Side("Lockstep", ours("reward_model", path, members, epochs, 0))
        small = Side("Lockstep, batches of 32", ours("reward_model", path, members, epochs, 32))
        other = small
        if peer:
            other = Side("imitation", theirs("imitation", "with_imitation", path, members, THEIR_EPOCHS))
        print(
            f"\n{'ensemble of ' * (members > 1)}{members}, clips of {length} steps: comparisons learned from"
        )
        measure(list({side.name: side for side in (mine, small, other)}.values()), turns)
    found = ratio(mine, other)
    print(f"{found:.1f} times (processor time {ratio(mine, other, 'cpu'):.1f}), ", end="")
    print(f"in batches of 32 {ratio(small, other):.1f} (processor time {ratio(small, other, 'cpu'):.1f})")
    return round(found, 2)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=positive, default=7, help="trainings of each side")
    parser.add_argument("--comparisons", type=positive, default=200, help="pairs to train on")
    parser.add_argument("--epochs", type=positive, default=EPOCHS, help="epochs of Lockstep's training")
    parser.add_argument("--lengths", type=positive, nargs="+", default=LENGTHS, help="steps of a clip")
    parser.add_argument("--alone", action="store_true", help="without the peer: only to see that it works")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(our_work(args.serve[0], *map(int, args.serve[1:])))
        return
    found: dict[str, dict[str, float]] = {"vs_imitation": {}, "ensemble_vs_imitation": {}}
    for key, members in zip(found, (1, 3), strict=True):
        for length in args.lengths:
            found[key][str(length)] = compare(
                members, length, args.comparisons, args.turns, args.epochs, not args.alone
            )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
