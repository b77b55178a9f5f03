"""What teachers judge by. It has a credential of its own: no labeler, trainer or page reads it."""

from fastapi import APIRouter
from sqlalchemy import select

from services.labeler.context import ExperimentName, PathId, RequireTeacher, Service, get_experiment
from services.labeler.problems import Problem
from services.labeler.schemas import ClipJudgement, RoundOf, TeacherView
from shared.models import Clip, Comparison, Judgement, Round

router = APIRouter(prefix="/api/teacher", tags=["teachers"], dependencies=[RequireTeacher])


@router.get("/experiments/{name}/rounds/{number}")
def read_round(name: ExperimentName, number: PathId, service: Service) -> TeacherView:
    """Return what a teacher judges a round's clips by, in the clips' own order, the same in every run."""
    with service.database.read() as session:
        experiment = get_experiment(session, name)
        query = select(Clip.id, Judgement.per_step).join(Round).join(Judgement)
        query = query.where(Round.experiment_id == experiment.id, Round.number == number)
        rows = session.execute(query.order_by(Clip.number)).all()
    if not rows:
        raise Problem(404, "unknown", f"{name} has no clips of a round {number}")
    return TeacherView(clips=[ClipJudgement(id=clip_id, judgement=per_step) for clip_id, per_step in rows])


@router.get("/comparisons/{comparison_id}")
def read_round_of(comparison_id: PathId, service: Service) -> RoundOf:
    """Say which round a comparison belongs to: no labeler is told, but a teacher has to ask for the round."""
    with service.database.read() as session:
        query = select(Round.number).join(Comparison, Comparison.round_id == Round.id)
        number = session.scalar(query.where(Comparison.id == comparison_id))
    if number is None:
        raise Problem(404, "unknown", "there is no such comparison")
    return RoundOf(round=number)
