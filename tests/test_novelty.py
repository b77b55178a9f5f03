"""How novel a sight is to a reward model, against the formula written out, and what is asked about for it."""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from services import weights
from services.agent_trainer import clips
from services.agent_trainer.stages import collect
from services.reward_trainer import novelty
from services.reward_trainer.reward_model import Args, Preferences, RewardModel, train
from services.reward_trainer.stages import train_reward
from shared import config as configuration
from shared.jobs import TrainRewardJob
from tests.test_stages import Memory, go_on, job, labels_of, silent


def clips_near(x: float, count: int = 20) -> torch.Tensor:
    """Return two clips of ten steps [count, 2, 10, 2] for each comparison, all around (x, 0)."""
    noise = torch.randn(count, 2, 10, 2, generator=torch.Generator().manual_seed(7))
    return torch.tensor([x, 0.0]) + 0.3 * noise


def novel(model: RewardModel, observations: torch.Tensor) -> torch.Tensor:
    """Return the members' mean [...]."""
    return novelty.novelty(model, observations).mean(0)


@pytest.fixture
def model() -> RewardModel:
    """One that has learned from clips around the origin that further right is better."""
    model, seen = RewardModel([2], Args(hidden=16, epochs=20)), clips_near(0)
    ranks = seen[..., 0].sum(-1).argsort(descending=True).argsort()
    train(model, Preferences(seen, ranks, torch.zeros(len(seen), dtype=torch.bool)))
    novelty.measure(model, seen)
    return model


def test_it_is_the_variance_of_a_linear_model_on_the_last_layer(model: RewardModel) -> None:
    asked = clips_near(1.5)[:3]
    total = torch.zeros(3, 2, 10)
    for known, new in zip(model.features(clips_near(0)), model.features(asked), strict=True):  # each [n, 16]
        ridge = novelty.RIDGE * known.var(0, correction=0).mean()
        inverse = torch.linalg.inv(known.T @ known / len(known) + ridge * torch.eye(16))
        total += torch.stack([(phi @ inverse @ phi / 16) ** 0.5 for phi in new]).view(3, 2, 10) / 3
    assert torch.allclose(novel(model, asked), total, rtol=1e-3)


def test_what_was_labeled_is_familiar_and_what_was_not_is_novel(model: RewardModel) -> None:
    found = {x: novel(model, clips_near(x)) for x in (0.0, 2.0, -2.0)}
    assert (found[0.0] < 1).float().mean() > 0.7
    assert min(found[2.0].median(), found[-2.0].median()) > 2 * found[0.0].median()
    both = torch.cat([clips_near(0), clips_near(2)])
    novelty.measure(model, both)
    assert novel(model, clips_near(2)).median() < 0.5 * found[2.0].median()


def test_clips_of_a_single_sight_are_measured_too(model: RewardModel) -> None:
    novelty.measure(model, torch.zeros(1, 2, 1, 2))
    assert novel(model, clips_near(1)).isfinite().all()


def test_it_is_kept_with_the_weights_and_older_files_have_none(model: RewardModel) -> None:
    data, x = weights.save_reward_model(model), clips_near(1)
    assert torch.equal(novel(weights.load_reward_model(data), x), novel(model, x))
    tensors = safetensors.torch.load(data)
    del tensors["familiar"]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    old = weights.load_reward_model(safetensors.torch.save(tensors, header))
    assert torch.equal(old(x), model(x))
    assert not novel(old, x).any()


def test_the_stages_ask_about_what_is_novel() -> None:
    store, asked = Memory(), job(segments__choice="novelty")
    collected = collect(asked, store, silent, go_on, encode=None)
    about = {"attempt_id": 2, "round_number": 1, "seed": 1, "config": asked.config, "log_dir": None}
    labels = labels_of(collected, 1)
    learning = TrainRewardJob(**about, prefix="y/", labels=labels, reward_model=None, agent=None)  # type: ignore[arg-type]
    trained = train_reward(learning, store, silent, go_on)
    model = weights.load_reward_model(store.get(trained.reward_model.key))

    def of(choice: str) -> float:
        """How novel this choice's comparisons are on average, by their more novel clip."""
        changed = configuration.parse(asked.config).model_dump()
        changed["segments"] |= {"choice": choice, "collect_steps": 2048}  # room to choose in
        again = replace(
            asked, config=changed, round_number=2, prefix=f"{choice}/", reward_model=trained.reward_model
        )
        found = collect(again, store, silent, go_on, encode=None)
        seen = [clips.unpack_npz(store.get(clip.npz.key))[0][1:] for clip in found.clips]
        of_clips = novel(model, torch.from_numpy(np.array(seen))).mean(-1)
        return float(of_clips[torch.tensor([one.clips for one in found.comparisons])].amax(-1).mean())

    assert of("novelty") > 1.2 * max(of("uniform"), of("disagreement"))
