"""What may happen to experiments, rounds and attempts; with `transitions.py` the only writer of their state.

Every function runs inside the caller's transaction (`Database.write()`). What a worker must be told
afterwards comes back as hints, to be sent when the transaction has committed. A hint that gets lost costs
time, never work: the coordinator's `sweep` finds the attempt again.

Locks are always taken in the order round, attempt, so two transactions never wait for each other in a circle.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from shared import labels, results, reuse, states
from shared.config import ExperimentConfig
from shared.database import now
from shared.jobs import Artifact, Result, TrainAgentResult
from shared.models import Attempt, Checkpoint, Experiment, Measurement, Round
from shared.states import AttemptState, ExperimentState, RoundState
from shared.transitions import (
    Hint,
    StaleState,
    actor_of,
    begin_round,
    changed_one,
    end_attempt,
    hint_at,
    live_attempts,
    lock_round,
    move_round,
    offer_attempt,
    record,
    record_attempt,
    set_experiment_state,
)

RETRY_PAUSE_S = (0.0, 1.0, 5.0, 20.0, 60.0)  # before the second, third, … try of a stage
HINT_AGAIN_S = 5.0  # an attempt nobody claimed is hinted at again after 5, 10, 20, … seconds
HINT_AGAIN_MOST_S = 300.0
MEASUREMENTS = 200  # kept of an attempt's metrics on their way, at most


@dataclass(frozen=True)
class Beat:
    """The answer to a heartbeat."""

    lost: bool  # the attempt is no longer this worker's: stop, and write nothing
    stop: bool  # the experiment is paused: stop at the next checkpoint and release the attempt


@dataclass
class Swept:
    """What a sweep of the coordinator found and did."""

    hints: list[Hint] = field(default_factory=list)
    expired: list[int] = field(default_factory=list)  # attempts whose worker fell silent
    frozen: list[int] = field(default_factory=list)  # rounds whose label set was complete


# ------------------------------------------------------------------ what people ask for


def create_experiment(
    session: Session,
    config: ExperimentConfig,
    actor: str,
    origin: str | None = None,
    past: reuse.Past | None = None,
) -> tuple[Experiment, list[Hint]]:
    """Create an experiment with its first round; StaleState if the name is taken.

    `origin` says in the history where the configuration comes from; `past` holds labels that it begins with.
    """
    taken = f"there is an experiment named {config.name} already; give this one another name"
    if session.scalar(select(Experiment.id).where(Experiment.name == config.name)):
        raise StaleState(taken)
    experiment = Experiment(
        name=config.name,
        config=config.model_dump(mode="json"),
        state=ExperimentState.RUNNING,
        created_at=now(session),
    )
    session.add(experiment)
    try:
        session.flush()
    except IntegrityError:  # somebody took the name after we looked
        raise StaleState(taken) from None
    detail = {"origin": origin} if origin else None
    record(session, experiment.id, "created", None, actor, target=ExperimentState.RUNNING, detail=detail)
    if past is not None:
        reuse.store_past(session, experiment, past, actor)
    return experiment, begin_round(session, experiment.id, 1, actor)


def pause(session: Session, experiment_id: int, actor: str) -> None:
    """Stop handing out comparisons now, and trainers at their next checkpoint."""
    set_experiment_state(session, experiment_id, ExperimentState.PAUSED, actor, None)


def resume(session: Session, experiment_id: int, actor: str) -> list[Hint]:
    """Go on where `pause` stopped."""
    set_experiment_state(session, experiment_id, ExperimentState.RUNNING, actor, None)
    moment = now(session)
    waiting = [a for a in live_attempts(session, experiment_id) if a.state == AttemptState.OFFERED]
    return [hint_at(attempt, moment) for attempt in waiting]


def finish(session: Session, experiment_id: int, actor: str, reason: str) -> None:
    """End an experiment as it stands: its results count."""
    set_experiment_state(session, experiment_id, ExperimentState.FINISHED, actor, reason)


def abandon(session: Session, experiment_id: int, actor: str, reason: str) -> None:
    """End an experiment for good: what it made stays, nothing more is done."""
    set_experiment_state(session, experiment_id, ExperimentState.ABANDONED, actor, reason)


def retry(session: Session, round_id: int, actor: str) -> list[Hint]:
    """Take a failed round back to the stage that failed; StaleState if there is nothing to retry."""
    round_ = lock_round(session, round_id)
    experiment = round_.experiment
    if experiment.state not in states.EXPERIMENT_TABLE:
        raise StaleState(f"experiment {experiment.name} is {experiment.state}: nothing of it can be retried")
    if round_.state != RoundState.FAILED:
        raise StaleState(f"round {round_.number} is {round_.state}: only a failed round can be retried")
    query = select(func.max(Attempt.number))
    tried = session.scalar(query.where(Attempt.round_id == round_id, Attempt.stage == round_.failed_stage))
    move_round(session, round_, "retried", actor, error=None, failed_stage=None, forgiven=tried or 0)
    return [offer_attempt(session, round_, actor)]


# --------------------------------------------------------------------- what workers do


def claim(session: Session, attempt_id: int, worker: dict[str, Any], lease_s: float) -> bool:
    """Take the lease of an offered attempt. False if somebody has it, it is not due, or it is paused.

    Of any number of workers that try, on duplicated or stale hints, exactly one gets True.
    """
    attempt = session.get(Attempt, attempt_id)
    if attempt is None:
        return False
    round_ = lock_round(session, attempt.round_id)
    moment = now(session)
    wanted = round_.state == attempt.stage and round_.experiment.state == ExperimentState.RUNNING
    if not wanted or attempt.not_before > moment:
        return False
    statement = update(Attempt).where(Attempt.id == attempt_id, Attempt.state == AttemptState.OFFERED)
    lease_until = moment + timedelta(seconds=lease_s)
    claimed = {
        "state": AttemptState.RUNNING,
        "worker": worker,
        "claimed_at": moment,
        "lease_until": lease_until,
    }
    if not changed_one(session, statement.values(**claimed)):
        return False
    session.refresh(attempt)
    record_attempt(session, attempt, "claimed", AttemptState.OFFERED, actor_of(attempt), worker)
    return True


def heartbeat(
    session: Session,
    attempt_id: int,
    lease_s: float,
    progress: float,
    metrics: dict[str, Any] | None,
    worker: dict[str, Any] | None = None,
) -> Beat:
    """Renew the lease and report progress (0 to 1); the answer says whether to go on."""
    moment = now(session)
    values: dict[str, Any] = {"lease_until": moment + timedelta(seconds=lease_s), "progress": progress}
    if metrics is not None:
        values["metrics"] = metrics
        values["first_step_at"] = func.coalesce(Attempt.first_step_at, moment)
    if worker is not None:
        values["worker"] = worker
    statement = update(Attempt).where(Attempt.id == attempt_id, Attempt.state == AttemptState.RUNNING)
    if not changed_one(session, statement.values(**values)):
        return Beat(lost=True, stop=True)
    if metrics is not None:
        _measure(session, attempt_id, progress, metrics)
    query = select(Experiment.state).join(Round).join(Attempt).where(Attempt.id == attempt_id)
    return Beat(lost=False, stop=session.scalar(query) != ExperimentState.RUNNING)


def _measure(session: Session, attempt_id: int, progress: float, metrics: dict[str, Any]) -> None:
    """Keep the metrics for the curves, unless the last ones kept are from nearly the same place."""
    last = session.scalar(select(func.max(Measurement.progress)).where(Measurement.attempt_id == attempt_id))
    if last is None or int(progress * MEASUREMENTS) > int(last * MEASUREMENTS):
        session.add(Measurement(attempt_id=attempt_id, progress=progress, metrics=metrics))


def keep_checkpoint(session: Session, attempt_id: int, artifact: Artifact) -> None:
    """Let the stage's next attempt, if one is needed, go on from `artifact`; StaleState as in `complete`."""
    attempt, _ = _running(session, attempt_id)
    row = Checkpoint(attempt_id=attempt.id, key=artifact.key, sha256=artifact.sha256, size=artifact.size)
    row.stored_at = now(session)
    session.add(row)


