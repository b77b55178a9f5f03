"""What bfloat16 and torch.compile do for a gradient step on frames: `python -m benchmarks.gradient_steps`.

The agent of Mnih et al. on 84 pixels in minibatches of 256, and an ensemble of three reward models on 16
comparisons of 25 steps of 42 pixels, on frames drawn at random, where the services would compute too. As in
training, the agent's frames are prepared before. The ratios are to float32; compiling takes place in a first
turn, which does not count. The last line is one JSON object.
"""

import argparse
import json

import torch
from torch import nn

from benchmarks.options import positive
from benchmarks.peers.turn import Clock, Work, serve
from benchmarks.side_by_side import Side, measure, ours, ratio
from services.agent_trainer import ppo
from services.reward_trainer import reward_model
from services.torch_setup import device, set_up

WAYS = {"float32": (False, False), "bfloat16": (True, False), "bfloat16, compiled": (True, True)}


def network_of(kind: str, bfloat16: bool) -> nn.Module:
    """Return a new agent or reward model."""
    if kind == "agent":
        return ppo.Agent((4, 84, 84), 6, hidden=512, bfloat16=bfloat16)
    return reward_model.RewardModel((4, 42, 42), reward_model.Args(hidden=64, bfloat16=bfloat16))


def our_work(kind: str, bfloat16: bool, compiled: bool, steps: int) -> Work:
    """Return what takes `steps` gradient steps; a unit is one of them."""
    set_up()
    where = device()
    network = network_of(kind, bfloat16).to(where)
    shape = (256, 4, 84, 84) if kind == "agent" else (16, 2, 25, 4, 42, 42)
    draw = torch.Generator().manual_seed(1)
    frames = torch.randint(256, shape, dtype=torch.uint8, generator=draw).to(where)
    if isinstance(network, ppo.Agent):
        frames = network.prepare(frames)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    forward = torch.compile(network) if compiled else network

    def work(clock: Clock) -> dict[str, float]:
        for _ in range(steps):
            out = forward(frames)
            objective = sum(part.square().mean() for part in out) if kind == "agent" else out.square().mean()
            optimizer.zero_grad()
            objective.backward()
            optimizer.step()
        if where.type == "cuda":
            torch.cuda.synchronize()
        return {"units": steps}

    return work


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=positive, default=5, help="turns of each side")
    parser.add_argument("--steps", type=positive, default=20, help="gradient steps a turn")
    parser.add_argument("--serve", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        kind, bfloat16, compiled, steps = args.serve
        serve(our_work(kind, bfloat16 == "1", compiled == "1", int(steps)))
        return
    found: dict[str, dict[str, float]] = {}
    for kind in ("agent", "ensemble"):
        sides = [
            Side(name, ours("gradient_steps", kind, *map(int, way), args.steps)) for name, way in WAYS.items()
        ]
        print(f"\n{kind}: gradient steps")
        measure(sides, args.turns)
        found[kind] = {side.name: round(ratio(side, sides[0]), 2) for side in sides[1:]}
        print("times float32: " + ", ".join(f"{name} {value:.2f}" for name, value in found[kind].items()))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
