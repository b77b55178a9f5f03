"""The reward trainer's stage: preferences in, reward model out. A function of its job, bit for bit."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from services import weights
from services.agent_trainer.clips import unpack_npz
from services.checkpoints import Checkpoints, Tell
from services.reward_trainer import novelty, reward_model
from services.torch_setup import device, set_up
from shared import config as configuration
from shared import memory
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
from shared.settings import load_settings

Progress = Callable[[float, dict[str, float]], None]


def train_reward(
    job: TrainRewardJob, store: Store, on_progress: Progress, should_stop: Callable[[], bool],
    keep_checkpoint: Tell | None = None,
) -> TrainRewardResult:  # fmt: skip
    """Train an ensemble on every preference given so far and store it.

    A fresh one, unless `reward_model.restart` says otherwise: where that costs seconds, they buy that old
    mistakes are forgotten and that the outcome depends on the label set alone.

    ValueError for labels that cannot be trained on, StageStopped if asked to stop. `keep_checkpoint` is told
    of checkpoints, without which none is stored.
    """
    set_up()
    memory.begin()
    config = configuration.parse(job.config)
    if not job.labels:
        raise ValueError(
            "there is no preference to train on: every answer was that the clips cannot be compared; abandon "
            "this experiment and create another whose clips show more (segments.length, segments.noise)"
        )
    settings = config.reward_model.model_dump(exclude={"restart", "final_epochs"})
    if job.round_number == config.rounds and config.reward_model.final_epochs:
        settings["epochs"] = config.reward_model.final_epochs
    seed = seed_for(config.seed, job.round_number, "training_reward")
    args = reward_model.Args(seed=seed, **settings)
    data = reward_model.Preferences(
        observations(job, store, should_stop),
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

        epochs = from_time_to_time(Checkpoints(job, store, keep_checkpoint), load_settings().checkpoint_s)
        learned = reward_model.train(model, data, tell, should_stop, epochs)
        if should_stop():
            raise StageStopped
        if config.segments.choice == "novelty":
            novelty.measure(model, data.observations)
        learned[memory.METRIC] = memory.peak_mib()
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


def from_time_to_time(checkpoints: Checkpoints, every_s: float) -> Callable[..., Iterator[int]]:
    """Return what stores checkpoints, `every_s` seconds or more apart, and begins where one was made."""

    def resumable(
        epochs: range, model: reward_model.RewardModel, optimizer: torch.optim.Optimizer,
        draw: torch.Generator,
    ) -> Iterator[int]:  # fmt: skip
        begin, stored_at = checkpoints.restore(model, optimizer, draw), time.monotonic()
        for epoch in epochs[begin:]:
            if epoch > begin and time.monotonic() - stored_at >= every_s:
                checkpoints.save(epoch, model, optimizer, draw)
                stored_at = time.monotonic()
            yield epoch

    return resumable


def observations(job: TrainRewardJob, store: Store, should_stop: Callable[[], bool]) -> torch.Tensor:
    """Return what each step of the label set's clips led to [B, K, T, *O].

    Of stacked frames each lies in memory once: what is returned is a view of them. ValueError for clips that
    cannot be compared with each other.
    """

    def load(clip: Artifact) -> np.ndarray:  # [T, *O]
        return unpack_npz(store.get(clip.key, clip.sha256))[0][1:]

    count, like = len(job.labels[0].clips), load(job.labels[0].clips[0])
    stacked = like.ndim == 4  # [T, C, H, W]
    length = len(like) + (like.shape[1] - 1 if stacked else 0)
    shape = (len(job.labels), count, length, *like.shape[2 if stacked else 1 :])
    frames = torch.from_numpy(np.empty(shape, like.dtype))
    places: dict[str, tuple[int, int]] = {}  # where a clip lies already: several may have compared it
    for row, label in enumerate(job.labels):
        if should_stop():
            raise StageStopped
        for column, clip in enumerate(label.clips):
            if clip.sha256 in places:
                frames[row, column] = frames[places[clip.sha256]]
                continue
            after = load(clip)
            if after.shape != like.shape or len(label.clips) != count:
                shapes = [(count, *like.shape), (len(label.clips), *after.shape)]
                raise ValueError(f"the clips to compare differ in number, length or observation: {shapes}")
            once = np.concatenate([after[0], after[1:, -1]]) if stacked else after
            frames[row, column] = torch.from_numpy(once.copy())
            places[clip.sha256] = (row, column)
    return frames.unfold(2, like.shape[1], 1).movedim(-1, 3) if stacked else frames


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
