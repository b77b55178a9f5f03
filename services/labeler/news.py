"""What the live events tell: of an experiment to everybody, and of one or all of them to the admin."""

from collections.abc import AsyncIterator, Collection

from fastapi import APIRouter
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel
from sqlalchemy import select

from services.labeler import overview
from services.labeler.context import (
    AdminShown,
    ExperimentName,
    KnownName,
    RequireAdmin,
    Service,
    get_experiment,
)
from services.labeler.live import Look, Topic
from services.labeler.paging import Before
from services.labeler.report_schemas import ExperimentRow
from services.labeler.schemas import Film
from services.labeler.status import films_of, public_status, unswayed
from shared.database import Database
from shared.models import Experiment

router = APIRouter(prefix="/api/admin", tags=["admin"], dependencies=[RequireAdmin])

A_PAGE = 50  # experiments of the overview


class News(BaseModel):
    """What the admin is told: the experiments as in the list of them."""

    experiments: list[ExperimentRow]


@router.get("/news", response_class=EventSourceResponse)
async def all_news(
    service: Service, shown: AdminShown, before: Before = None
) -> AsyncIterator[ServerSentEvent]:
    """Send the newest fifty experiments as server-sent events named `news`: now and at every change."""
    async for news in service.live.listen(Topic("admin", before=before), shown):
        yield ServerSentEvent(event="news", data=news)


@router.get("/experiments/{name}/news", response_class=EventSourceResponse)
async def experiment_news(
    service: Service, shown: AdminShown, name: KnownName
) -> AsyncIterator[ServerSentEvent]:
    """Send an experiment, as in the list of them, as server-sent events named `news`: now and at changes.

    `last_event` says whether anything was done, and where to go on reading the events.
    """
    async for news in service.live.listen(Topic("admin", name), shown):
        yield ServerSentEvent(event="news", data=news)


@router.get("/experiments/{name}/films")
def list_films(name: ExperimentName, service: Service) -> list[Film]:
    """List the rounds with their agents' videos."""
    with service.database.read() as session:
        return films_of(session, get_experiment(session, name), "/api/admin")


def look_with(database: Database, lease_s: float) -> Look:
    """Return the function with which the live events look at the database."""

    def look(topics: Collection[Topic]) -> dict[Topic, BaseModel]:
        found: dict[Topic, BaseModel] = {}
        names = {one.name for one in topics if one.kind == "status"}
        with database.read() as session:
            if names:
                for one in session.scalars(select(Experiment).where(Experiment.name.in_(names))):
                    found[Topic("status", one.name)] = unswayed(public_status(session, one, lease_s))
            for topic in topics:
                if topic.kind == "admin":
                    of = {"names": [topic.name]} if topic.name else {"limit": A_PAGE, "before": topic.before}
                    rows = overview.rows(session, **of)
                    found[topic] = News.model_validate({"experiments": rows})
        return found

    return look
