"""Which segments are compared, by a reward model whose predictions are known."""

from itertools import combinations

import pytest
import torch

from services.agent_trainer import choosing
from services.agent_trainer.play import Play
from services.reward_trainer.reward_model import Args, RewardModel
from shared import config as configuration

STEPS, ENVS, LENGTH = 120, 4, 10


@pytest.fixture
def play() -> Play:
    """Four environments; the second one's episode ends in the middle."""
    draw = torch.Generator().manual_seed(1)
    sights = torch.randn((STEPS + 1) * ENVS, 3, generator=draw).cumsum(0) / 5
    before = torch.arange(STEPS)[:, None] * ENVS + torch.arange(ENVS)
    ended = torch.zeros(STEPS, ENVS, dtype=torch.bool)
    ended[60, 1] = True
    return Play(sights, before, before + ENVS, torch.zeros(STEPS, ENVS), torch.zeros(STEPS, ENVS), ended)


@pytest.fixture
def model() -> RewardModel:
    return RewardModel([3], Args(seed=2))


def chosen(
    play: Play, model: RewardModel | None, choice: str, share: float = 1.0, k: int = 2, count: int = 8
) -> list[list[choosing.Segment]]:
    config = configuration.parse(
        {
            "name": "choosing", "env_id": "CartPole-v1",
            "segments": {"length": LENGTH, "choice": choice, "chosen": share, "candidates": 50},
            "labels": {"clips_per_comparison": k},
        }
    )  # fmt: skip
    return choosing.choose(play, model, config, count, torch.Generator().manual_seed(3))


def preferred(play: Play, model: RewardModel, pairs: list[list[choosing.Segment]]) -> torch.Tensor:
    """Return each member's probability [M, n] that a pair's first clip is preferred, by summing its steps."""
    steps = torch.tensor([[[one.start + t for t in range(LENGTH)] for one in pair] for pair in pairs])
    envs = torch.tensor([[one.env for one in pair] for pair in pairs])[..., None]
    sums = model.predict(play.sights[play.after[steps, envs]]).sum(-1)
    return (sums[..., 0] - sums[..., 1]).sigmoid()


def test_sums_over_segments_are_those_of_their_steps(play: Play, model: RewardModel) -> None:
    starts = choosing.whole_segments(play, LENGTH)
    assert len(starts) == (STEPS - LENGTH + 1) * ENVS - (LENGTH - 1)  # none over the episode's end
    sums = choosing.clip_sums(play, model.predict, starts, LENGTH)
    pairs = [
        [choosing.Segment(int(env), int(start)) for start, env in starts[[i, i + 7]]] for i in (0, 100, 300)
    ]
    for i, p in zip((0, 100, 300), preferred(play, model, pairs).T, strict=True):
        assert torch.allclose((sums[:, i] - sums[:, i + 7]).sigmoid(), p, atol=1e-5)


def test_each_choice_finds_what_it_looks_for(play: Play, model: RewardModel) -> None:
    found = {
        c: preferred(play, model, chosen(play, model, c)) for c in ("uniform", "disagreement", "difference")
    }
    disagree = {choice: p.std(0, correction=0).mean() for choice, p in found.items()}
    differ = {choice: (p.mean(0) - 0.5).abs().mean() for choice, p in found.items()}
    assert disagree["disagreement"] > 1.2 * max(disagree["uniform"], disagree["difference"])
    assert differ["difference"] > 1.2 * max(differ["uniform"], differ["disagreement"])


@pytest.mark.parametrize("k", [2, 3])
def test_no_step_is_in_two_of_the_chosen(play: Play, model: RewardModel, k: int) -> None:
    def some_are(choice: str) -> bool:
        shown = [
            {(one.env, one.start + t) for one in together for t in range(LENGTH)}
            for together in chosen(play, model, choice, k=k)
        ]
        return any(one & other for one, other in combinations(shown, 2))

    assert some_are("uniform")
    assert not some_are("difference")


def test_a_share_is_left_to_chance(play: Play, model: RewardModel) -> None:
    def of(share: float) -> list[tuple[choosing.Segment, ...]]:
        return [tuple(pair) for pair in chosen(play, model, "difference", share)]

    half, all_chosen, none = set(of(0.5)), set(of(1.0)), set(of(0.0))
    assert len(half) == len(all_chosen) == len(none) == 8
    assert len(half & all_chosen) >= 4
    assert len(half & none) >= 3
    assert of(0.5) == of(0.5)
    # A play without room for as many apart is filled up at random.
    assert len(set(map(tuple, chosen(play, model, "difference", count=60)))) == 60


def test_without_a_model_and_without_room(play: Play) -> None:
    assert chosen(play, None, "difference") == chosen(play, None, "uniform")
    short = Play(**{name: x if name == "sights" else x[:9] for name, x in vars(play).items()})
    with pytest.raises(ValueError, match="no play has 2 segments of 10 steps"):
        chosen(short, None, "uniform")
