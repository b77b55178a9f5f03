"""Play that strays from the policy: how often, for how long, and whereto."""

import pytest
import torch

from services.agent_trainer import ppo
from services.agent_trainer.straying import Straying
from tests.test_ppo import Corridor, vector

NOISE = torch.tensor([0.0, 0.2, 0.5, 1.0])


def certain(count: int, actions: int = 4) -> torch.Tensor:
    """A policy that always takes action 0 [count, actions]."""
    return torch.tensor([0.0] + [-torch.inf] * (actions - 1)).expand(count, -1)


def test_at_one_step_the_policy_is_mixed_with_chance() -> None:
    agent, player = ppo.Agent([2], 2, seed=5), ppo.Player(vector(Corridor, 4), seed=1)
    with torch.no_grad():
        agent.policy[-1].bias.copy_(torch.tensor([0.0, 30.0]))  # type: ignore[union-attr]
    data = ppo.rollout(agent, player, 500, Straying(NOISE, 1, torch.Generator()))
    right = (data.actions == 1).float().mean(0)
    torch.testing.assert_close(right, torch.tensor([1.0, 0.9, 0.75, 0.5]), atol=0.06, rtol=0)


@pytest.mark.parametrize("hold", [2, 16])
def test_a_blind_choice_is_kept_up_and_has_its_share_of_the_steps(hold: int) -> None:
    stray = Straying(NOISE, hold, torch.Generator().manual_seed(3))
    chosen = []
    for _ in range(20_000):
        drawn_from = stray(certain(4))
        assert (drawn_from.exp().sum(-1) == 1).all()
        chosen.append(drawn_from.argmax(-1))
    share = (torch.stack(chosen) != 0).float().mean(0) * 4 / 3  # a quarter of the blind choices is 0
    torch.testing.assert_close(share, NOISE, atol=0.03, rtol=0)
    alone = torch.stack(chosen)[:, 3]  # one stretch after the other
    stretches = alone[: len(alone) // hold * hold].view(-1, hold)
    assert (stretches == stretches[:, :1]).all()
    assert torch.bincount(stretches[:, 0]).min() > 0.2 * len(stretches)


def test_the_same_seed_strays_in_the_same_way() -> None:
    def played() -> torch.Tensor:
        stray = Straying(NOISE, 5, torch.Generator().manual_seed(7))
        return torch.stack([stray(certain(4)) for _ in range(100)])

    assert torch.equal(played(), played())
