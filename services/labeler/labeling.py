"""Comparisons handed out, answers taken."""

import logging
from asyncio import wrap_future
from functools import partial
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks
from fastapi.concurrency import run_in_threadpool
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
from services.labeler.status import batch_mark
from shared import labels, rounds
from shared.models import Clip, Comparison, Labeler, Lease, Preference, Round
from shared.states import RoundState
from shared.transitions import StaleState

log = logging.getLogger(__name__)
MANY = 100  # comparisons before the first open one: then the next second's claims begin there
router = APIRouter(prefix="/api", tags=["labeling"])

LAST_ANSWERS = 10  # that a labeler is shown to change


@router.post("/experiments/{name}/claims")
async def claim(name: ExperimentName, body: ClaimBody, labeler: CurrentLabeler, service: Service) -> Claims:
    """Hand out comparisons, those the labeler holds already first; an empty list says to wait."""

    def work(session: Session) -> Claims:
        handed = labels.claim(session, name, labeler, body.count, service.open_from.get(name) or 0)
        if handed.open_from > MANY:
            service.open_from.put(name, handed.open_from)
        given, wanted = service.tally.of(session, handed.round_id)
        return Claims(
            comparisons=[_view(service, session, one) for one in handed.comparisons],
            state=handed.round_state,
            experiment_state=handed.experiment_state,
            given=given,
            wanted=wanted,
        )

    return await wrap_future(service.database.submit(work))


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
            claimed = labels.Claimed(comparison.id, round_.id, clip_ids, expires_at)
            view = _view(service, session, claimed)
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
async def answer(
    preference_id: UUID,
    body: PreferenceBody,
    labeler: CurrentLabeler,
    service: Service,
    background: BackgroundTasks,
) -> Counted:
    """Take an answer. The client makes the id, so sending it again changes nothing."""
    try:
        counted, round_id = await _answer(service, str(preference_id), body, labeler)
    except labels.LabelError as error:
        if error.reason != "answered":
            raise
        # The same answer may have been on its way twice; now that the other is stored, look again.
        counted, round_id = await _answer(service, str(preference_id), body, labeler)
    if counted.given >= counted.wanted:
        await run_in_threadpool(_close, service, round_id, labeler, background)
    return counted


@router.delete("/preferences/{preference_id}")
def undo(preference_id: UUID, labeler: CurrentLabeler, service: Service) -> ComparisonView:
    """Withdraw an answer; its comparison is the labeler's again."""
    with service.database.write() as session:
        return _view(service, session, labels.undo(session, str(preference_id), labeler))


def clip_view(clip_id: int, sha256: str, steps: int, fps: float) -> ClipView:
    """Return a clip as pages see it: the sum in its address lets browsers keep the file for good."""
    return ClipView(id=clip_id, url=f"/api/clips/{clip_id}.mp4?v={sha256[:16]}", steps=steps, fps=fps)


async def _answer(
    service: Context, preference_id: str, body: PreferenceBody, labeler: Labeler
) -> tuple[Counted, int]:
    def work(session: Session) -> tuple[Counted, int]:
        round_id = labels.answer(session, preference_id, body.comparison, labeler, body.ranks, body.seconds)
        given, wanted = service.tally.of(session, round_id)
        return Counted(given=given, wanted=wanted), round_id

    return await wrap_future(service.database.submit(work))


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


def _view(service: Context, session: Session, claimed: labels.Claimed) -> ComparisonView:
    def look_up(clip_id: int) -> ClipView:
        clip = session.get_one(Clip, clip_id)
        return clip_view(clip.id, clip.mp4_sha256, clip.steps, clip.fps)

    def mark() -> str:
        return batch_mark(session.get_one(Round, claimed.round_id))

    return ComparisonView(
        id=claimed.comparison_id,
        batch=service.batches.find(claimed.round_id, mark),
        clips=[service.clips.find(clip_id, partial(look_up, clip_id)) for clip_id in claimed.clip_ids],
        expires_at=claimed.expires_at,
    )
