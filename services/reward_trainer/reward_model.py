"""A reward model from preferences in one file: an ensemble, its likelihood, its training.

    python -m services.reward_trainer.reward_model      # learns a hidden taste from 60 made-up preferences

A member gives every step a reward r(s′) from the step's next observation; a clip is worth its sum. Clips are
ordered as by Plackett and Luce (two: Bradley and Terry). Equations and sources: docs/reward_model.md.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise, permutations

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Args:
    """Settings; `--help` prints these lines."""

    seed: int = 1
    """the seed of every random draw"""
    members: int = 3
    """networks in the ensemble"""
    hidden: int = 32
    """units in each of the two hidden layers that follow the observation or its convolutions"""
    learning_rate: float = 3e-3
    """AdamW's step size"""
    weight_decay: float = 1e-4
    """AdamW's weight decay"""
    epochs: int = 80
    """passes over the label set"""
    held_out: float = 0.1
    """fraction of comparisons kept out of training, at random"""
    error_rate: float = 0.1
    """share of answers taken to be given at random, right or wrong alike"""
    smooth: bool = False
    """let that share smooth the answers instead: nothing is certain, so what is seen often counts no more"""
    pessimism: float = 0.0
    """how many of the ensemble's deviations are taken off its mean reward"""
    batch_size: int | None = None
    """comparisons in a gradient step; None for all of them"""
    bfloat16: bool = False
    """compute convolutions in bfloat16: 1.4 times as fast on a processor that knows it"""


@dataclass
class Preferences:
    """B comparisons of K clips of T steps each; *O is [D], or [C, H, W] for stacked frames."""

    observations: Tensor  # [B, K, T, *O] float32, or uint8 for frames: what each step led to
    ranks: Tensor  # [B, K] int64: 0 is the best, equal ranks are ties
    held_out: Tensor  # [B] bool


