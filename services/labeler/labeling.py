"""Comparisons handed out, answers taken."""

import logging
from dataclasses import dataclass
from functools import partial
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labeler import handles, repeats
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
from shared import handing_out, labels, rounds
from shared import label_statements as sql
from shared.handing_out import Wish
from shared.labels import Given
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
    claims = await service.writer.do(_HandOut(service, name), Wish(labeler, body.count))
    return await repeats.mix_in(service, name, labeler, body.count, claims, _view)


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
            answers.append((one.answered_at, OwnAnswer(id=one.id, ranks=ranks, comparison=view)))
        own_view = partial(_view, service, session)
        last = repeats.last_answers(session, labeler, answers, LAST_ANSWERS, own_view)
        return OwnAnswers(frozen=round_.state != RoundState.LABELING, answers=last)


@router.post("/comparisons/{comparison_id}/renew")
def renew(comparison_id: PathId, labeler: CurrentLabeler, service: Service) -> Renewed:
    """Keep a comparison for another lease."""
    comparison_id, again = handles.opened(labeler.id, comparison_id)
    if again:
        return repeats.renew(service, comparison_id, labeler)
    with service.database.write() as session:
        return Renewed(expires_at=labels.renew(session, comparison_id, labeler))


@router.post("/comparisons/{comparison_id}/skip", status_code=204)
def skip(comparison_id: PathId, labeler: CurrentLabeler, service: Service) -> None:
    """Give a comparison back unanswered."""
    comparison_id, again = handles.opened(labeler.id, comparison_id)
    if again:
        return repeats.skip(service, comparison_id, labeler)
    with service.database.write() as session:
        return labels.skip(session, comparison_id, labeler)


@router.put("/preferences/{preference_id}")
async def answer(
    preference_id: UUID,
    body: PreferenceBody,
    labeler: CurrentLabeler,
    service: Service,
    background: BackgroundTasks,
) -> Counted:
    """Take an answer. The client makes the id, so sending it again changes nothing."""
    is_sealed = body.comparison >= handles.SEALED
    if is_sealed:
        comparison_id, again = handles.opened(labeler.id, body.comparison)
        body = body.model_copy(update={"comparison": comparison_id})
        if again:
            return await run_in_threadpool(repeats.answer, service, str(preference_id), body, labeler)
    given = Given(str(preference_id), body.comparison, labeler, body.ranks, body.seconds)
    try:
        counted, round_id = await service.writer.do(_Take(service), given)
    except labels.LabelError as error:
        if error.reason != "answered":
            raise
        # The same answer may have been on its way twice; now that the other is stored, look again.
        counted, round_id = await service.writer.do(_Take(service), given)
    if is_sealed:
        await run_in_threadpool(repeats.draw, service, body.comparison, labeler)
    if counted.given >= counted.wanted:
        await run_in_threadpool(_close, service, round_id, labeler, background)
    return counted


@router.delete("/preferences/{preference_id}")
def undo(preference_id: UUID, labeler: CurrentLabeler, service: Service) -> ComparisonView:
    """Withdraw an answer; its comparison is the labeler's again."""
    with service.database.write() as session:
        try:
            claimed = labels.undo(session, str(preference_id), labeler)
        except labels.LabelError as error:
            if error.reason != "unknown":
                raise
        else:
            return repeats.seal(session, labeler, _view(service, session, claimed))
    return repeats.undo(service, str(preference_id), labeler, _view)


def clip_view(clip_id: int, sha256: str, steps: int, fps: float) -> ClipView:
    """Return a clip as pages see it: the sum in its address lets browsers keep the file for good."""
    return ClipView(id=clip_id, url=f"/api/clips/{clip_id}.mp4?v={sha256[:16]}", steps=steps, fps=fps)


@dataclass(frozen=True)
class _HandOut:
    """Hands out an experiment's comparisons to all who ask together."""

    service: Context
    experiment: str

    def __call__(self, session: Session, wishes: list[Wish]) -> list[Claims | labels.LabelError]:
        known_from = self.service.open_from.get(self.experiment) or 0
        all_handed = handing_out.claim_all(session, self.experiment, wishes, known_from)
        _look_up_clips(self.service, session, [one for handed in all_handed for one in handed.comparisons])
        first = all_handed[0]
        if first.open_from > MANY:  # what became free before it is seen when all are looked at again
            keep = self.service.open_from.put if first.looked_at_all else self.service.open_from.change
            keep(self.experiment, first.open_from)
        given, wanted = self.service.tally.of(session, first.round_id)
        return [
            Claims(
                comparisons=[_view(self.service, session, one) for one in handed.comparisons],
                state=handed.round_state,
                experiment_state=handed.experiment_state,
                given=given,
                wanted=wanted,
            )
            for handed in all_handed
        ]


@dataclass(frozen=True)
class _Take:
    """Takes all answers that came together; tells of each how far its round is now, and the round's id."""

    service: Context

    def __call__(
        self, session: Session, answers: list[Given]
    ) -> list[tuple[Counted, int] | labels.LabelError]:
        taken = labels.answer_all(session, answers)
        rounds_ = {one for one in taken if isinstance(one, int)}
        counts = {one: self.service.tally.of(session, one) for one in rounds_}
        return [
            (Counted(given=counts[one][0], wanted=counts[one][1]), one) if isinstance(one, int) else one
            for one in taken
        ]


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


def _look_up_clips(service: Context, session: Session, claimed: list[labels.Claimed]) -> None:
    """Look up at once what is to be shown and not known yet."""
    clip_ids = {clip_id for one in claimed for clip_id in one.clip_ids}
    these = [{"clip": clip_id} for clip_id in clip_ids if service.clips.get(clip_id) is None]
    for row in sql.run(session, sql.CLIPS, these=these) if these else []:
        service.clips.put(row[0], clip_view(*row))


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
