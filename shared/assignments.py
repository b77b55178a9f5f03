"""From the database to a job: what a trainer process is told, and no more than it may know.

Neither true returns nor a teacher's judgements are among it: no function here reads their tables.
"""

import hashlib
from datetime import UTC
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import checkpoints, labels
from shared.jobs import Artifact, CollectJob, Job, TrainAgentJob, TrainRewardJob, seed_for
from shared.models import Attempt, Clip, Experiment, Round, StoredArtifact
from shared.states import RoundState
from shared.transitions import StaleState


def job_for(session: Session, attempt_id: int, log_root: str | None) -> Job:
    """Return the job of an attempt. `log_root` is the worker's TensorBoard folder, None for no logs.

    StaleState if the label set is not what was frozen: its sum is checked before anything trains on it.
    """
    attempt = session.get_one(Attempt, attempt_id)
    round_ = attempt.round
    experiment = round_.experiment
    place = PurePosixPath(experiment.name) / f"round-{round_.number:04d}" / attempt.stage
    common: dict[str, Any] = {
        "attempt_id": attempt.id,
        "round_number": round_.number,
        "seed": seed_for(experiment.config["seed"], round_.number, attempt.stage),
        "prefix": f"experiments/{place}/attempt-{attempt.number:03d}-{attempt.id}/",
        "config": experiment.config,
        "log_dir": f"{log_root}/{place}" if log_root else None,
        "run": _run(experiment),
    }
    agent = _newest(session, round_, "agent", round_.number - 1)
    if attempt.stage == RoundState.COLLECTING:
        reward_model = _newest(session, round_, "reward_model", round_.number - 1)
        past = _past_clip(session, round_) if round_.number == 1 else None
        return CollectJob(**common, agent=agent, reward_model=reward_model, past_clip=past)
    checkpoint = checkpoints.newest(session, round_.id, attempt.stage)
    if attempt.stage == RoundState.TRAINING_REWARD:
        digest = labels.label_set_sha256(session, round_)
        if digest != round_.label_set_sha256:
            raise StaleState(
                f"round {round_.number}: the label set's sum is {digest}, but {round_.label_set_sha256} was "
                "frozen; somebody changed preferences by hand: put them back, then retry the round"
            )
        reward_model = _newest(session, round_, "reward_model", round_.number - 1)
        known = labels.label_set(session, round_)
        return TrainRewardJob(
            **common, labels=known, reward_model=reward_model, agent=agent, checkpoint=checkpoint
        )
    reward_model = _newest(session, round_, "reward_model", round_.number)
    if reward_model is None:
        raise StaleState(f"round {round_.number} has no reward model to train the agent on")
    return TrainAgentJob(**common, reward_model=reward_model, agent=agent, checkpoint=checkpoint)


def _past_clip(session: Session, round_: Round) -> Artifact | None:
    """Return a clip of the labels that the experiment began with, if it began with some."""
    query = select(Clip).join(Round).where(Round.experiment_id == round_.experiment_id, Round.number == 0)
    clip = session.scalar(query.order_by(Clip.number).limit(1))
    return labels.npz_artifact(clip) if clip else None


def _run(experiment: Experiment) -> str:
    """Return what trackers call an experiment: another installation may have one of the same name."""
    made = hashlib.sha256(experiment.created_at.astimezone(UTC).isoformat().encode()).hexdigest()
    return f"{experiment.name}-{made[:8]}"


def _newest(session: Session, round_: Round, kind: str, up_to: int) -> Artifact | None:
    """Return the official artifact of `kind` of the newest round up to number `up_to`."""
    query = (
        select(StoredArtifact)
        .join(Round)
        .where(
            Round.experiment_id == round_.experiment_id, Round.number <= up_to, StoredArtifact.kind == kind
        )
        .order_by(Round.number.desc())
        .limit(1)
    )
    row = session.scalars(query).one_or_none()
    return Artifact(kind=row.kind, key=row.key, sha256=row.sha256, size=row.size) if row else None
