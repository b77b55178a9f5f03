"""Practice pairs for newcomers, with what others answered. Nothing here is a label."""

from uuid import UUID

from fastapi import APIRouter
from sqlalchemy.orm import Session

from services.labeler.context import Context, CurrentLabeler, ExperimentName, Service, get_experiment
from services.labeler.labeling import clip_view
from services.labeler.problems import Problem
from services.labeler.schemas import Feedback, PracticePair, PracticeView, PreferenceBody
from shared import asides
from shared.labels import Claimed
from shared.models import Clip

router = APIRouter(prefix="/api", tags=["practice"])


@router.post("/experiments/{name}/practice")
def begin(name: ExperimentName, labeler: CurrentLabeler, service: Service) -> PracticeView:
    """Return a newcomer's practice pairs; none after their first answer, or with nothing to compare with."""
    with service.database.write() as session:
        terms = asides.terms(session, experiment=name)
        if terms is None:
            raise Problem(404, "unknown", f"there is no experiment named {name[:80]}")
        found = asides.practice(session, terms, get_experiment(session, name).id, labeler)
        pairs = [_pair(service, session, one) for one in found.comparisons]
        return PracticeView(done=found.done, of=found.of, comparisons=pairs)


@router.put("/practice/{answer_id}")
def answer(answer_id: UUID, body: PreferenceBody, labeler: CurrentLabeler, service: Service) -> Feedback:
    """Take a practice answer and say what others answered. The client makes the id, as for a preference."""
    with service.database.write() as session:
        told = asides.answer_practice(
            session, str(answer_id), body.comparison, labeler, body.ranks, body.seconds
        )
        return Feedback(others=told.others, most=told.most, of=told.of, agreed=told.agreed)


@router.post("/experiments/{name}/practice/skip", status_code=204)
def skip(name: ExperimentName, labeler: CurrentLabeler, service: Service) -> None:
    """Leave out what is left of the practice."""
    with service.database.write() as session:
        asides.skip_practice(session, get_experiment(session, name).id, labeler)


def _pair(service: Context, session: Session, claimed: Claimed) -> PracticePair:
    clips = [session.get_one(Clip, clip_id) for clip_id in claimed.clip_ids]
    views = [clip_view(one.id, one.mp4_sha256, one.steps, one.fps) for one in clips]
    return PracticePair(id=claimed.comparison_id, clips=views)
