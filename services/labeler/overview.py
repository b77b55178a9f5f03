"""Where each experiment stands: what the admin's overview shows and the API's list of experiments tells."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.models import Attempt, Comparison, Event, Experiment, Round
from shared.states import LIVE_ATTEMPTS

Row = dict[str, Any]


def rows(
    session: Session,
    limit: int | None = None,
    before: int | None = None,
    names: Collection[str] | None = None,
) -> list[Row]:
    """Return the newest experiments, of those with an id below `before`, of those of these `names`.

    However many there are, it takes three questions to the database.
    """
    newest = select(func.max(Round.number)).where(Round.experiment_id == Experiment.id)
    last_event = select(func.max(Event.id)).where(Event.experiment_id == Experiment.id)
    query = (
        select(Experiment, Round, last_event.correlate(Experiment).scalar_subquery())
        .join(Round, Round.experiment_id == Experiment.id)
        .where(Round.number == newest.correlate(Experiment).scalar_subquery())
        .order_by(Experiment.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(Experiment.id < before)
    if names is not None:
        query = query.where(Experiment.name.in_(names))
    found = session.execute(query).all()
    rounds = [round_.id for _, round_, _ in found]
    labels = select(
        Comparison.round_id, func.sum(Comparison.labels_given), func.sum(Comparison.labels_wanted)
    )
    labels = labels.where(Comparison.round_id.in_(rounds)).group_by(Comparison.round_id)
    counts = {round_id: (given, wanted) for round_id, given, wanted in session.execute(labels)}
    live = select(Attempt.round_id, Attempt.progress)
    live = live.where(Attempt.round_id.in_(rounds), Attempt.state.in_(LIVE_ATTEMPTS))
    progress = dict(session.execute(live).all())
    return [
        {
            "id": one.id,
            "name": one.name,
            "state": one.state,
            "reason": one.reason,
            "created_at": one.created_at,
            "ended_at": one.ended_at,
            "round": round_.number,
            "of": one.config["rounds"],
            "round_state": round_.state,
            "given": counts.get(round_.id, (0, 0))[0],
            "wanted": counts.get(round_.id, (0, 0))[1],
            "progress": progress.get(round_.id),
            "last_event": last,
        }
        for one, round_, last in found
    ]