def complete(session: Session, attempt_id: int, result: Result) -> list[Hint]:
    """Make an attempt's result the stage's result and move the round on.

    StaleState if the attempt lost its lease; BadResult, for `fail` to report, if its stage can't end so.
    """
    attempt, round_ = _running(session, attempt_id)
    results.check(attempt.stage, result)
    actor = actor_of(attempt)
    config = ExperimentConfig.model_validate(round_.experiment.config)
    end_attempt(session, attempt, AttemptState.SUCCEEDED, actor)
    attempt.metrics, attempt.progress = result.metrics, 1.0
    results.store(session, round_, attempt, config, result)
    move_round(session, round_, states.COMPLETES[attempt.stage], actor, attempt.id)
    if isinstance(result, TrainAgentResult):
        return _after_round(session, round_, config, results.mean_return(result))
    return [offer_attempt(session, round_, actor)] if round_.state in states.WORKER_STAGES else []


def fail(session: Session, attempt_id: int, error: str, max_attempts: int) -> list[Hint]:
    """Record an attempt's error; offer the stage again after a pause, or give it up after `max_attempts`."""
    attempt, round_ = _running(session, attempt_id)
    end_attempt(session, attempt, AttemptState.FAILED, actor_of(attempt), error)
    return _try_again(session, round_, attempt, max_attempts)


