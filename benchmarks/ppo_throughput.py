"""PPO steps a second beside CleanRL and Stable-Baselines3:

    python -m benchmarks.ppo_throughput                     # speed in Pong, beside Stable-Baselines3
    python -m benchmarks.ppo_throughput --cleanrl PATH      # in both, beside CleanRL too; PATH is a checkout
    python -m benchmarks.ppo_throughput --cleanrl PATH --learn pong --steps 800000 --turns 1
    python -m benchmarks.ppo_throughput --cleanrl PATH --learn cartpole --steps 50000 --turns 5

All learn from the true reward with the same settings, CleanRL's: Pong with 8 environments of 128 steps,
4 epochs, minibatches of 256, the network of Mnih et al. on 84 pixels; CartPole with 4 environments of 128
steps. "whole frames" leaves the rows with Pong's score in, as the peers do; the other line is what Lockstep
trains on. `--learn` tells the mean return of the last 20 episodes instead, one seed a turn, of sides that all
learn at the same time with one thread each. Where there is CUDA every side computes there, as the peers do by
default; else all are on the processor. The last line is one JSON object: ratios of steps a second, those of
Pong with whole frames.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from benchmarks.options import positive
from benchmarks.peers.turn import Clock, Work, serve
from benchmarks.side_by_side import Side, measure, ours, ratio, theirs, together
from services.agent_trainer import atari, ppo
from services.agent_trainer.envs import make_envs
from services.reward_trainer import reward_model

ARGS = {
    "pong": ppo.Args(
        env_id="ALE/Pong-v5", num_envs=8, num_steps=128, update_epochs=4, minibatch_size=256, hidden=512,
        learning_rate=2.5e-4, gamma=0.99, clip_coef=0.1, ent_coef=0.01, bfloat16=True,
    ),
    "cartpole": ppo.Args(
        num_envs=4, num_steps=128, update_epochs=4, minibatch_size=128, learning_rate=2.5e-4, gamma=0.99,
        ent_coef=0.01,
    ),
}  # fmt: skip
STEPS = {"pong": 8192, "cartpole": 16_384}  # of a turn that is for speed
ROM = "PongNoFrameskip-v4"  # Pong, as the peers name it


def our_work(kind: str, steps: int, learn: bool) -> Work:
    """Return what trains for `steps`: to learn, each time from new weights, else always the same agent."""
    game = kind.partition("-")[0]
    args = ppo.Args(**vars(ARGS[game]) | {"total_steps": steps})
    place = "cuda" if torch.cuda.is_available() else "cpu"  # as the peers choose it
    torch.set_num_threads(torch.get_num_threads() if game == "pong" else 1)
    if kind == "pong-whole":
        del atari.VISIBLE["pong"]
    agent: ppo.Agent | None = None
    seed = 0

    def work(clock: Clock) -> dict[str, float]:
        nonlocal agent, seed
        seed += 1
        envs: Any = make_envs(args.env_id, args.num_envs)
        shape = envs.single_observation_space.shape
        if agent is None or learn:
            agent = ppo.Agent(shape, int(envs.single_action_space.n), args.hidden, seed, args.bfloat16)
            agent.to(place)
        reward: Any = "env"
        if kind == "pong-reward-model":
            settings = reward_model.Args(hidden=64, bfloat16=True)
            reward = reward_model.RewardModel(shape, settings).to(place).reward
        envs = RecordEpisodeStatistics(envs, buffer_length=20) if learn else envs
        clock.restart()
        ppo.train(ppo.Args(**vars(args) | {"seed": seed}), agent, envs, reward)
        done = clock.read() | {"units": steps}
        last = [float(value) for value in envs.return_queue] if learn else []
        envs.close()
        return done | {"return": statistics.fmean(last) if last else float("nan")}

    return work


def sides_of(
    game: str, steps: int, checkout: Path | None, alone: bool, learn: bool
) -> tuple[list[Side], list[Side]]:
    """Return Lockstep's sides, the one that is compared first, and the peers', CleanRL's with a checkout."""
    own = {"pong-whole": "Lockstep, whole frames", "pong": "Lockstep"}
    if not learn:
        own["pong-reward-model"] = "Lockstep, reward model"
    if game == "cartpole":
        own = {"cartpole": "Lockstep"}
    mine = [Side(name, ours("ppo_throughput", kind, steps, int(learn))) for kind, name in own.items()]
    peers = []
    if checkout and not alone:
        script, env_id = ("ppo_atari", ROM) if game == "pong" else ("ppo", "CartPole-v1")
        peers.append(Side("CleanRL", theirs("cleanrl", "with_cleanrl", checkout, script, env_id, steps)))
    if game == "pong" and not alone:
        peers.append(Side("Stable-Baselines3", theirs("sb3", "with_sb3", ROM, steps)))
    return mine, peers


