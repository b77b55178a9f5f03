"""How far preferences bring an agent in a game: `python -m benchmarks.atari --env-id ALE/Pong-v5`.

The stages that the workers run, in one process, with a teacher's answers; nobody waits and no picture is
drawn. No run stops early: the final agent is judged by 30 games after the last label. It prints a line for
each round, and ends with one JSON object; its `core_minutes` are the processor time of all threads, which
other work on the machine lengthens less. `--teacher coin` is the control. `--keep FOLDER` keeps each round's
reward model and agent there, which `services.weights` reads, to look into what a run came to.

Of Donkey Kong, whose score says little, it tells after each round in which share of the games Mario climbed
the first whole ladder, and the second. For that they are played once more with the console's memory in view,
in time that is not counted.
"""

import argparse
import json
from pathlib import Path

from benchmarks.learning import Trained, label_split, run, seeds_of
from benchmarks.peers.turn import Clock
from services.agent_trainer import donkey_kong, stages
from services.teachers import KINDS, Teacher
from shared import config as configuration
from shared.config import DONKEY_KONG, ExperimentConfig
from shared.jobs import seed_for

PRESETS = {
    "ALE/Pong-v5": Path("configs/pong.toml"),
    DONKEY_KONG: Path("configs/donkey_kong.toml"),
}
LADDERS = (132, 101)  # y at the head of the first and the second whole ladder


def climbed(config: ExperimentConfig, number: int, trained: Trained) -> dict[str, float]:
    """Return the share of round `number`'s evaluation games that reached the head of each of LADDERS."""
    store, model, agent = trained
    seed = seed_for(config.seed, number, "training_agent")
    loaded = stages.load_agent(config, store, agent), stages.load_reward_model(store, model)
    games = stages.evaluate(*loaded, config, seed, lambda: False)[2]
    settings = stages.games(config)
    seen = (donkey_kong.memory(settings, seed + i, game) for i, game in enumerate(games))
    heights = [donkey_kong.height(one) for one in seen]
    return {f"y <= {y}": sum(height <= y for height in heights) / len(heights) for y in LADDERS}


def keep(folder: Path, name: str, trained: Trained) -> None:
    """Write what was trained to FOLDER/NAME-reward_model.safetensors and FOLDER/NAME-agent.safetensors."""
    store, model, agent = trained
    folder.mkdir(parents=True, exist_ok=True)
    for kind, artifact in (("reward_model", model), ("agent", agent)):
        (folder / f"{name}-{kind}.safetensors").write_bytes(store.get(artifact.key))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--env-id", choices=PRESETS, default="ALE/Pong-v5", help="the game")
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("1-3"), help="1-3 or 4,7,9")
    parser.add_argument("--labels", type=int, help="labels in all, shared out over the rounds")
    parser.add_argument("--teacher", choices=KINDS, default="oracle", help="who answers")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for each round's reward model and agent")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    args = parser.parse_args()
    path = PRESETS[args.env_id]
    overrides = configuration.parse_overrides(args.set)
    if args.labels:
        split = label_split(args.labels, overrides.get("rounds", configuration.load(path).rounds))
        overrides = {f"labels.{key}": value for key, value in split.items()} | overrides
    results, minutes, busy, budget, ladders = [], [], [], 0, []
    for seed in args.seeds:
        config = configuration.load(path, overrides | {"seed": seed})
        budget, clock = config.label_budget(), Clock()
        climbs: list[dict[str, float]] = []

        def tell(
            number: int, mean: float, trained: Trained, config: ExperimentConfig = config,
            clock: Clock = clock, climbs: list[dict[str, float]] = climbs,
        ) -> None:  # fmt: skip
            line = f"seed {config.seed:3d}  round {number:3d}  true return {mean:6.1f}"
            line += f"  {clock.read()['wall'] / 60:5.1f} min"
            if args.env_id == DONKEY_KONG:
                with clock.halted():
                    climbs.append(climbed(config, number, trained))
                line += "".join(f"  {name} in {share:.2f}" for name, share in climbs[-1].items())
            print(line, flush=True)
            if args.keep:
                keep(args.keep, f"seed-{config.seed}-round-{number}", trained)

        results.append(run(config, Teacher(args.teacher, seed=seed), tell))
        took = clock.read()
        minutes.append(took["wall"] / 60)
        busy.append(took["cpu"] / 60)
        print(
            f"seed {seed:3d}  {results[-1]['labels']} labels; collecting, reward and agent training took "
            f"{results[-1]['stage_seconds']} s, and at most {results[-1]['stage_peak_mib']} MiB"
        )
        ladders += [climbs] if climbs else []
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
        "milestones": reached
        | {name: [climbs[-1][name] for climbs in ladders] for name in (ladders[0][-1] if ladders else {})},
        "ladders": ladders,  # of each seed, after each round
        "peak_mib": max(max(result["stage_peak_mib"]) for result in results),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