def release(session: Session, attempt_id: int, reason: str) -> list[Hint]:
    """Give a running attempt back without blame; the stage is offered again at once."""
    attempt, round_ = _running(session, attempt_id)
    end_attempt(session, attempt, AttemptState.RELEASED, actor_of(attempt), reason)
    return [offer_attempt(session, round_, actor_of(attempt))]


# --------------------------------------------------------------- what the coordinator does


def close_labeling(session: Session, round_id: int, actor: str) -> list[Hint]:
    """Freeze the label set of a round whose labels are all in and whose grace has passed, and move it on."""
    round_ = lock_round(session, round_id)
    if round_.state != RoundState.LABELING or round_.experiment.state != ExperimentState.RUNNING:
        return []
    config = ExperimentConfig.model_validate(round_.experiment.config)
    moment = now(session)
    ready_at = labels.complete_at(session, round_id, config.labels.undo_grace_s)
    if ready_at is None or ready_at > moment:
        return []
    digest = labels.label_set_sha256(session, round_)
    move_round(session, round_, "labeled", actor, frozen_at=moment, label_set_sha256=digest)
    return [offer_attempt(session, round_, actor)]


def sweep(session: Session, round_id: int, max_attempts: int, actor: str = "coordinator") -> Swept:
    """Repair one round: expire silent attempts, hint again at unclaimed ones, close complete labeling."""
    swept = Swept()
    round_ = lock_round(session, round_id)
    moment = now(session)
    query = select(Attempt).where(Attempt.round_id == round_id, Attempt.state.in_(states.LIVE_ATTEMPTS))
    # Locked, so that a heartbeat which is told to go on can't be overtaken by the expiry of what it renewed.
    query = query.with_for_update(of=Attempt).execution_options(populate_existing=True)
    attempt = session.scalar(query)
    if attempt is not None and attempt.state == AttemptState.RUNNING:
        if attempt.lease_until is not None and attempt.lease_until < moment:
            silent = f"its worker ({actor_of(attempt)}) gave no sign of life until its lease ran out"
            end_attempt(session, attempt, AttemptState.EXPIRED, actor, silent)
            swept.expired.append(attempt.id)
            swept.hints += _try_again(session, round_, attempt, max_attempts)
    elif round_.experiment.state != ExperimentState.RUNNING:
        pass  # paused: what is offered stays offered, and labels wait
    elif attempt is not None:
        again_s = min(HINT_AGAIN_S * 2 ** max(attempt.hints - 1, 0), HINT_AGAIN_MOST_S)
        due = attempt.hinted_at is None or attempt.hinted_at + timedelta(seconds=again_s) < moment
        if due and attempt.not_before <= moment:
            swept.hints.append(hint_at(attempt, moment))
    elif round_.state == RoundState.LABELING:
        swept.hints += close_labeling(session, round_id, actor)
        swept.frozen += [round_id] if swept.hints else []
    return swept