class RewardModel(nn.Module):
    """M members computed together, and the statistics that normalise them.

    A member is two hidden tanh layers; of frames they read three convolutions of the member's own.
    """

    def __init__(self, shape: Sequence[int], args: Args) -> None:
        super().__init__()
        self.shape, self.sizes = tuple(shape), {"shape": [*shape]}
        self.args, draw = args, torch.Generator().manual_seed(args.seed)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.eyes, features = None, shape[0]
        if len(shape) == 3:
            layers, channels = list[nn.Module](), shape[0]
            for side, stride in ((8, 4) if min(shape[1:]) >= 64 else (4, 2), (4, 2), (3, 1)):
                groups = args.members if layers else 1  # all see the same frame, then only their own
                layer = nn.Conv2d(channels, 16 * args.members, side, stride, groups=groups)
                bound = (channels // groups * side * side) ** -0.5
                for parameter in layer.parameters():  # by our own draw: the same seed makes the same model
                    nn.init.uniform_(parameter, -bound, bound, generator=draw)
                layers, channels = [*layers, layer, nn.ReLU(inplace=True)], 16 * args.members
            self.eyes = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            features = self.eyes(torch.zeros(1, *shape)).numel() // args.members
        for inputs, units in pairwise((features, args.hidden, args.hidden, 1)):
            bound = inputs**-0.5
            weight = torch.empty(args.members, inputs, units).uniform_(-bound, bound, generator=draw)
            self.weights.append(nn.Parameter(weight))  # [M, inputs, units]
            self.biases.append(nn.Parameter(torch.zeros(args.members, 1, units)))
        self.mean = nn.Buffer(torch.zeros(*shape))  # of observations
        self.deviation = nn.Buffer(torch.ones(*shape))
        self.measured = nn.Buffer(torch.zeros(()))  # whether these two are, see train()
        self.shift = nn.Buffer(torch.zeros(args.members, 1))  # of each member's predictions
        self.scale = nn.Buffer(torch.ones(args.members, 1))
        self.familiar = nn.Buffer(torch.zeros(args.members, args.hidden, args.hidden))  # see novelty.py

    def features(self, observations: Tensor) -> Tensor:
        """Return each member's last hidden layer [M, n, H] for n observations [..., *O]."""
        x = observations.flatten(0, -len(self.shape) - 1).to(self.mean.device)
        x = ((x - self.mean) / self.deviation).clamp_(-10, 10)  # [n, *O]
        if self.eyes is not None:
            x = x.to(torch.bfloat16 if self.args.bfloat16 else x.dtype, memory_format=torch.channels_last)
            with torch.autocast(x.device.type, torch.bfloat16, enabled=self.args.bfloat16):
                x = self.eyes(x).float().reshape(len(x), self.args.members, -1).transpose(0, 1)
        x = x.expand(self.args.members, -1, -1)  # [M, n, features]
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = torch.baddbmm(bias, x, weight).tanh_()
        return x

    def forward(self, observations: Tensor) -> Tensor:
        """Return each member's prediction [M, ...], as it was learned, for observations [..., *O]."""
        x = torch.baddbmm(self.biases[-1], self.features(observations), self.weights[-1])  # [M, n, 1]
        return x.view(-1, *observations.shape[: -len(self.shape)])

    @torch.no_grad()
    def predict(self, observations: Tensor, of: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Return what `of` does, or else `forward`, a bounded number of the leading rows at a time."""
        rows = max(1, min(8192 * self.mean.numel(), 1 << 22) // max(1, observations[0].numel()))
        return torch.cat([(of or self)(part) for part in torch.split(observations, rows)], dim=1)

    @torch.no_grad()
    def members(self, observations: Tensor) -> Tensor:
        """Return each member's normalised reward [M, ...]: mean 0, deviation 1 over the clips seen so far."""
        raw = self.predict(observations)
        return ((raw.flatten(1) - self.shift) / self.scale).view(raw.shape)

    def reward(self, observations: Tensor, actions: Tensor, next_observations: Tensor) -> Tensor:
        """Return the reward [B] of each step: the members' mean, less `pessimism` of their deviations."""
        members = self.members(next_observations)
        return members.mean(0) - self.args.pessimism * members.std(0, correction=0)


def log_probabilities(sums: Tensor, error_rate: float) -> Tensor:
    """Return the log-probability [..., K!] of each ordering of clips with summed rewards [..., K].

    Plackett-Luce: the best is drawn by a softmax over all clips, the next over those left, and so on. A share
    `error_rate` of the answers is taken to be drawn from all orderings alike (Christiano et al. 2017, 2.2.3).
    """
    ordered = sums[..., list(permutations(range(sums.shape[-1])))]  # [..., K!, K]
    left = ordered.flip(-1).logcumsumexp(-1).flip(-1)  # log Σ exp over the clips not yet drawn
    log_chosen = (ordered - left).sum(-1)
    if error_rate == 0:
        return log_chosen
    blind = torch.full_like(log_chosen, math.log(error_rate / log_chosen.shape[-1]))
    return torch.logaddexp(log_chosen + math.log1p(-error_rate), blind)


def targets(ranks: Tensor) -> Tensor:
    """Return weights [B, K!] of the orderings that agree with ranks [B, K]: both of a tie count half."""
    ordered = ranks[:, list(permutations(range(ranks.shape[-1])))]  # [B, K!, K]
    agrees = (ordered.diff(dim=-1) >= 0).all(-1).float()
    return agrees / agrees.sum(-1, keepdim=True)


def loss(sums: Tensor, ranks: Tensor, error_rate: float, smooth: bool = False) -> Tensor:
    """Return the cross-entropy [..., B] of ranks [B, K], given summed rewards [..., B, K]."""
    wanted = targets(ranks)
    if smooth:  # label smoothing, Szegedy et al. 2016, section 7
        wanted, error_rate = (1 - error_rate) * wanted + error_rate / wanted.shape[-1], 0
    return -(wanted * log_probabilities(sums, error_rate)).sum(-1)


def train(
    model: RewardModel, data: Preferences,
    on_progress: Callable[[float, dict[str, float]], None] = lambda fraction, metrics: None,
    should_stop: Callable[[], bool] = lambda: False,
    resumable: Callable[..., Iterable[int]] = lambda epochs, *parts: epochs,
) -> dict[str, float]:  # fmt: skip
    """Train `model` in place on what is not held out, or until `should_stop()`; return the metrics.

    Each member has its own bootstrap sample: how often it drew each comparison weighs that comparison's loss.
    Both normalisations are computed here, from the clips given, so they hold from the first round on.
    `resumable` may skip epochs that a checkpoint holds, see `services/checkpoints.py`.
    """
    args, device = model.args, model.mean.device
    kept, ranks = (~data.held_out).nonzero().squeeze(1), data.ranks[~data.held_out]  # [B], [B, K]
    if not len(ranks):
        raise ValueError("there is no preference to train on; all are held out")
    if not model.measured:
        count = data.observations.shape[:3].numel()
        some = torch.arange(0, count, 1 + count // 4096)  # some thousands tell enough
        seen = data.observations[torch.unravel_index(some, data.observations.shape[:3])].float()
        model.mean.copy_(seen.mean(0))
        deviation = seen.std(0, correction=0).clamp(min=8 if model.eyes else 0)
        model.deviation.copy_(deviation.where(deviation > 1e-6, 1.0))
        model.measured.fill_(1)
    draw, size = torch.Generator().manual_seed(args.seed), args.batch_size or len(ranks)
    drawn = torch.randint(len(ranks), (args.members, len(ranks)), generator=draw)
    times = torch.zeros(args.members, len(ranks)).scatter_add_(1, drawn, torch.ones(drawn.shape))  # [M, B]
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.learning_rate, weight_decay=args.weight_decay)
    for epoch in resumable(range(args.epochs), model, optimizer, draw):
        if should_stop():
            break
        order = torch.randperm(len(ranks), generator=draw) if size < len(ranks) else torch.arange(len(ranks))
        for index in torch.split(order, size):
            sums = model(data.observations[kept[index]]).sum(-1)  # [M, b, K]
            entropy = loss(sums, ranks[index].to(device), args.error_rate, args.smooth)  # [M, b]
            objective = (entropy * times[:, index].to(device)).mean(1).sum()  # each member learns as if alone
            optimizer.zero_grad()
            objective.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if epoch % 10 == 9 or epoch + 1 == args.epochs:
            on_progress((epoch + 1) / args.epochs, {"losses/reward_loss": objective.item() / args.members})
    raw = model.predict(data.observations)  # [M, B, K, T]
    model.shift.copy_(raw.flatten(1).mean(1, keepdim=True))
    model.scale.copy_(raw.flatten(1).std(1, keepdim=True).clamp(min=1e-6))
    sums, metrics = raw.sum(-1).cpu(), dict[str, float]()  # [M, B, K]
    for name, rows in (("train", ~data.held_out), ("held_out", data.held_out)):
        found = evaluate(sums[:, rows], data.ranks[rows], args.error_rate) if rows.any() else {}
        metrics |= {f"{name}/{key}": value for key, value in found.items()}
    return metrics


def evaluate(sums: Tensor, ranks: Tensor, error_rate: float) -> dict[str, float]:
    """Compare the members' summed rewards [M, B, K] of clips with the preferences ranks [B, K].

    `accuracy`: share of the ordered pairs of clips put in the same order. `loss`: the mean cross-entropy.
    `calibration`: expected calibration error in five bins: how far the probability that one clip of a pair is
    preferred lies, on average, from how often clips that were given such a probability were preferred.
    """
    metrics = {"loss": loss(sums, ranks, error_rate).mean().item(), "labels": float(len(ranks))}
    wins = sums[..., :, None] - sums[..., None, :]  # [M, B, K, K]: how far clip i is ahead of clip j
    probable = wins.sigmoid().mean(0) * (1 - error_rate) + error_rate / 2
    ordered = ranks[..., :, None] < ranks[..., None, :]  # [B, K, K]: i was preferred to j
    if ordered.any():
        right = probable[ordered]  # [n]: what each preferred clip was given
        metrics["accuracy"] = ((right > 0.5).float() + 0.5 * (right == 0.5).float()).mean().item()
        bins = (torch.cat([right, 1 - right]) * 5).long().clamp(max=4)  # each pair seen from both sides
        gaps = torch.zeros(5).scatter_add_(0, bins, torch.cat([right - 1, 1 - right]))
        metrics["calibration"] = (gaps.abs().sum() / len(bins)).item()
    return metrics


def main(args: Args) -> None:
    """Learn a hidden taste, clips near (1, 0) in a plane, from 60 made-up preferences, one in ten wrong."""
    draw = torch.Generator().manual_seed(args.seed)
    start, steps = torch.randn(60, 2, 1, 2, generator=draw), torch.randn(60, 2, 25, 2, generator=draw)
    clips = start + 0.2 * steps.cumsum(2)  # random walks [60, 2, 25, 2]
    taste = -(clips - torch.tensor([1.0, 0.0])).square().sum(-1).sum(-1)  # [60, 2]
    wrong, held_out = torch.rand(2, 60, generator=draw)
    ranks = (taste.argsort(descending=True) + (wrong < 0.1)[:, None]) % 2
    model = RewardModel([2], args)
    for name, value in train(model, Preferences(clips, ranks, held_out < args.held_out)).items():
        print(f"{name:24} {value:8.3f}")
    for at in torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]], [[-1.0, 0.0]], [[1.0, 2.0]]]):  # [1, 2]
        print(f"reward at {at[0].tolist()!s:15} {model.reward(at, at, at).item():8.3f}")


if __name__ == "__main__":
    import tyro

    main(tyro.cli(Args))
