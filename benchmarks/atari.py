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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.learning import Trained, configurations, run
from benchmarks.options import positive, refusing, seeds_of
from benchmarks.peers.turn import Clock
from services.agent_trainer import donkey_kong, stages
from services.teachers import KINDS, Teacher
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
    for kind, artifact in (("reward_model", model), ("agent", agent)):
        (folder / f"{name}-{kind}.safetensors").write_bytes(store.get(artifact.key))


def one_run(config: ExperimentConfig, teacher: Teacher, folder: Path | None) -> dict[str, Any]:
    """Run one seed, and print what comes of each round; return what `run` does, the time and the ladders."""
    clock, ladders = Clock(), list[dict[str, float]]()

    def tell(number: int, mean: float, trained: Trained) -> None:
        line = f"seed {config.seed:3d}  round {number:3d}  true return {mean:6.1f}"
        line += f"  {clock.read()['wall'] / 60:5.1f} min"
        if config.env_id == DONKEY_KONG:
            with clock.halted():
                ladders.append(climbed(config, number, trained))
            line += "".join(f"  {name} in {share:.2f}" for name, share in ladders[-1].items())
        print(line, flush=True)
        if folder:
            keep(folder, f"seed-{config.seed}-round-{number}", trained)

    found = run(config, teacher, tell)
    took = clock.read()
    print(
        f"seed {config.seed:3d}  {found['labels']} labels; collecting, reward and agent training took "
        f"{found['stage_seconds']} s, and at most {found['stage_peak_mib']} MiB"
    )
    return found | {"minutes": took["wall"] / 60, "core_minutes": took["cpu"] / 60, "ladders": ladders}


def milestones(config: ExperimentConfig, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return how many of `runs` came to the return that counts as solved, and how far each got up ladders."""
    found: dict[str, Any] = {}
    if (target := config.evaluation.solved_return) is not None:
        found[f"true return {target:g}"] = sum(one["rounds"][-1] >= target for one in runs)
    if config.env_id == DONKEY_KONG:
        lasts = [one["ladders"][-1] for one in runs]
        found |= {name: [last[name] for last in lasts] for name in lasts[0]}
    return found


def summary(config: ExperimentConfig, runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the figures of all seeds, which share `config` but for the seed."""
    return {
        "labels": [config.label_budget()] * len(runs),
        "labels_after": [one["labels_after"] for one in runs],  # of each seed, each round
        "returns": [round(one["rounds"][-1], 2) for one in runs],
        "rounds": [[round(value, 2) for value in one["rounds"]] for one in runs],
        "minutes": [round(one["minutes"], 1) for one in runs],
        "core_minutes": [round(one["core_minutes"], 1) for one in runs],
        "milestones": milestones(config, runs),
        "ladders": [one["ladders"] for one in runs if one["ladders"]],  # of each seed, after each round
        "peak_mib": max(max(one["stage_peak_mib"]) for one in runs),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--env-id", choices=PRESETS, default="ALE/Pong-v5", help="the game")
    parser.add_argument("--seeds", type=seeds_of, default=seeds_of("1-3"), help="1-3 or 4,7,9")
    parser.add_argument("--labels", type=positive, help="labels in all, shared out over the rounds")
    parser.add_argument("--teacher", choices=KINDS, default="oracle", help="who answers")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for each round's reward model and agent")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="change a setting")
    args = parser.parse_args()
    with refusing(parser):
        configs = configurations(PRESETS[args.env_id], args.set, args.seeds, args.labels)
        if args.keep:  # now, for a run of hours must not fail by it
            args.keep.mkdir(parents=True, exist_ok=True)
    runs = [one_run(config, Teacher(args.teacher, seed=config.seed), args.keep) for config in configs]
    about = {"env_id": args.env_id, "teacher": args.teacher, "set": args.set, "seeds": args.seeds}
    print(json.dumps(about | summary(configs[0], runs)))


if __name__ == "__main__":
    main()