def rounds_to_sweep(session: Session) -> list[int]:
    """Return the ids of the rounds that a sweep may have to do something about."""
    live = (ExperimentState.RUNNING, ExperimentState.PAUSED)
    query = select(Round.id).join(Experiment).where(Experiment.state.in_(live))
    return list(session.scalars(query.where(Round.state.in_(states.STAGES)).order_by(Round.id)))


def current_round(session: Session, experiment_id: int) -> Round:
    """Return the newest round of an experiment."""
    query = select(Round).where(Round.experiment_id == experiment_id)
    return session.scalars(query.order_by(Round.number.desc()).limit(1)).one()


# ---------------------------------------------------------------------------- the parts


def _running(session: Session, attempt_id: int) -> tuple[Attempt, Round]:
    """Return a running attempt and its round, both locked; StaleState if it is not running any more."""
    found = session.get(Attempt, attempt_id)
    if found is None:
        raise StaleState(f"there is no attempt {attempt_id}")
    round_ = lock_round(session, found.round_id)
    query = select(Attempt).where(Attempt.id == attempt_id).with_for_update(of=Attempt)
    attempt = session.scalars(query.execution_options(populate_existing=True)).one()
    if attempt.state != AttemptState.RUNNING or round_.state != attempt.stage:
        raise StaleState(f"attempt {attempt_id} is {attempt.state}: its result is not taken")
    return attempt, round_


def _after_round(session: Session, round_: Round, config: ExperimentConfig, mean: float) -> list[Hint]:
    """Begin the next round, or finish the experiment: solved, or its rounds are spent.

    `mean` is the round's mean true return, told rather than read: workers may not read that table.
    """
    goal = config.evaluation.solved_return
    solved = goal is not None and mean >= goal
    if round_.number < config.rounds and not (solved and config.evaluation.stop_when_solved):
        return begin_round(session, round_.experiment_id, round_.number + 1, "coordinator")
    reason = f"solved: mean true return {mean:.1f}" if solved else f"its {config.rounds} rounds are done"
    finish(session, round_.experiment_id, "coordinator", reason)
    return []


def _try_again(session: Session, round_: Round, attempt: Attempt, max_attempts: int) -> list[Hint]:
    """Offer the stage again, later with each failure, or give the round up with the last error."""
    query = select(func.count()).where(
        Attempt.round_id == round_.id,
        Attempt.stage == attempt.stage,
        Attempt.number > round_.forgiven,
        Attempt.state.in_((AttemptState.FAILED, AttemptState.EXPIRED)),
    )
    failures = session.scalars(query).one()
    if failures >= max_attempts:
        outcome = {"error": attempt.error, "failed_stage": attempt.stage}
        move_round(session, round_, "gave_up", "coordinator", attempt.id, **outcome)
        return []
    pause_s = RETRY_PAUSE_S[min(failures - 1, len(RETRY_PAUSE_S) - 1)]
    hint = offer_attempt(session, round_, "coordinator", pause_s)
    return [hint] if pause_s == 0 else []  # a later one is hinted at by a sweep, when it is due
