"""Comparisons handed out, answers taken."""

import logging
from datetime import datetime
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labeler.context import (
    Context,
    CurrentLabeler,
    ExperimentName,
    PathId,
    Service,
    get_experiment,
)
from services.labeler.schemas import (
    ClaimBody,
    Claims,
    ClipView,
    ComparisonView,
    Counted,
    OwnAnswer,
    OwnAnswers,
    PreferenceBody,
    Renewed,
)
from shared import labels, rounds
from shared.models import Clip, Comparison, Labeler, Lease, Preference, Round
from shared.states import RoundState
from shared.transitions import StaleState

log = logging.getLogger(__name__)
router = APIRouter(prefix="/api", tags=["labeling"])

LAST_ANSWERS = 10  # that a labeler is shown to change


@router.post("/experiments/{name}/claims")
def claim(name: ExperimentName, body: ClaimBody, labeler: CurrentLabeler, service: Service) -> Claims:
    """Hand out comparisons, those the labeler holds already first; an empty list says to wait."""
    with service.database.write() as session:
        experiment = get_experiment(session, name)
        held = labels.claim(session, experiment, labeler, body.count)
        round_ = rounds.current_round(session, experiment.id)
        given, wanted = labels.progress(session, round_.id)
        return Claims(
            comparisons=[
                _view(session, one.comparison_id, one.round_number, one.clip_ids, one.expires_at)
                for one in held
            ],
            state=round_.state,
            experiment_state=experiment.state,
            given=given,
            wanted=wanted,
        )


@router.get("/experiments/{name}/preferences")
def own_answers(name: ExperimentName, labeler: CurrentLabeler, service: Service) -> OwnAnswers:
    """List the labeler's own last ten standing answers of the current round, the newest first."""
    with service.database.read() as session:
        round_ = rounds.current_round(session, get_experiment(session, name).id)
        own = (
            select(Preference, Comparison, Lease.expires_at)
            .join(Comparison, Preference.comparison_id == Comparison.id)
            .join(Lease, (Lease.comparison_id == Comparison.id) & (Lease.labeler_id == labeler.id))
            .where(
                Comparison.round_id == round_.id,
                Preference.labeler_id == labeler.id,
                Preference.withdrawn_at.is_(None),
            )
            .order_by(Preference.answered_at.desc(), Preference.id)
            .limit(LAST_ANSWERS)
        )
        answers = []
        for one, comparison, expires_at in session.execute(own):
            clip_ids = [comparison.clip_ids[index] for index in one.shown]
            ranks = None if one.ranks is None else [one.ranks[index] for index in one.shown]
            view = _view(session, comparison.id, round_.number, clip_ids, expires_at)
            answers.append(OwnAnswer(id=one.id, ranks=ranks, comparison=view))
        return OwnAnswers(frozen=round_.state != RoundState.LABELING, answers=answers)


@router.post("/comparisons/{comparison_id}/renew")
def renew(comparison_id: PathId, labeler: CurrentLabeler, service: Service) -> Renewed:
    """Keep a comparison for another lease."""
    with service.database.write() as session:
        return Renewed(expires_at=labels.renew(session, comparison_id, labeler))


@router.post("/comparisons/{comparison_id}/skip", status_code=204)
def skip(comparison_id: PathId, labeler: CurrentLabeler, service: Service) -> None:
    """Give a comparison back unanswered."""
    with service.database.write() as session:
        labels.skip(session, comparison_id, labeler)


@router.put("/preferences/{preference_id}")
def answer(
    preference_id: UUID,
    body: PreferenceBody,
    labeler: CurrentLabeler,
    service: Service,
    background: BackgroundTasks,
) -> Counted:
    """Take an answer. The client makes the id, so sending it again changes nothing."""
    try:
        counted, round_id = _answer(service, str(preference_id), body, labeler)
    except labels.LabelError as error:
        if error.reason != "answered":
            raise
        # The same answer may have been on its way twice; now that the other is stored, look again.
        counted, round_id = _answer(service, str(preference_id), body, labeler)
    if counted.given >= counted.wanted:
        _close(service, round_id, labeler, background)
    return counted


@router.delete("/preferences/{preference_id}")
def undo(preference_id: UUID, labeler: CurrentLabeler, service: Service) -> ComparisonView:
    """Withdraw an answer; its comparison is the labeler's again."""
    with service.database.write() as session:
        comparison = labels.undo(session, str(preference_id), labeler)
        lease = session.scalars(
            select(Lease).where(Lease.comparison_id == comparison.id, Lease.labeler_id == labeler.id)
        ).one()
        number = session.get_one(Round, comparison.round_id).number
        clip_ids = [comparison.clip_ids[index] for index in lease.shown]
        return _view(session, comparison.id, number, clip_ids, lease.expires_at)


def clip_view(clip_id: int, sha256: str, steps: int, fps: float) -> ClipView:
    """Return a clip as pages see it: the sum in its address lets browsers keep the file for good."""
    return ClipView(id=clip_id, url=f"/api/clips/{clip_id}.mp4?v={sha256[:16]}", steps=steps, fps=fps)


def _answer(
    service: Context, preference_id: str, body: PreferenceBody, labeler: Labeler
) -> tuple[Counted, int]:
    with service.database.write() as session:
        preference = labels.answer(session, preference_id, body.comparison, labeler, body.ranks, body.seconds)
        comparison = session.get_one(Comparison, preference.comparison_id)
        given, wanted = labels.progress(session, comparison.round_id)
        return Counted(given=given, wanted=wanted), comparison.round_id


def _close(service: Context, round_id: int, labeler: Labeler, background: BackgroundTasks) -> None:
    """Freeze the label set if its grace has passed (teachers need none); else the coordinator will."""
    try:
        with service.database.write() as session:
            hints = rounds.close_labeling(session, round_id, labeler.name)
    except StaleState as error:
        log.info("round %s was closed by somebody else: %s", round_id, error)
        return
    if hints:
        background.add_task(service.broker.send, hints)


def _view(
    session: Session, comparison_id: int, round_number: int, clip_ids: list[int], expires_at: datetime
) -> ComparisonView:
    clips = [session.get_one(Clip, clip_id) for clip_id in clip_ids]
    views = [clip_view(clip.id, clip.mp4_sha256, clip.steps, clip.fps) for clip in clips]
    return ComparisonView(id=comparison_id, round=round_number, clips=views, expires_at=expires_at)
