"""The writes that change a state: compare-and-set, each with its event row in the same transaction.

`rounds.py` decides what should happen; the functions here make it happen once, or raise `StaleState` when
somebody else was faster. They ask the tables in `states.py` and write nothing that does not stand there.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, Update, func, select, update
from sqlalchemy.orm import Session

from shared import states
from shared.database import RECORDED, now
from shared.models import Attempt, Event, Experiment, Round
from shared.states import AttemptState, ExperimentState, RoundState


class StaleState(RuntimeError):
    """The state changed in between, or does not allow what was asked; nothing was written."""


@dataclass(frozen=True)
class Hint:
    """Tells a worker on `queue` to try to claim the attempt. Losing it is harmless, and so is doubling it."""

    attempt_id: int
    queue: str


def changed_one(session: Session, statement: Update) -> bool:
    """Run a compare-and-set; False means that its condition no longer held and nothing was written."""
    result = session.execute(statement.execution_options(synchronize_session=False))
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def lock_round(session: Session, round_id: int) -> Round:
    """Read a round and its experiment, and keep others from changing them until the transaction ends."""
    query = select(Round).join(Experiment).where(Round.id == round_id)
    query = query.with_for_update(key_share=True, of=(Round, Experiment))
    round_ = session.scalars(query.execution_options(populate_existing=True)).one()
    session.refresh(round_.experiment)
    return round_


def live_attempts(session: Session, experiment_id: int) -> list[Attempt]:
    """Return the attempts of an experiment that are offered or running."""
    query = select(Attempt).join(Round).where(Round.experiment_id == experiment_id)
    query = query.where(Attempt.state.in_(states.LIVE_ATTEMPTS)).execution_options(populate_existing=True)
    return list(session.scalars(query))


def set_experiment_state(
    session: Session, experiment_id: int, target: ExperimentState, actor: str, reason: str | None
) -> None:
    """Pause, resume, finish or abandon an experiment; StaleState if its state does not allow that.

    The attempts of an experiment that ends are released at once: workers find out at their next heartbeat.
    """
    query = select(Experiment).where(Experiment.id == experiment_id).with_for_update(key_share=True)
    experiment = session.scalars(query.execution_options(populate_existing=True)).one()
    source, version = experiment.state, experiment.version
    if target not in states.EXPERIMENT_TABLE.get(source, ()):
        raise StaleState(f"experiment {experiment.name} is {source}: it cannot become {target}")
    ended = target not in states.EXPERIMENT_TABLE
    statement = update(Experiment).where(
        Experiment.id == experiment_id, Experiment.state == source, Experiment.version == version
    )
    ended_at = now(session) if ended else None
    values = {"state": target, "version": version + 1, "reason": reason, "ended_at": ended_at}
    if not changed_one(session, statement.values(**values)):
        raise StaleState(f"experiment {experiment.name} changed in between; look again")
    session.refresh(experiment)
    record(session, experiment_id, str(target), source, actor, target=target, detail={"reason": reason})
    for attempt in live_attempts(session, experiment_id) if ended else ():
        end_attempt(session, attempt, AttemptState.RELEASED, actor, f"the experiment is {target}")


def begin_round(session: Session, experiment_id: int, number: int, actor: str) -> list[Hint]:
    """Create round `number` and offer its first stage."""
    moment = now(session)
    round_ = Round(experiment_id=experiment_id, number=number, created_at=moment, changed_at=moment)
    round_.state = RoundState.COLLECTING
    session.add(round_)
    session.flush()
    record(session, experiment_id, "begun", None, actor, target=round_.state, round_id=round_.id)
    return [offer_attempt(session, round_, actor)]


def past_round(session: Session, experiment_id: int) -> Round:
    """Create round 0, which holds imported labels: done and frozen from the start, so nothing moves it."""
    moment = now(session)
    round_ = Round(experiment_id=experiment_id, number=0, created_at=moment, changed_at=moment)
    round_.state, round_.frozen_at = RoundState.DONE, moment
    session.add(round_)
    session.flush()
    return round_


def move_round(
    session: Session, round_: Round, event: str, actor: str, attempt_id: int | None = None, **values: Any
) -> None:
    """Take a round over one row of the table; `values` are further columns to set."""
    source, version = round_.state, round_.version
    target = states.target(event, source, round_.failed_stage)
    statement = update(Round).where(Round.id == round_.id, Round.state == source, Round.version == version)
    values = {"forgiven": 0, "changed_at": now(session), **values}
    if not changed_one(session, statement.values(state=target, version=version + 1, **values)):
        raise StaleState(f"round {round_.number} is no longer {source}: {event} does not apply")
    session.refresh(round_)
    record(
        session,
        round_.experiment_id,
        event,
        source,
        actor,
        target=target,
        round_id=round_.id,
        attempt_id=attempt_id,
    )


def offer_attempt(session: Session, round_: Round, actor: str, pause_s: float = 0.0) -> Hint:
    """Offer the round's stage to workers, from `pause_s` seconds on."""
    moment = now(session)
    query = select(func.coalesce(func.max(Attempt.number), 0))
    tried = session.scalars(query.where(Attempt.round_id == round_.id, Attempt.stage == round_.state)).one()
    attempt = Attempt(round_id=round_.id, stage=round_.state, number=tried + 1, state=AttemptState.OFFERED)
    attempt.not_before = moment + timedelta(seconds=pause_s)
    attempt.hints = 0
    session.add(attempt)
    session.flush()
    record_attempt(session, attempt, "offered", None, actor, {"stage": round_.state})
    return hint_at(attempt, moment) if pause_s == 0 else Hint(attempt.id, states.QUEUES[attempt.stage])


