"""Which checkpoint a stage goes on from, and which are of no more use. `rounds.keep_checkpoint` adds them."""

from sqlalchemy import and_, delete, or_, select
from sqlalchemy.orm import Session, aliased

from shared.database import Database
from shared.jobs import Artifact
from shared.models import Attempt, Checkpoint, Experiment, Round
from shared.states import EXPERIMENT_TABLE, RoundState
from shared.storage import Store


def newest(session: Session, round_id: int, stage: RoundState) -> Artifact | None:
    """Return the newest checkpoint of a stage of a round, whichever attempt stored it."""
    query = select(Checkpoint).join(Attempt).where(Attempt.round_id == round_id, Attempt.stage == stage)
    row = session.scalars(query.order_by(Checkpoint.id.desc()).limit(1)).one_or_none()
    return Artifact("checkpoint", row.key, row.sha256, row.size) if row else None


def superseded(session: Session) -> list[Checkpoint]:
    """Return the checkpoints that nobody will go on from: there is a newer one, or the stage is over."""
    later, other = aliased(Checkpoint), aliased(Attempt)
    newer = (
        select(later.id)
        .join(other, later.attempt_id == other.id)
        .where(later.id > Checkpoint.id, other.round_id == Attempt.round_id, other.stage == Attempt.stage)
    )
    failed_there = and_(Round.failed_stage.is_not(None), Round.failed_stage == Attempt.stage)
    stands_there = or_(Round.state == Attempt.stage, failed_there)
    goes_on = Experiment.state.in_(list(EXPERIMENT_TABLE))
    query = select(Checkpoint).join(Attempt).join(Round).join(Experiment)
    query = query.where(or_(newer.exists(), ~(stands_there & goes_on)))
    return list(session.scalars(query.order_by(Checkpoint.id)))


def clear(database: Database, store: Store) -> list[str]:
    """Delete what is superseded, the files first; return their keys. What cannot be deleted is left to later.

    A row outlives its file, never the other way round, so that no file is forgotten.
    """
    with database.read() as session:
        found = {row.id: row.key for row in superseded(session)}
    for key in found.values():
        store.delete(key)
    if found:
        with database.write() as session:
            session.execute(delete(Checkpoint).where(Checkpoint.id.in_(found)))
    return list(found.values())
