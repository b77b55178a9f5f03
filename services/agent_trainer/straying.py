"""What is played to be shown strays from the policy, so that people see what the agent itself never does.

A reward model that has never seen a place is sure of itself there, and may be wrong: nobody can tell it
before the agent has been there.
"""

import torch
from torch import Tensor
from torch.nn.functional import one_hot


class Straying:
    """Mixes the policy of each environment with blind chance; `noise` [N] is the share of steps left to it.

    A blind choice is kept up for `hold` steps. At 1 it is drawn anew at each, and mostly undone by the next;
    kept up, it leads somewhere (Dabney et al. 2021, "Temporally-Extended ε-Greedy Exploration", with a fixed
    length).
    """

    def __init__(self, noise: Tensor, hold: int, draw: torch.Generator) -> None:
        self.noise, self.hold, self.draw = noise, hold, draw
        self.begin = noise / (hold * (1 - noise) + noise)  # so often a free step begins one [N]
        self.left, self.chosen = torch.zeros_like(noise, dtype=torch.int), torch.zeros_like(noise).long()

    def __call__(self, log_policy: Tensor) -> Tensor:
        """Return what is drawn from in place of `log_policy`, both [N, A]."""
        actions = log_policy.shape[-1]
        if self.hold == 1:
            return log_policy.exp().lerp(torch.tensor(1 / actions), self.noise[:, None]).log()
        begins = (self.left == 0) & (torch.rand(self.noise.shape, generator=self.draw) < self.begin)
        choices = torch.randint(actions, self.noise.shape, generator=self.draw)
        self.chosen = choices.where(begins, self.chosen)
        self.left = self.left.masked_fill(begins, self.hold)
        blind = self.left > 0
        self.left -= blind.int()
        return one_hot(self.chosen, actions).log().where(blind[:, None], log_policy)
