"""PPO steps a second beside CleanRL and Stable-Baselines3:

    python -m benchmarks.ppo_throughput --cleanrl PATH                  # speed; PATH is a checkout of CleanRL
    python -m benchmarks.ppo_throughput --cleanrl PATH --learn pong --steps 2000000 --turns 3
    python -m benchmarks.ppo_throughput --cleanrl PATH --learn cartpole --steps 50000 --turns 5

All learn from the true reward with the same settings, CleanRL's: Pong with 8 environments of 128 steps,
4 epochs, minibatches of 256, the network of Mnih et al. on 84 pixels; CartPole with 4 environments of 128
steps. "whole frames" leaves the rows with Pong's score in, as the peers do; the other line is what Lockstep
trains on. `--learn` tells the mean return of the last 20 episodes instead, one seed a turn. The last line is
one JSON object: ratios of steps a second, Pong's with whole frames.
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from benchmarks.peers.turn import Clock, Work, serve
from benchmarks.side_by_side import Side, measure, ours, ratio, theirs
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


def our_work(kind: str, steps: int, learn: bool) -> Work:
    """Return what trains for `steps`: to learn, each time from new weights, else always the same agent."""
    game = kind.partition("-")[0]
    args = ppo.Args(**vars(ARGS[game]) | {"total_steps": steps})
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
        reward: Any = "env"
        if kind == "pong-reward-model":
            reward = reward_model.RewardModel(shape, reward_model.Args(hidden=64, bfloat16=True)).reward
        envs = RecordEpisodeStatistics(envs, buffer_length=20) if learn else envs
        clock.restart()
        ppo.train(ppo.Args(**vars(args) | {"seed": seed}), agent, envs, reward)
        done = clock.read() | {"units": steps}
        last = [float(value) for value in envs.return_queue] if learn else []
        envs.close()
        return done | {"return": statistics.fmean(last) if last else float("nan")}

    return work


def mine(name: str, kind: str, steps: int, learn: bool) -> Side:
    """Return a side that is Lockstep's."""
    return Side(name, ours("ppo_throughput", kind, steps, int(learn)))


def returns(sides: list[Side]) -> dict[str, list[float]]:
    """Print what each side's seeds came to; return it."""
    found = {side.name: [round(turn["return"], 1) for turn in side.turns] for side in sides}
    for name, values in found.items():
        print(f"{name:28} mean return {statistics.fmean(values):7.1f}   by seed {values}")
    return found


def pong(steps: int, turns: int, checkout: Path | None, learn: bool) -> tuple[dict[str, float], list[Side]]:
    """Measure Pong; return the ratios that were asked for, and the sides."""
    whole = mine("Lockstep, whole frames", "pong-whole", steps, learn)
    shown = mine("Lockstep", "pong", steps, learn)
    with_reward = mine("Lockstep, reward model", "pong-reward-model", steps, learn)
    peers = {}
    if checkout:
        arguments = (checkout, "ppo_atari", "PongNoFrameskip-v4", steps)
        peers["pong_vs_cleanrl"] = Side("CleanRL", theirs("cleanrl", "with_cleanrl", *arguments))
        peers["pong_vs_sb3"] = Side(
            "Stable-Baselines3", theirs("sb3", "with_sb3", "PongNoFrameskip-v4", steps)
        )
    sides = [whole, shown, *([] if learn else [with_reward]), *peers.values()]
    print(f"\nPong, {steps} steps a turn: steps")
    measure(sides, turns, warm=not learn)
    print(f"\n{'ratio to':20} {'whole frames':>22} {'as Lockstep shows it':>24} {'and a reward model':>22}")
    for peer in peers.values():
        cells = (
            f"{ratio(side, peer):.2f} (cpu {ratio(side, peer, 'cpu'):.2f})"
            for side in (whole, shown, with_reward)
            if side in sides
        )
        print(f"{peer.name:20} " + " ".join(f"{cell:>22}" for cell in cells))
    return {key: round(ratio(whole, peer), 3) for key, peer in peers.items()}, sides


def cartpole(
    steps: int, turns: int, checkout: Path | None, learn: bool
) -> tuple[dict[str, float], list[Side]]:
    """Measure CartPole; return the ratio and the sides."""
    sides = [mine("Lockstep", "cartpole", steps, learn)]
    if checkout:
        arguments = (checkout, "ppo", "CartPole-v1", steps)
        sides.append(Side("CleanRL", theirs("cleanrl", "with_cleanrl", *arguments)))
    print(f"\nCartPole, {steps} steps a turn: steps")
    measure(sides, turns, warm=not learn)
    found = ratio(sides[0], sides[-1])
    print(f"ratio {found:.2f} (cpu {ratio(sides[0], sides[-1], 'cpu'):.2f})")
    return {"cartpole_vs_cleanrl": round(found, 3)}, sides


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--cleanrl", type=Path, help="a checkout of CleanRL; without it only our own side runs"
    )
    parser.add_argument("--turns", type=int, default=5, help="turns of each side")
    parser.add_argument(
        "--steps", type=int, help="steps a turn; as a rule 8,192 of Pong and 16,384 of CartPole"
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
        raise SystemExit(f"{checkout} is no checkout of CleanRL: it has no cleanrl/ppo_atari.py")
    run = {"pong": pong, "cartpole": cartpole}
    if args.learn:
        if not args.steps:
            raise SystemExit("--learn needs --steps")
        _, sides = run[args.learn](args.steps, args.turns, checkout, True)
        print(json.dumps({"game": args.learn, "steps": args.steps, "returns": returns(sides)}))
        return
    found: dict[str, float] = {}
    for game, steps in (("pong", 8192), ("cartpole", 16_384)):
        if args.only in (None, game):
            found |= run[game](args.steps or steps, args.turns, checkout, False)[0]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
