"""Everything an operator may know of an experiment, as plain JSON values."""

from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from services.labeler import timeline
from services.labeler.status import video_url
from shared import labels
from shared.models import (
    Attempt,
    Comparison,
    Evaluation,
    Event,
    Experiment,
    Labeler,
    Preference,
    Round,
    StoredArtifact,
)
from shared.states import RoundState

# What happened in a round and belongs to the experiment's own history.
TOLD = ("imported", "retried", "gave_up")
HISTORY = 50  # of it in a report; all of it comes in pages


def report(
    session: Session, experiment: Experiment, before: int | None = None, limit: int | None = None
) -> dict[str, Any]:
    """Return the configuration, and of each round its state, timings, attempts, metrics and true return.

    Of all rounds, or of the last `limit` ones with a number below `before`, in order.
    """
    query = select(Round).where(Round.experiment_id == experiment.id).order_by(Round.number.desc())
    if before is not None:
        query = query.where(Round.number < before)
    rounds = list(session.scalars(query.limit(limit)))[::-1]
    return {
        "name": experiment.name,
        "state": experiment.state,
        "reason": experiment.reason,
        "created_at": experiment.created_at,
        "ended_at": experiment.ended_at,
        "config": experiment.config,
        "rounds": [_round(session, experiment.name, one) for one in rounds],
        "labelers": _labelers(session, experiment.id),
        "history": history(session, experiment, HISTORY)[::-1],
    }


def events(session: Session, experiment: Experiment, after: int, limit: int) -> list[dict[str, Any]]:
    """Return the first `limit` changes of state after event `after`, oldest first."""
    return _events(session, _events_of(experiment).where(Event.id > after).order_by(Event.id).limit(limit))


def history(
    session: Session, experiment: Experiment, limit: int, before: int | None = None
) -> list[dict[str, Any]]:
    """Return the newest of what was done to the experiment itself, its retries too, the newest first.

    Of all, or of the events with an id below `before`.
    """
    query = _events_of(experiment).where(Event.round_id.is_(None) | Event.event.in_(TOLD))
    if before is not None:
        query = query.where(Event.id < before)
    return _events(session, query.order_by(Event.id.desc()).limit(limit))


def _events_of(experiment: Experiment) -> Select[Event, int]:
    query = select(Event, Round.number).outerjoin(Round, Event.round_id == Round.id)
    return query.where(Event.experiment_id == experiment.id)


def _events(session: Session, query: Select[Event, int]) -> list[dict[str, Any]]:
    columns = ("id", "event", "source", "target", "actor", "at", "detail", "attempt_id")
    return [
        {"round": number, **{name: getattr(row, name) for name in columns}}
        for row, number in session.execute(query)
    ]


def _round(session: Session, name: str, round_: Round) -> dict[str, Any]:
    attempts = list(
        session.scalars(select(Attempt).where(Attempt.round_id == round_.id).order_by(Attempt.id))
    )
    artifacts = session.scalars(select(StoredArtifact).where(StoredArtifact.round_id == round_.id))
    stored = {one.kind: {"key": one.key, "sha256": one.sha256, "size": one.size} for one in artifacts}
    video = stored.get("video")
    evaluation = session.get(Evaluation, round_.id)
    given, wanted = labels.progress(session, round_.id)
    spans = timeline.spans(session, round_, attempts)
    return {
        "number": round_.number,
        "state": round_.state,
        "failed_stage": round_.failed_stage,
        "error": round_.error,
        "created_at": round_.created_at,
        "changed_at": round_.changed_at,
        "frozen_at": round_.frozen_at,
        "label_set_sha256": round_.label_set_sha256,
        "labels": {"given": given, "wanted": wanted, "withdrawn": _withdrawn(session, round_.id)},
        "seconds": timeline.seconds_by_stage(spans),
        "timeline": spans,
        "metrics": {one.stage: one.metrics for one in attempts if one.metrics and one.state == "succeeded"},
        "evaluation": {"mean": evaluation.mean, "true_returns": evaluation.true_returns}
        if evaluation
        else None,
        "artifacts": stored,
        "video": video_url(name, round_.number, str(video["sha256"]), "/api/admin") if video else None,
        "attempts": [_attempt(one) for one in attempts],
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    columns = (
        "id", "stage", "number", "state", "progress", "hints", "not_before", "lease_until", "claimed_at",
        "first_step_at", "ended_at", "worker", "metrics", "error",
    )  # fmt: skip
    return {name: getattr(attempt, name) for name in columns}


def _withdrawn(session: Session, round_id: int) -> int:
    query = select(func.count()).select_from(Preference).join(Comparison)
    withdrawn = query.where(Comparison.round_id == round_id, Preference.withdrawn_at.is_not(None))
    return session.scalars(withdrawn).one()


def _labelers(session: Session, experiment_id: int) -> list[dict[str, Any]]:
    """Return who gave how many of the standing answers."""
    query = (
        select(Labeler.name, Labeler.kind, func.count())
        .join(Preference, Preference.labeler_id == Labeler.id)
        .join(Comparison)
        .join(Round)
        .where(Round.experiment_id == experiment_id, Preference.withdrawn_at.is_(None))
        .group_by(Labeler.name, Labeler.kind)
        .order_by(func.count().desc(), Labeler.name)
    )
    return [{"name": name, "kind": kind, "labels": count} for name, kind, count in session.execute(query)]


def failed_round(session: Session, experiment: Experiment) -> Round | None:
    """Return the round that waits for a retry, if one does."""
    query = select(Round).where(Round.experiment_id == experiment.id, Round.state == RoundState.FAILED)
    return session.scalar(query.order_by(Round.number.desc()).limit(1))
