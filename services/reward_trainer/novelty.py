"""How unlike everything labeled a sight is: where nothing was asked, the reward is a guess.

A member's reward is linear in its last hidden layer φ. By Bayesian linear regression the variance of such a
reward is φᵀ(E[φφᵀ] + λI)⁻¹φ but for a factor, the expectation being over the steps of labeled clips. Members
that saw the same clips may agree on what they are wrong about; this does not depend on what they predict.
Equation and source: docs/reward_model.md.
"""

import torch
from torch import Tensor

from services.reward_trainer.reward_model import RewardModel

STEPS = 8192  # of the labeled clips, about as many as are looked at
RIDGE = 0.01  # λ, in units of the features' mean variance


@torch.no_grad()
def measure(model: RewardModel, observations: Tensor) -> None:
    """Let `model` remember what is familiar: the steps of labeled clips, observations [B, K, T, *O]."""
    count = observations.shape[:3].numel()
    some = torch.split(torch.arange(0, count, 1 + count // STEPS), 512)
    parts = (observations[torch.unravel_index(part, observations.shape[:3])] for part in some)
    known = torch.cat([model.features(part) for part in parts], dim=1)  # [M, n, H]
    ridge = RIDGE * known.var(1, correction=0).mean(1).clamp(min=1e-6)  # [M]
    ridges = ridge[:, None, None] * torch.eye(known.shape[2], device=known.device)
    model.familiar.copy_(torch.linalg.inv(known.mT @ known / known.shape[1] + ridges))


@torch.no_grad()
def novelty(model: RewardModel, observations: Tensor) -> Tensor:
    """Return how novel each member finds observations [..., *O]: [M, ...], most of labeled clips below 1."""

    def deviations(part: Tensor) -> Tensor:
        features = model.features(part)  # [M, n, H]
        squares = ((features @ model.familiar) * features).mean(-1)  # [M, n]
        return squares.clamp(min=0).sqrt().view(-1, *part.shape[: -len(model.shape)])

    return model.predict(observations, deviations)
