"""The reward trainer's stage: preferences in, reward model out. A function of its job, bit for bit."""

from collections.abc import Callable

import numpy as np
import torch

from services import weights
from services.agent_trainer.clips import unpack_npz
from services.reward_trainer import reward_model
from shared import config as configuration
from shared.jobs import (
    Artifact,
    Metrics,
    StageStopped,
    Store,
    TrainRewardJob,
    TrainRewardResult,
    labels_sha256,
    put_artifact,
    seed_for,
)

Progress = Callable[[float, dict[str, float]], None]


def train_reward(
    job: TrainRewardJob, store: Store, on_progress: Progress, should_stop: Callable[[], bool]
) -> TrainRewardResult:
    """Train a fresh ensemble on every preference given so far and store it.

    Fresh, not the last round's: some seconds buy that old mistakes are forgotten and that the outcome depends
    on the label set alone. ValueError for labels that cannot be trained on, StageStopped if asked to stop.
    """
    torch.set_num_threads(1)
    config = configuration.parse(job.config)
    if not job.labels:
        raise ValueError("there is no preference to train on: every comparison was skipped or incomparable")
    settings = config.reward_model.model_dump()
    seed = seed_for(config.seed, job.round_number, "training_reward")
    args = reward_model.Args(seed=seed, **settings)
    cache: dict[str, np.ndarray] = {}

    def observations(clip: Artifact) -> np.ndarray:  # [T, D]: what each step led to
        if clip.sha256 not in cache:
            cache[clip.sha256] = unpack_npz(store.get(clip.key, clip.sha256))[0][1:]
        return cache[clip.sha256]

    clips = [[observations(clip) for clip in label.clips] for label in job.labels]
    shapes = sorted({clip.shape for row in clips for clip in row} | {(len(row),) for row in clips})
    if len(shapes) != 2:  # one shape of clips, one number of clips in a comparison
        raise ValueError(f"the clips to compare differ in number, length or observation: {shapes}")
    data = reward_model.Preferences(
        torch.from_numpy(np.array(clips, np.float32)),
        torch.tensor([label.ranks for label in job.labels]),
        torch.tensor([label.held_out for label in job.labels]),
    )
    model = reward_model.RewardModel(data.observations.shape[-1], args)
    # What was trained on goes into the record, so that it can be held against what was frozen.
    metrics: Metrics = {"labels_sha256": labels_sha256(job.labels)}
    metrics |= reward_model.train(model, data, on_progress, should_stop)
    if should_stop():
        raise StageStopped
    key, data_out = job.prefix + "reward_model.safetensors", weights.save_reward_model(model)
    return TrainRewardResult(put_artifact(store, "reward_model", key, data_out), metrics)
