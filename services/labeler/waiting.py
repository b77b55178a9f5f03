"""How long labelers wait for the next batch: from this attempt's pace and how long earlier rounds took."""

import statistics
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labeler.schemas import StageWait, Wait, Work
from shared.config import ExperimentConfig
from shared.models import Attempt, Round
from shared.states import LIVE_ATTEMPTS, WORKER_STAGES, AttemptState, RoundState

KNOWN_PACE = 0.05  # before this much of a stage is done its pace says nothing
LAST_ROUNDS = 3  # whose durations count: machines and label sets change
BETWEEN_BATCHES = (RoundState.TRAINING_REWARD, RoundState.TRAINING_AGENT, RoundState.COLLECTING)


def work_of(session: Session, round_id: int, lease_s: float, moment: datetime) -> tuple[Work, Attempt] | None:
    """Return the stage that is under way and its attempt; None if no worker is wanted."""
    query = select(Attempt).where(Attempt.round_id == round_id, Attempt.state.in_(LIVE_ATTEMPTS))
    attempt = session.scalar(query)
    if attempt is None:
        return None
    eta_s = None
    if attempt.first_step_at and attempt.lease_until and attempt.progress >= KNOWN_PACE:
        told_at = attempt.lease_until - timedelta(seconds=lease_s)  # when its worker last beat
        took_s = (told_at - attempt.first_step_at).total_seconds()
        since_s = (moment - told_at).total_seconds()
        eta_s = max(took_s * (1 / attempt.progress - 1) - since_s, 0.0)
    work = Work(stage=attempt.stage, state=attempt.state, progress=attempt.progress, eta_s=eta_s)
    return work, attempt


def wait_for(
    session: Session,
    round_: Round,
    config: ExperimentConfig,
    under_way: tuple[Work, Attempt] | None,
    moment: datetime,
) -> Wait | None:
    """Return what is left to do before the next batch; None while no worker has to do anything.

    The new round's collecting belongs to the old round's wait. After the last round nothing is collected.
    """
    if round_.state not in WORKER_STAGES:
        return None
    is_last = round_.number >= config.rounds and round_.state != RoundState.COLLECTING
    stages = list(BETWEEN_BATCHES[BETWEEN_BATCHES.index(round_.state) :])
    if is_last:
        stages.remove(RoundState.COLLECTING)
    paces = _paces(session, round_.experiment_id, config)
    found = []
    for stage in stages:
        number = round_.number + (stage == RoundState.COLLECTING != round_.state)
        usual_s = paces[stage] * _amount(config, stage, number) if stage in paces else None
        if stage == round_.state and under_way is not None:
            usual_s = _left_of(*under_way, usual_s, moment)
        found.append(StageWait(stage=stage, left_s=usual_s))
    known = [one.left_s for one in found if one.left_s is not None]
    return Wait(stages=found, left_s=sum(known) if len(known) == len(found) else None, is_last=is_last)


def _left_of(work: Work, attempt: Attempt, usual_s: float | None, moment: datetime) -> float | None:
    """Return how long the stage under way may still take; None if that can't be said, or it is overdue."""
    if work.eta_s is not None:
        return work.eta_s
    if usual_s is None or attempt.claimed_at is None:
        return usual_s
    left_s = usual_s - (moment - attempt.claimed_at).total_seconds()
    return left_s if left_s > 0 else None


def _paces(session: Session, experiment_id: int, config: ExperimentConfig) -> Mapping[RoundState, float]:
    """Return how many seconds a unit of each stage's work took, by the median of the last rounds."""
    query = select(Attempt.stage, Round.number, Attempt.claimed_at, Attempt.ended_at).join(Round)
    query = query.where(Round.experiment_id == experiment_id, Attempt.state == AttemptState.SUCCEEDED)
    query = query.order_by(Attempt.id.desc()).limit(LAST_ROUNDS * len(WORKER_STAGES))
    took: dict[RoundState, list[float]] = defaultdict(list)
    for stage, number, claimed_at, ended_at in session.execute(query):
        if claimed_at and ended_at:
            took[stage].append((ended_at - claimed_at).total_seconds() / _amount(config, stage, number))
    return {stage: statistics.median(times) for stage, times in took.items()}


def _amount(config: ExperimentConfig, stage: RoundState, number: int) -> float:
    """Return how much work a stage of round `number` is, in units that make rounds comparable."""
    if stage == RoundState.COLLECTING:
        return config.comparisons(number)
    if stage == RoundState.TRAINING_REWARD:  # epochs over all labels so far
        return sum(config.comparisons(one) for one in range(1, number + 1))
    return config.agent_steps(number)
