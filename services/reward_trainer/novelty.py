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
    count, seen = observations.shape[:3].numel(), 0
    moments, mean = torch.zeros_like(model.familiar), torch.zeros_like(model.familiar[:, :1])
    for part in torch.split(torch.arange(0, count, 1 + count // STEPS), 512):
        features = model.features(observations[torch.unravel_index(part, observations.shape[:3])])
        moments += features.transpose(1, 2) @ features
        mean += features.sum(1, keepdim=True)
        seen += features.shape[1]
    moments, mean = moments / seen, mean / seen  # [M, H, H], [M, 1, H]
    variance = (moments.diagonal(dim1=1, dim2=2) - mean.squeeze(1).square()).mean(1).clamp(min=1e-6)  # [M]
    ridge = RIDGE * variance[:, None, None] * torch.eye(moments.shape[1], device=moments.device)
    model.familiar.copy_(torch.linalg.inv(moments + ridge))


@torch.no_grad()
def novelty(model: RewardModel, observations: Tensor) -> Tensor:
    """Return how novel observations [..., *O] are [...]: most of those in labeled clips less than 1."""
    features = model.features(observations)  # [M, n, H]
    squares = ((features @ model.familiar) * features).mean(-1)  # [M, n]
    return squares.clamp(min=0).sqrt().mean(0).view(observations.shape[: -len(model.shape)])
