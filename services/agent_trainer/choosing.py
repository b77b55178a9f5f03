"""Which segments of a play are compared: drawn at random, or chosen by what the reward ensemble predicts."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from services.agent_trainer.play import Play
from services.reward_trainer.novelty import novelty
from services.reward_trainer.reward_model import RewardModel
from shared.config import ExperimentConfig


@dataclass(frozen=True)
class Segment:
    """Steps start … start + length − 1 of environment `env`: a candidate to be shown."""

    env: int
    start: int


def choose(
    play: Play, model: RewardModel | None, config: ExperimentConfig, count: int, draw: torch.Generator
) -> list[list[Segment]]:
    """Choose `count` comparisons of K segments, of which a share `segments.chosen` is left to the model.

    ValueError if no episode is long enough for K segments. In the first round there is no model to ask.
    """
    k, length = config.labels.clips_per_comparison, config.segments.length
    starts = whole_segments(play, length)
    if len(starts) < k:
        raise ValueError(
            f"no play has {k} segments of {length} steps to compare; set segments.length lower, "
            "or segments.collect_steps higher"
        )
    asked = model is not None and config.segments.choice != "uniform"
    wanted = count * (config.segments.candidates if asked else 1)
    rows: list[Tensor] = []  # random orders of the segments, as many as it takes, so that few are drawn twice
    while sum(len(row) // k for row in rows) < wanted:
        rows.append(torch.randperm(len(starts), generator=draw)[: len(starts) // k * k])
    together = torch.cat(rows)[: k * wanted].view(wanted, k)
    if model and asked:
        novel = config.segments.choice == "novelty"
        of = partial(novelty, model) if novel else model.predict
        worth = worth_asking(clip_sums(play, of, starts, length)[:, together], config.segments.choice)
        best = apart(worth, starts[together], length, play, round(count * config.segments.chosen))
        others = torch.ones(wanted, dtype=torch.bool).index_fill(0, best, value=False).nonzero().squeeze(1)
        mixed = torch.cat([best, others[: count - len(best)]])  # and the labeler cannot tell them apart
        together = together[mixed[torch.randperm(count, generator=draw)]]
    return [[Segment(env=int(starts[i, 1]), start=int(starts[i, 0])) for i in row] for row in together]


def whole_segments(play: Play, length: int) -> Tensor:
    """Return the step and the environment [n, 2] at which segments begin that lie within one episode."""
    ended = play.ended.long()  # [T, N]
    ends_before = torch.cat([torch.zeros_like(ended[:1]), ended.cumsum(0)])  # [T + 1, N]: ends before step t
    whole = ends_before[length - 1 : -1] == ends_before[:-length]  # no end before the segment's last step
    return whole.nonzero()


def clip_sums(play: Play, of: Callable[[Tensor], Tensor], starts: Tensor, length: int) -> Tensor:
    """Return the sums [M, n] of what `of` makes [M, ...] of sights, over the segments at `starts` [n, 2]."""
    # Each step is looked at once, however many segments it lies in; some at a time, for frames are large.
    steps = [of(play.sights[after]).cpu() for after in torch.split(play.after, 64)]  # [M, t, N]
    total = torch.cat(steps, 1).double().cumsum(1)
    total = torch.cat([torch.zeros_like(total[:, :1]), total], 1)  # [M, T + 1, N]
    sums = total[:, length:] - total[:, :-length]
    return sums[:, starts[:, 0], starts[:, 1]].float()


def worth_asking(sums: Tensor, choice: str) -> Tensor:
    """Return how much is expected of asking for comparisons [n] with the members' sums [M, n, K].

    By `novelty`, of which they are sums then, counts the most novel clip: the others are what it is held
    against. Else they are of rewards, and of every two clips the model knows how probable it is that one is
    preferred. By `disagreement` counts how much that differs among the members, by `difference` how far their
    mean is from a half, where a tie is likely; on average over the pairs of clips.
    """
    if choice == "novelty":
        return sums.mean(0).amax(-1)
    one, other = torch.combinations(torch.arange(sums.shape[-1])).T
    preferred = (sums[..., one] - sums[..., other]).sigmoid()  # [M, n, pairs of clips]
    if choice == "disagreement":
        return preferred.std(0, correction=0).mean(-1)
    return (preferred.mean(0) - 0.5).abs().mean(-1)


def apart(worth: Tensor, places: Tensor, length: int, play: Play, count: int) -> Tensor:
    """Return `count` of the comparisons [n] that are worth most, no step of the play in two of them.

    places: [n, K, 2] step and environment at which each clip begins. Fewer where there is no room for more.
    """
    taken = torch.zeros_like(play.ended)  # [T, N]
    best: list[int] = []
    for row in worth.argsort(descending=True, stable=True).tolist():
        if len(best) == count:
            break
        spans = [(slice(start, start + length), env) for start, env in places[row].tolist()]
        if not any(taken[span].any() for span in spans):
            best.append(row)
            for span in spans:
                taken[span] = True
    return torch.tensor(best, dtype=torch.int64)
