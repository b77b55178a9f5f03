"""What everybody may know of an experiment. Nothing here reads a true return, a judgement or a metric."""

from collections.abc import AsyncIterator, Iterable
from datetime import timedelta

from fastapi import APIRouter, Depends, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labeler.context import ExperimentName, RequireVisitor, Service, get_experiment
from services.labeler.live import Look
from services.labeler.paging import Before, Limit, cut, link_next
from services.labeler.schemas import Film, Status, Work
from shared import labels
from shared.config import ExperimentConfig
from shared.database import Database, now
from shared.models import Attempt, Experiment, Round, StoredArtifact
from shared.states import LIVE_ATTEMPTS, RoundState

router = APIRouter(prefix="/api/experiments", tags=["experiments"], dependencies=[RequireVisitor])

KNOWN_PACE = 0.05  # before this much of a stage is done its pace says nothing


@router.get("")
def list_experiments(
    request: Request, response: Response, service: Service, before: Before = None, limit: Limit = 1000
) -> list[Status]:
    """List the experiments, the newest first."""
    query = select(Experiment).order_by(Experiment.id.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(Experiment.id < before)
    with service.database.read() as session:
        found, more = cut(session.scalars(query).all(), limit)
        if more:
            link_next(request, response, before=found[-1].id)
        return [public_status(session, one, service.settings.lease_s) for one in found]


@router.get("/{name}")
def read_experiment(name: ExperimentName, service: Service) -> Status:
    """Say where an experiment stands."""
    with service.database.read() as session:
        return public_status(session, get_experiment(session, name), service.settings.lease_s)


def _known(name: ExperimentName, service: Service) -> str:
    with service.database.read() as session:
        return get_experiment(session, name).name


@router.get("/{name}/events", response_class=EventSourceResponse)
async def experiment_events(service: Service, name: str = Depends(_known)) -> AsyncIterator[ServerSentEvent]:
    """Send the status as server-sent events named `status`: now and at every change."""
    async for status in service.live.listen(name):
        yield ServerSentEvent(event="status", data=status)


def look_with(database: Database, lease_s: float) -> Look:
    """Return the function with which the live events look at the database."""

    def look(names: Iterable[str]) -> dict[str, Status]:
        with database.read() as session:
            found = session.scalars(select(Experiment).where(Experiment.name.in_(names)))
            return {one.name: public_status(session, one, lease_s) for one in found}

    return look


def public_status(session: Session, experiment: Experiment, lease_s: float) -> Status:
    """Return where `experiment` stands; `lease_s` is the lease that workers' heartbeats ask for."""
    config = ExperimentConfig.model_validate(experiment.config)
    rounds = _rounds(session, experiment.id)
    current = rounds[-1][0]
    given, wanted = labels.progress(session, current.id)
    final_in_s = None
    if current.state == RoundState.LABELING and given == wanted:
        final_at = labels.complete_at(session, current.id, config.labels.undo_grace_s)
        if final_at is not None:
            final_in_s = max((final_at - now(session)).total_seconds(), 0.0)
    return Status(
        name=experiment.name,
        state=experiment.state,
        instructions=config.labels.instructions,
        round=current.number,
        of=config.rounds,
        round_state=current.state,
        given=given,
        wanted=wanted,
        final_in_s=final_in_s,
        attempt=_work(session, current.id, lease_s),
        rounds=[
            Film(round=one.number, state=one.state, video=video_url(experiment.name, one.number, sha256))
            for one, sha256 in rounds
        ],
    )


def video_url(name: str, number: int, sha256: str | None) -> str | None:
    """Return the address of a round's video: the sum in it lets browsers keep the file for good."""
    return f"/api/experiments/{name}/rounds/{number}/video.mp4?v={sha256[:16]}" if sha256 else None


def _rounds(session: Session, experiment_id: int) -> list[tuple[Round, str | None]]:
    """Return every round, in order, with the sum of its video; not round 0, which imported labels are."""
    video = (StoredArtifact.round_id == Round.id) & (StoredArtifact.kind == "video")
    query = select(Round, StoredArtifact.sha256).outerjoin(StoredArtifact, video)
    query = query.where(Round.experiment_id == experiment_id, Round.number > 0).order_by(Round.number)
    return [(round_, sha256) for round_, sha256 in session.execute(query)]


def _work(session: Session, round_id: int, lease_s: float) -> Work | None:
    query = select(Attempt).where(Attempt.round_id == round_id, Attempt.state.in_(LIVE_ATTEMPTS))
    attempt = session.scalar(query)
    if attempt is None:
        return None
    eta_s = None
    if attempt.first_step_at and attempt.lease_until and attempt.progress >= KNOWN_PACE:
        told_at = attempt.lease_until - timedelta(seconds=lease_s)  # when its worker last beat
        took_s = (told_at - attempt.first_step_at).total_seconds()
        since_s = (now(session) - told_at).total_seconds()
        eta_s = max(took_s * (1 / attempt.progress - 1) - since_s, 0.0)
    return Work(stage=attempt.stage, state=attempt.state, progress=attempt.progress, eta_s=eta_s)
