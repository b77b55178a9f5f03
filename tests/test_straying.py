"""Play that strays from the policy: how often, for how long, and whereto."""

import pytest
import torch

from services.agent_trainer import ppo, stages
from services.agent_trainer.straying import Straying
from services.reward_trainer.reward_model import Args, RewardModel
from shared import config as configuration
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


def test_it_strays_only_from_where_the_play_is_worth_most() -> None:
    """In the last of four environments, until another one is worth more than has been seen."""
    worth = torch.arange(4.0)
    stray = Straying(torch.ones(4), 16, torch.Generator().manual_seed(7), lambda: worth, above=0.8)
    chosen = torch.stack([stray(certain(4)).argmax(-1) for _ in range(160)])  # [T, N]
    assert (chosen[:, :3] == 0).all()
    assert (chosen[:, 3] != 0).float().mean() > 0.5  # three quarters of the blind choices are not 0
    worth = torch.tensor([0.0, 9.0, 0.0, 2.5])
    assert stray.far().tolist() == [False, True, False, False]


def test_what_it_started_is_kept_up_where_it_is_worth_nothing() -> None:
    worth = torch.tensor([1.0])
    stray = Straying(torch.ones(1), 5, torch.Generator().manual_seed(2), lambda: worth, above=0.95)
    first = stray(certain(1, 50)).argmax(-1)
    worth = torch.tensor([-1.0])
    after = [stray(certain(1, 50)).argmax(-1) for _ in range(6)]
    assert first != 0
    assert after == [first] * 4 + [0, 0]


def test_at_one_step_the_policy_alone_plays_where_it_is_worth_little() -> None:
    worth = torch.tensor([0.0, 1.0])
    stray = Straying(torch.ones(2), 1, torch.Generator(), lambda: worth, above=0.5)
    torch.testing.assert_close(stray(certain(2)).exp(), torch.tensor([[1.0, 0, 0, 0], [0.25] * 4]))


def test_the_collecting_stage_asks_the_reward_model_what_play_is_worth() -> None:
    segments = {"noise": 1.0, "noise_above": 0.9, "collect_envs": 4}
    config = configuration.parse({"name": "x", "env_id": "CartPole-v1", "segments": segments})
    model, player = RewardModel([2], Args()), ppo.Player(vector(Corridor, 4), seed=1)
    stray = stages.straying(config, player, model, torch.Generator())
    assert stray.worth
    assert stray.worth().tolist() == model.members(torch.as_tensor(player.observations)).mean(0).tolist()
    assert stages.straying(config, player, None, torch.Generator()).worth is None  # in the first round
