"""A long play held in memory once: what is collected to choose segments from.

PPO's rollouts are short and hold stacks of frames as they come. Of a whole play every frame is kept once, and
stacks are views of them: a quarter of the bytes of four frames a stack.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from services.agent_trainer import ppo


@dataclass(frozen=True)
class Play:
    """T steps in each of N environments; *O is [D], or [C, H, W] for stacked frames."""

    sights: Tensor  # [S, *O] every observation once; of stacked frames a view, not to be written to
    before: Tensor  # [T, N] int64: what each step began with, as a row of `sights`
    after: Tensor  # [T, N] int64: what it led to, never a reset's
    actions: Tensor  # [T, N] int64
    env_rewards: Tensor  # [T, N]
    ended: Tensor  # [T, N] bool


def whole(chunks: Iterable[ppo.Rollout]) -> Play:
    """Return the play that consecutive rollouts of the same environments make; holds one of them at a time.

    Each environment has a film of its own: the first stack, then a frame for each step, and after the last of
    an episode the first stack of the next. All films lie in one. ValueError where a stack of frames is not
    the one before, moved on by one frame.
    """
    begin: Tensor | None = None  # [N, C, ...] the first stacks
    newest: list[Tensor] = []  # [t, N, ...] of each rollout: the newest frame that each step led to
    resets: list[Tensor] = []  # [E, C, ...] of each rollout: the first stacks of the episodes that began
    rows: list[tuple[Tensor, ...]] = []
    for chunk in chunks:
        frames, after = chunk.sights, chunk.next_observations
        if frames.dim() < 5:  # a vector is a stack of one
            frames, after = frames[:, :, None], after[:, :, None]
        if not torch.equal(after[:, :, :-1], frames[:-1, :, 1:]):
            raise ValueError("each stack of frames must be the one before, moved on by one frame")
        begin = frames[0].clone() if begin is None else begin
        newest.append(after[:, :, -1].clone())
        resets.append(frames[1:][chunk.ended])
        rows.append((chunk.actions, chunk.env_rewards, chunk.ended))
    if begin is None:
        raise ValueError("nothing was played")
    actions, env_rewards, ended = (torch.cat(column) for column in zip(*rows, strict=True))
    steps, depth = len(ended), begin.shape[1]
    stack = torch.arange(depth)
    films = (steps + depth * (1 + ended.sum(0))).cumsum(0)  # where each environment's film ends
    first = torch.cat([torch.zeros_like(films[:1]), films[:-1]])  # [N]
    before = first + torch.arange(steps)[:, None] + depth * (ended.cumsum(0) - ended.long())
    film = torch.empty((int(films[-1]), *begin.shape[2:]), dtype=begin.dtype)
    film[first[:, None] + stack] = begin
    film[(before[ended] + 1 + depth)[:, None] + stack] = torch.cat(resets)
    for place, part in zip(torch.split(before + depth, [len(part) for part in newest]), newest, strict=True):
        film[place] = part
    sights = film.unfold(0, depth, 1).movedim(-1, 1) if film.dim() == 3 else film
    return Play(sights, before, before + 1, actions, env_rewards, ended)
