"""How far preferences bring an agent in a game: `python -m benchmarks.atari --env-id ALE/Pong-v5`.

The stages that the workers run, in one process, with a teacher's answers; nobody waits and no picture is
drawn. No run stops early: the final agent is judged by 30 games after the last label. It prints a line for
each round, and ends with one JSON object; its `core_minutes` are the processor time of all threads, which
other work on the machine lengthens less. `--teacher coin` is the control.

Of Donkey Kong, whose score says little, it tells in which share of those games Mario climbed the first whole
ladder, and the second. For that the games are played once more with the console's memory in view.
"""

import argparse
import json
import time
from pathlib import Path

from benchmarks.learning import MemoryStore, label_split, run, seeds_of
from services.agent_trainer import donkey_kong, stages
from services.teachers import KINDS, Teacher
from shared import config as configuration
from shared.config import ExperimentConfig
from shared.jobs import Artifact, seed_for

Evaluated = tuple[MemoryStore, Artifact, Artifact]  # with the last reward model and agent

PRESETS = {
    "ALE/Pong-v5": Path("configs/pong.toml"),
    "ALE/DonkeyKong-v5": Path("configs/donkey_kong.toml"),
}


LADDERS = (132, 101)  # y at the head of the first and the second whole ladder


def climbed(config: ExperimentConfig, evaluated: Evaluated) -> dict[str, float]:
    """Return the share of the evaluation's games that reached the head of each of LADDERS."""
    store, model, agent = evaluated
    seed = seed_for(config.seed, config.rounds, "training_agent")
    loaded = stages.load_agent(config, store, agent), stages.load_reward_model(store, model)
    games = stages.evaluate(*loaded, config, seed, lambda: False)[2]
    settings = stages.games(config)
    seen = (donkey_kong.memory(settings, seed + i, game) for i, game in enumerate(games))
    heights = [donkey_kong.height(one) for one in seen]
    return {f"y <= {y}": sum(height <= y for height in heights) / len(heights) for y in LADDERS}


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
    results, minutes, busy, budget, shares = [], [], [], 0, []
    for seed in args.seeds:
        config = configuration.load(path, overrides | {"seed": seed})
        budget, begin, used = config.label_budget(), time.perf_counter(), time.process_time()

        def tell(number: int, mean: float, seed: int = seed, begin: float = begin) -> None:
            passed = (time.perf_counter() - begin) / 60
            print(
                f"seed {seed:3d}  round {number:3d}  true return {mean:6.1f}  {passed:5.1f} min", flush=True
            )

        results.append(run(config, Teacher(args.teacher, seed=seed), tell))
        minutes.append((time.perf_counter() - begin) / 60)
        busy.append((time.process_time() - used) / 60)
        print(
            f"seed {seed:3d}  {results[-1]['labels']} labels; collecting, reward and agent training took "
            f"{results[-1]['stage_seconds']} s, and at most {results[-1]['stage_peak_mib']} MiB"
        )
        if args.env_id == "ALE/DonkeyKong-v5":
            shares.append(climbed(config, results[-1]["evaluated"]))
            print(f"seed {seed:3d}  {shares[-1]}")
    target = config.evaluation.solved_return
    finals = [result["rounds"][-1] for result in results]
    reached = {f"true return {target:g}": sum(value >= target for value in finals)} if target else {}
    summary = {
        "env_id": args.env_id,
        "teacher": args.teacher,
        "set": args.set,
        "seeds": args.seeds,
        "labels": [budget] * len(finals),
        "returns": [round(value, 2) for value in finals],
        "rounds": [[round(value, 2) for value in result["rounds"]] for result in results],
        "minutes": [round(value, 1) for value in minutes],
        "core_minutes": [round(value, 1) for value in busy],
        "milestones": reached | {name: [share[name] for share in shares] for name in (shares or [{}])[0]},
        "peak_mib": max(max(result["stage_peak_mib"]) for result in results),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
