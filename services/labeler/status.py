"""What everybody may know of an experiment. Nothing here reads a true return, a judgement or a metric."""

import hashlib
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labeler.context import (
    Context,
    ExperimentName,
    KnownName,
    RequireVisitor,
    Service,
    VisitorShown,
    get_experiment,
    is_admin,
)
from services.labeler.live import Topic
from services.labeler.paging import Before, Limit, cut, link_next
from services.labeler.problems import Problem
from services.labeler.schemas import Agents, Film, Status
from services.labeler.waiting import wait_for, work_of
from shared import labels
from shared.config import ExperimentConfig
from shared.database import now
from shared.models import Experiment, Round, StoredArtifact
from shared.states import EXPERIMENT_TABLE, RoundState

router = APIRouter(prefix="/api/experiments", tags=["experiments"], dependencies=[RequireVisitor])


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
        return [unswayed(public_status(session, one, service.settings.lease_s)) for one in found]


@router.get("/{name}")
def read_experiment(name: ExperimentName, service: Service) -> Status:
    """Say where an experiment stands."""
    with service.database.read() as session:
        return unswayed(public_status(session, get_experiment(session, name), service.settings.lease_s))


@router.get("/{name}/rounds")
def list_agents(name: ExperimentName, request: Request, service: Service) -> Agents:
    """List the rounds with their agents' videos: between two batches, and to the admin at any time."""
    with service.database.read() as session:
        status = public_status(session, get_experiment(session, name), service.settings.lease_s)
    keep_unswayed(request, service, status.state, status.round_state)
    assert status.round is not None
    assert status.of is not None
    return Agents(round=status.round, of=status.of, rounds=status.rounds)


@router.get("/{name}/events", response_class=EventSourceResponse)
async def experiment_events(
    service: Service, shown: VisitorShown, name: KnownName
) -> AsyncIterator[ServerSentEvent]:
    """Send the status as server-sent events named `status`: now and at every change.

    The stream ends when the session ends with which it was asked for.
    """
    async for status in service.live.listen(Topic("status", name), shown):
        yield ServerSentEvent(event="status", data=status)


def public_status(session: Session, experiment: Experiment, lease_s: float) -> Status:
    """Return where `experiment` stands, for pages and programs that nobody answers by.

    `lease_s` is the lease that workers' heartbeats ask for.
    """
    config = ExperimentConfig.model_validate(experiment.config)
    rounds = _rounds(session, experiment.id)
    current = rounds[-1][0]
    given, wanted = labels.progress(session, current.id)
    final_in_s, moment = None, now(session)
    if current.state == RoundState.LABELING and given == wanted:
        final_at = labels.complete_at(session, current.id, config.labels.undo_grace_s)
        if final_at is not None:
            final_in_s = max((final_at - moment).total_seconds(), 0.0)
    under_way = work_of(session, current.id, lease_s, moment)
    return Status(
        name=experiment.name,
        state=experiment.state,
        instructions=config.labels.instructions,
        batch=batch_mark(current),
        round=current.number,
        of=config.rounds,
        round_state=current.state,
        given=given,
        wanted=wanted,
        final_in_s=final_in_s,
        attempt=under_way[0] if under_way else None,
        wait=wait_for(session, current, config, under_way, moment),
        rounds=_films(experiment.name, rounds),
    )


def unswayed(status: Status) -> Status:
    """Return what a labeler may see of `status`: no word of rounds and their agents while people answer."""
    if not are_asked(status.state, status.round_state):
        return status
    return status.model_copy(update={"round": None, "of": None, "rounds": []})


def keep_unswayed(request: Request, service: Context, state: str, round_state: str) -> None:
    """Raise a problem 409 if who asks for agents may be asked to answer just now. The operator may look."""
    if are_asked(state, round_state) and not is_admin(request, service):
        detail = "the agents are shown between two batches: how far they are might sway who answers now"
        raise Problem(409, "labeling", detail)


def are_asked(state: str, round_state: str) -> bool:
    """Return whether people answer, or will go on to when the experiment is resumed."""
    return round_state == RoundState.LABELING and state in EXPERIMENT_TABLE


def batch_mark(round_: Round) -> str:
    """Return a word that tells a round's comparisons from others', and nothing else."""
    return hashlib.sha256(f"{round_.id} {round_.created_at.isoformat()}".encode()).hexdigest()[:12]


def video_url(name: str, number: int, sha256: str | None, api: str = "/api") -> str | None:
    """Return the address of a round's video: the sum in it lets browsers keep the file for good."""
    return f"{api}/experiments/{name}/rounds/{number}/video.mp4?v={sha256[:16]}" if sha256 else None


def films_of(session: Session, experiment: Experiment, api: str) -> list[Film]:
    """Return every round with the address of its video in an API."""
    return _films(experiment.name, _rounds(session, experiment.id), api)


def _films(name: str, rounds: list[tuple[Round, str | None]], api: str = "/api") -> list[Film]:
    return [
        Film(round=one.number, state=one.state, video=video_url(name, one.number, sha256, api))
        for one, sha256 in rounds
    ]


def _rounds(session: Session, experiment_id: int) -> list[tuple[Round, str | None]]:
    """Return every round, in order, with the sum of its video; not round 0, which imported labels are."""
    video = (StoredArtifact.round_id == Round.id) & (StoredArtifact.kind == "video")
    query = select(Round, StoredArtifact.sha256).outerjoin(StoredArtifact, video)
    query = query.where(Round.experiment_id == experiment_id, Round.number > 0).order_by(Round.number)
    return [(round_, sha256) for round_, sha256 in session.execute(query)]
