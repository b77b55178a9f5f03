"""How far preferences bring an agent in a game: `python -m benchmarks.atari --env-id ALE/Pong-v5`.

The stages that the workers run, in one process, with a teacher's answers; nobody waits and no picture is
drawn. No run stops early: the final agent is judged by 30 games after the last label. It prints a line for
each round, and ends with one JSON object. `--teacher coin` is the control.
"""

import argparse
import json
import time
from pathlib import Path

from benchmarks.learning import label_split, run, seeds_of
from services.teachers import KINDS, Teacher
from shared import config as configuration

PRESETS = {
    "ALE/Pong-v5": Path("configs/pong.toml"),
    "ALE/DonkeyKong-v5": Path("configs/donkey_kong.toml"),
}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--env-id", choices=PRESETS, default="ALE/Pong-v5", help="the game")
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("1-3"), help="1-3 or 4,7,9")
    parser.add_argument("--labels", type=int, help="labels in all, shared out over the rounds")
    parser.add_argument("--teacher", choices=KINDS, default="oracle", help="who answers")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    args = parser.parse_args()
    path = PRESETS[args.env_id]
    overrides = configuration.parse_overrides(args.set)
    if args.labels:
        split = label_split(args.labels, overrides.get("rounds", configuration.load(path).rounds))
        overrides = {f"labels.{key}": value for key, value in split.items()} | overrides
    results, minutes, budget = [], [], 0
    for seed in args.seeds:
        config = configuration.load(path, overrides | {"seed": seed})
        budget, begin = config.label_budget(), time.perf_counter()

        def tell(number: int, mean: float, seed: int = seed, begin: float = begin) -> None:
            passed = (time.perf_counter() - begin) / 60
            print(
                f"seed {seed:3d}  round {number:3d}  true return {mean:6.1f}  {passed:5.1f} min", flush=True
            )

        results.append(run(config, Teacher(args.teacher, seed=seed), tell))
        minutes.append((time.perf_counter() - begin) / 60)
        print(
            f"seed {seed:3d}  {results[-1]['labels']} labels; seconds by stage {results[-1]['stage_seconds']}"
        )
    target = config.evaluation.solved_return
    finals = [result["rounds"][-1] for result in results]
    summary = {
        "env_id": args.env_id,
        "seeds": args.seeds,
        "labels": [budget] * len(finals),
        "returns": [round(value, 2) for value in finals],
        "minutes": [round(value, 1) for value in minutes],
        "milestones": {f"true return {target:g}": sum(value >= target for value in finals)} if target else {},
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