def speed(game: str, steps: int, turns: int, checkout: Path | None, alone: bool) -> dict[str, float]:
    """Measure a game; return the ratios to each peer of what is compared."""
    mine, peers = sides_of(game, steps, checkout, alone, learn=False)
    print(f"\n{game}, {steps} steps a turn: steps")
    measure([*mine, *peers], turns)
    found = {}
    if peers:
        print(f"\n{'ratio to':20} " + " ".join(f"{side.name:>22}" for side in mine))
    for peer in peers:
        cells = (f"{ratio(side, peer):.2f} (cpu {ratio(side, peer, 'cpu'):.2f})" for side in mine)
        print(f"{peer.name:20} " + " ".join(f"{cell:>22}" for cell in cells))
        key = {"CleanRL": "cleanrl", "Stable-Baselines3": "sb3"}[peer.name]
        found[f"{game}_vs_{key}"] = round(ratio(mine[0], peer), 3)
    return found


def learned(side: Side) -> str:
    """Say what a side's seeds came to so far: the mean return of the last 20 episodes of each."""
    values, hours = [turn["return"] for turn in side.turns], side.turns[-1]["wall"] / 3600
    by_seed = [round(value, 1) for value in values]
    return f"{side.name:24} mean return {statistics.fmean(values):7.1f}   by seed {by_seed}   {hours:.2f} h"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cleanrl", type=Path, metavar="PATH", help="a checkout of CleanRL, to compare to")
    parser.add_argument("--alone", action="store_true", help="without the peers: only to see that it works")
    parser.add_argument("--turns", type=positive, default=5, help="turns of each side")
    parser.add_argument(
        "--steps", type=positive, help="steps a turn; as a rule 8,192 of Pong and 16,384 of CartPole"
    )
    parser.add_argument("--only", choices=ARGS, help="one of the games alone")
    parser.add_argument("--learn", choices=ARGS, help="how well they learn in as many steps, not how fast")
    parser.add_argument("--serve", nargs=3, metavar=("KIND", "STEPS", "LEARN"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(our_work(args.serve[0], int(args.serve[1]), args.serve[2] == "1"))
        return
    checkout = args.cleanrl.resolve() if args.cleanrl else None
    if checkout and not (checkout / "cleanrl" / "ppo_atari.py").exists():
        parser.error(f"{checkout} is no checkout of CleanRL: it has no cleanrl/ppo_atari.py")
    wanted = [game for game in ARGS if game == (args.learn or args.only or game)]
    games = [game for game in wanted if game == "pong" or checkout or args.alone]
    if not games:
        parser.error("CleanRL is all that CartPole is compared to: name a checkout of it by --cleanrl PATH")
    if games != wanted:
        print("CartPole is left out, which is compared to CleanRL alone: there is no --cleanrl PATH")
    if args.learn:
        if not args.steps:
            parser.error("--learn needs --steps")
        mine, peers = sides_of(args.learn, args.steps, checkout, args.alone, learn=True)
        together([*mine, *peers], args.turns, learned)
        returns = {side.name: [round(turn["return"], 1) for turn in side.turns] for side in (*mine, *peers)}
        print(json.dumps({"game": args.learn, "steps": args.steps, "returns": returns}))
        return
    found: dict[str, float] = {}
    for game in games:
        found |= speed(game, args.steps or STEPS[game], args.turns, checkout, args.alone)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
