"""The reward trainer's stage: preferences in, reward model out. A function of its job, bit for bit."""

import json
from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from services import weights
from services.agent_trainer.clips import unpack_npz
from services.reward_trainer import reward_model
from services.torch_setup import device, set_threads
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
    """Train an ensemble on every preference given so far and store it.

    A fresh one, unless `reward_model.restart` says otherwise: where that costs seconds, they buy that old
    mistakes are forgotten and that the outcome depends on the label set alone.

    ValueError for labels that cannot be trained on, StageStopped if asked to stop.
    """
    set_threads()
    config = configuration.parse(job.config)
    if not job.labels:
        raise ValueError(
            "there is no preference to train on: every answer was that the clips cannot be compared; abandon "
            "this experiment and create another whose clips show more (segments.length, segments.noise)"
        )
    settings = config.reward_model.model_dump(exclude={"restart"})
    seed = seed_for(config.seed, job.round_number, "training_reward")
    args = reward_model.Args(seed=seed, **settings)
    cache: dict[str, np.ndarray] = {}

    def observations(clip: Artifact) -> np.ndarray:  # [T, *O]: what each step led to
        if clip.sha256 not in cache:
            cache[clip.sha256] = unpack_npz(store.get(clip.key, clip.sha256))[0][1:]
        return cache[clip.sha256]

    clips = [[observations(clip) for clip in label.clips] for label in job.labels]
    shapes = sorted({clip.shape for row in clips for clip in row} | {(len(row),) for row in clips})
    if len(shapes) != 2:  # one shape of clips, one number of clips in a comparison
        raise ValueError(f"the clips to compare differ in number, length or observation: {shapes}")
    data = reward_model.Preferences(
        torch.from_numpy(np.array(clips)),  # [B, K, T, *O]
        torch.tensor([label.ranks for label in job.labels]),
        torch.tensor([label.held_out for label in job.labels]),
    )
    if job.reward_model and not config.reward_model.restart:
        model = weights.load_reward_model(store.get(job.reward_model.key, job.reward_model.sha256))
        model.args = args
    else:
        model = reward_model.RewardModel(data.observations.shape[3:], args)
    model.to(device())
    with SummaryWriter(job.log_dir) if job.log_dir else nullcontext() as writer:

        def log(fraction: float, metrics: dict[str, float]) -> None:
            for name, value in metrics.items():
                if writer:
                    writer.add_scalar(name, value, round(fraction * args.epochs))

        def tell(fraction: float, metrics: dict[str, float]) -> None:
            on_progress(fraction, metrics)
            log(fraction, metrics)

        learned = reward_model.train(model, data, tell, should_stop)
        if should_stop():
            raise StageStopped
        log(1.0, learned)
    # What was trained on goes into the record, so that it can be held against what was frozen.
    metrics: Metrics = {"labels_sha256": labels_sha256(job.labels), **learned}
    key, data_out = job.prefix + "reward_model.safetensors", weights.save_reward_model(model)
    told = predictions(model, data, job)
    return TrainRewardResult(
        put_artifact(store, "reward_model", key, data_out),
        metrics,
        put_artifact(store, "predictions", job.prefix + "predictions.json", told),
    )


@torch.no_grad()
def predictions(
    model: reward_model.RewardModel, data: reward_model.Preferences, job: TrainRewardJob
) -> bytes:
    """Return, as JSON for people to look at, what the model says of each comparison of this round.

    `clips` are the sums of the clips' files, `best` is each clip's probability to be preferred to all others
    (the ensemble's mean, errors of labelers included), `rewards` the normalised reward of each of its steps.
    """
    rows: dict[tuple[str, ...], int] = {}  # several labelers may have answered the same comparison
    for row, label in enumerate(job.labels):
        if label.round_number == job.round_number:
            rows.setdefault(tuple(clip.sha256 for clip in label.clips), row)
    found = []
    for clips, row in rows.items():
        observations = data.observations[row]  # [K, T, *O]
        error = model.args.error_rate
        best = model(observations).sum(-1).cpu().softmax(-1).mean(0) * (1 - error) + error / len(clips)  # [K]
        rewards = model.reward(observations, observations, observations)  # [K, T]
        found.append(
            {
                "clips": clips,
                "held_out": bool(data.held_out[row]),
                "best": [round(value, 4) for value in best.tolist()],
                "rewards": [[round(value, 3) for value in steps] for steps in rewards.tolist()],
            }
        )
    return json.dumps({"comparisons": found}).encode()