def hint_at(attempt: Attempt, moment: datetime) -> Hint:
    """Note that a hint is sent now, and return it."""
    attempt.hinted_at, attempt.hints = moment, attempt.hints + 1
    return Hint(attempt.id, states.QUEUES[attempt.stage])


def end_attempt(
    session: Session, attempt: Attempt, target: AttemptState, actor: str, error: str | None = None
) -> None:
    """Take an attempt to one of its final states; StaleState if it is not where it was thought to be."""
    if error is not None:
        error = error.replace("\0", "�")  # Postgres's text knows no NUL; a crashed program may print one
    source = attempt.state
    if target not in states.ATTEMPT_TABLE.get(source, ()):
        raise StaleState(f"attempt {attempt.id} is {source}: it cannot become {target}")
    statement = update(Attempt).where(Attempt.id == attempt.id, Attempt.state == source)
    if not changed_one(session, statement.values(state=target, ended_at=now(session), error=error)):
        raise StaleState(f"attempt {attempt.id} is no longer {source}")
    session.refresh(attempt)
    record_attempt(session, attempt, str(target), source, actor, {"error": error} if error else None)


def actor_of(attempt: Attempt) -> str:
    """Name the worker of an attempt, for event rows and errors."""
    worker = attempt.worker or {}
    return f"{states.QUEUES[attempt.stage]}@{worker.get('host', '?')}:{worker.get('pid', '?')}"


def record_attempt(
    session: Session,
    attempt: Attempt,
    event: str,
    source: AttemptState | None,
    actor: str,
    detail: dict[str, Any] | None,
) -> None:
    """Append an event row about an attempt."""
    round_ = session.get_one(Round, attempt.round_id)
    record(
        session,
        round_.experiment_id,
        event,
        source,
        actor,
        target=attempt.state,
        round_id=round_.id,
        attempt_id=attempt.id,
        detail=detail,
    )


def record(
    session: Session,
    experiment_id: int,
    event: str,
    source: str | None,
    actor: str,
    *,
    target: str | None = None,
    round_id: int | None = None,
    attempt_id: int | None = None,
    detail: dict[str, Any] | None = None,
) -> None:
    """Append an event row."""
    row = Event(experiment_id=experiment_id, event=event, source=source, target=target)
    row.actor = actor[:120]  # the column's width
    row.round_id, row.attempt_id, row.at, row.detail = round_id, attempt_id, now(session), detail
    session.add(row)
    session.info.setdefault(RECORDED, []).append(row)  # logged once it is committed
