"""What is played to be shown strays from the policy, so that people see what the agent itself never does.

A reward model that has never seen a place is sure of itself there, and may be wrong: nobody can tell it
before the agent has been there.
"""

from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

RECENT = 16_384  # sights of which is remembered what they were worth, over all environments


class Straying:
    """Mixes the policy of each environment with blind chance; `noise` [N] is the share of steps left to it.

    A blind choice is kept up for `hold` steps. At 1 it is drawn anew at each, and mostly undone by the next;
    kept up, it leads somewhere (Dabney et al. 2021, "Temporally-Extended ε-Greedy Exploration", with a fixed
    length).

    With `worth`, which tells what the present sights [N] are thought to be worth, straying begins only where
    that is above the quantile `above` of what it has been of late: the policy leads to as far as it can, and
    chance leads on from there ("first return, then explore", Ecoffet et al. 2021). Straying everywhere, few
    get as far.
    """

    def __init__(
        self, noise: Tensor, hold: int, draw: torch.Generator,
        worth: Callable[[], Tensor] | None = None, above: float = 0.0,
    ) -> None:  # fmt: skip
        self.noise, self.hold, self.draw = noise, hold, draw
        self.worth, self.above = worth, above
        self.seen: deque[Tensor] = deque(maxlen=max(1, RECENT // len(noise)))
        self.begin = noise / (hold * (1 - noise) + noise)  # so often a free step begins one [N]
        self.left, self.chosen = torch.zeros_like(noise, dtype=torch.int), torch.zeros_like(noise).long()

    def __call__(self, log_policy: Tensor) -> Tensor:
        """Return what is drawn from in place of `log_policy`, both [N, A]."""
        actions, here = log_policy.shape[-1], self.far()
        if self.hold == 1:
            return log_policy.exp().lerp(torch.tensor(1 / actions), (self.noise * here)[:, None]).log()
        begins = (self.left == 0) & here & (torch.rand(self.noise.shape, generator=self.draw) < self.begin)
        choices = torch.randint(actions, self.noise.shape, generator=self.draw)
        self.chosen = choices.where(begins, self.chosen)
        self.left = self.left.masked_fill(begins, self.hold)
        blind = self.left > 0
        self.left -= blind.int()
        return one_hot(self.chosen, actions).log().where(blind[:, None], log_policy)

    def far(self) -> Tensor:
        """Return in which environments straying may begin now: bool [N]."""
        if self.worth is None:
            return torch.ones_like(self.noise, dtype=torch.bool)
        now = self.worth()
        self.seen.append(now)
        return now >= torch.cat(list(self.seen)).quantile(self.above)
