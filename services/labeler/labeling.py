"""Comparisons handed out, answers taken."""

import logging
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks
from sqlalchemy.orm import Session

from services.labeler.context import (
    Context,
    CurrentLabeler,
    ExperimentName,
    PathId,
    Service,
)
from services.labeler.schemas import (
    ClaimBody,
    Claims,
    ClipView,
    ComparisonView,
    Counted,
    PreferenceBody,
    Renewed,
)
from shared import labels, rounds
from shared.models import Clip, Labeler
from shared.transitions import StaleState

log = logging.getLogger(__name__)
router = APIRouter(prefix="/api", tags=["labeling"])


@router.post("/experiments/{name}/claims")
def claim(name: ExperimentName, body: ClaimBody, labeler: CurrentLabeler, service: Service) -> Claims:
    """Hand out comparisons, those the labeler holds already first; an empty list says to wait."""
    with service.database.write() as session:
        handed = labels.claim(session, name, labeler, body.count)
        given, wanted = labels.progress(session, handed.round_id)
        return Claims(
            comparisons=[_view(session, one) for one in handed.comparisons],
            state=handed.round_state,
            experiment_state=handed.experiment_state,
            given=given,
            wanted=wanted,
        )


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
        return _view(session, labels.undo(session, str(preference_id), labeler))


def clip_view(clip_id: int, sha256: str, steps: int, fps: float) -> ClipView:
    """Return a clip as pages see it: the sum in its address lets browsers keep the file for good."""
    return ClipView(id=clip_id, url=f"/api/clips/{clip_id}.mp4?v={sha256[:16]}", steps=steps, fps=fps)


def _answer(
    service: Context, preference_id: str, body: PreferenceBody, labeler: Labeler
) -> tuple[Counted, int]:
    with service.database.write() as session:
        round_id = labels.answer(session, preference_id, body.comparison, labeler, body.ranks, body.seconds)
        given, wanted = labels.progress(session, round_id)
        return Counted(given=given, wanted=wanted), round_id


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


def _view(session: Session, claimed: labels.Claimed) -> ComparisonView:
    clips = [session.get_one(Clip, clip_id) for clip_id in claimed.clip_ids]
    return ComparisonView(
        id=claimed.comparison_id,
        round=claimed.round_number,
        clips=[clip_view(clip.id, clip.mp4_sha256, clip.steps, clip.fps) for clip in clips],
        expires_at=claimed.expires_at,
    )
