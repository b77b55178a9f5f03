"""How well kept reward models tell what an agent does: `python -m benchmarks.reward_check AGENT MODEL...`.

Both are files that `benchmarks.atari --keep` writes. The agent plays anew; its play is cut into segments, and
what a model predicts of each is held against what a teacher judges by, which the model never sees:

    correlation         of the two sums over a segment
    order               share of the pairs that the teacher would order which the model puts in the same order
    below, at, above    mean predicted sum of the segments judged below 0, at 0, above 0, and how many these
                        are: in Pong lost, nothing, won

A model may be right about the play it was asked about, and wrong about what the next agent does: give it the
play of a better agent than it has seen. Of a run with `--set` the same must be set here. The last line is one
JSON object.
"""

import argparse
import json
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from benchmarks.learning import MemoryStore, configurations
from benchmarks.options import positive, refusing
from services import weights
from services.agent_trainer import envs, ppo, stages
from services.agent_trainer.choosing import clip_sums, whole_segments
from services.agent_trainer.play import Play, whole
from services.reward_trainer.reward_model import RewardModel
from services.torch_setup import set_up
from shared.config import ExperimentConfig

Model = TypeVar("Model")
Found = dict[str, float | None]


def played(agent: ppo.Agent, config: ExperimentConfig, steps: int, seed: int) -> Play:
    """Let the agent play `steps` steps, over all environments."""
    games = envs.make_envs(
        config.env_id, config.segments.collect_envs, config.segments.length, stages.games(config)
    )
    player, each = ppo.Player(games, seed), -(-steps // config.segments.collect_envs)
    chunks = range(0, each, stages.CHUNK)
    play = whole(ppo.rollout(agent, player, min(stages.CHUNK, each - done)) for done in chunks)
    games.close()
    return play


def segments(play: Play, length: int) -> Tensor:
    """Return step and environment [n, 2] at which segments begin that follow one another, within episodes."""
    chosen: list[list[int]] = []
    for start, env in sorted(whole_segments(play, length).tolist(), key=itemgetter(1)):
        if not chosen or env != chosen[-1][1] or start >= chosen[-1][0] + length:
            chosen.append([start, env])
    return torch.tensor(chosen, dtype=torch.int64).view(-1, 2)


def compare(predicted: Tensor, judged: Tensor) -> Found:
    """Hold the predicted sums [n] of segments against the judged [n]; None where there is nothing to tell."""

    def rounded(number: Tensor) -> float:
        return round(float(number), 3)

    differ = judged[:, None] > judged[None]  # [n, n]: the first is the better one
    right = (predicted[:, None] > predicted[None]).float() + 0.5 * (predicted[:, None] == predicted[None])
    both = torch.stack([predicted, judged])
    found: Found = {
        "correlation": rounded(torch.corrcoef(both)[0, 1]) if (both.std(1) > 0).all() else None,
        "order": rounded(right[differ].mean()) if differ.any() else None,
    }
    for name, some in (("below", judged < 0), ("at", judged == 0), ("above", judged > 0)):
        found[name] = rounded(predicted[some].mean()) if some.any() else None
        found[f"segments {name}"] = int(some.sum())
    return found


def loaded(path: Path, load: Callable[[bytes], Model]) -> Model:
    """Read weights; ValueError names the file that holds something else."""
    try:
        return load(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_fit(agent: ppo.Agent, models: dict[Path, RewardModel], config: ExperimentConfig) -> None:
    """Raise ValueError if the agent does not play what `config` prepares, or a model does not see it."""
    fresh, sizes = stages.load_agent(config, MemoryStore(), None).sizes, agent.sizes
    if (sizes["shape"], sizes["actions"]) != (fresh["shape"], fresh["actions"]):
        raise ValueError(
            f"the agent sees {sizes['shape']} and has {sizes['actions']} actions, the configuration gives "
            f"{fresh['shape']} and {fresh['actions']}: name that of its run by --config and --set"
        )
    for path, model in models.items():
        if model.sizes["shape"] != sizes["shape"]:
            raise ValueError(f"{path} sees {model.sizes['shape']}, but the agent {sizes['shape']}")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("agent", type=Path, help="whose play it is")
    parser.add_argument("models", type=Path, nargs="+", metavar="model", help="reward models to check")
    parser.add_argument("--config", type=Path, default=Path("configs/pong.toml"), help="the configuration")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in its run")
    parser.add_argument("--steps", type=positive, default=12_288, help="steps to play, over all environments")
    parser.add_argument("--seed", type=int, default=77, help="of the play")
    args = parser.parse_args()
    set_up()
    with refusing(parser):
        (config,) = configurations(args.config, args.set, [args.seed])
        agent = loaded(args.agent, weights.load_agent)
        models = {path: loaded(path, weights.load_reward_model) for path in args.models}
        check_fit(agent, models, config)
    play = played(agent, config, args.steps, args.seed)
    starts, length = segments(play, config.segments.length), config.segments.length
    if not len(starts):
        raise SystemExit(f"no episode was {length} steps long: give more --steps")
    steps = [
        torch.from_numpy(stages.judge(config, args.seed, play, env)) for env in range(play.ended.shape[1])
    ]
    judged = torch.stack([steps[env][start : start + length].sum() for start, env in starts.tolist()])
    every: dict[str, Found] = {}
    for path, model in models.items():
        every[str(path)] = found = compare(clip_sums(play, model.members, starts, length).mean(0), judged)
        shown = "  ".join(
            f"{name} {'-' if value is None else format(value, '.2f' if isinstance(value, float) else 'd')}"
            for name, value in found.items()
        )
        print(f"{path}  {shown}", flush=True)
    print(json.dumps({"agent": str(args.agent), "steps": args.steps, "models": every}))


if __name__ == "__main__":
    main()
