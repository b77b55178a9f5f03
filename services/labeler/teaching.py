"""What teachers judge by. It has a credential of its own: no labeler, trainer or page reads it."""

from fastapi import APIRouter

from services.labeler.context import PathId, RequireTeacher, Service
from services.labeler.problems import Problem
from services.labeler.schemas import ClipJudgement, TeacherView
from shared.models import Comparison, Judgement

router = APIRouter(prefix="/api/teacher", tags=["teachers"], dependencies=[RequireTeacher])


@router.get("/comparisons/{comparison_id}")
def read_judgements(comparison_id: PathId, service: Service) -> TeacherView:
    """Return what a teacher judges a comparison's clips by, one number a step."""
    with service.database.read() as session:
        comparison = session.get(Comparison, comparison_id)
        if comparison is None:
            raise Problem(404, "unknown", "there is no such comparison")
        found = [(clip_id, session.get(Judgement, clip_id)) for clip_id in comparison.clip_ids]
        return TeacherView(
            clips=[ClipJudgement(id=clip_id, judgement=row.per_step if row else []) for clip_id, row in found]
        )
