"""The labeler service: pages, API, live events."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import APIRouter, FastAPI
from sqlalchemy import inspect, text

from services.labeler import (
    admin,
    admin_pages,
    audit,
    insight,
    invitations,
    labelers,
    labeling,
    media,
    metrics,
    news,
    openapi,
    pages,
    practice,
    problems,
    security,
    sessions,
    spool,
    status,
    teaching,
    transfer,
)
from services.labeler.context import Context, Service
from services.labeler.live import Live
from services.labeler.problems import Problem
from services.labeler.report_schemas import Health
from services.labeler.together import Together
from shared.broker import Broker, BrokerAway
from shared.database import Database
from shared.models import Base
from shared.settings import Settings, check_safe, secrets

LOOK_S = 2.0  # a question whether we are ready waits so long for an earlier one
health = APIRouter(tags=["health"])


@health.get("/healthz")
def healthz() -> Health:
    """Say that the process lives."""
    return Health(status="ok")


@health.get("/readyz")
def readyz(service: Service) -> Health:
    """Say that the database answers and has its tables, and that broker and store answer."""
    # One looks at a time, and nobody waits for it long: a server that hangs holds up one look, not all.
    if not service.looking.acquire(timeout=LOOK_S):
        raise Problem(503, "slow", "database, broker and store have not all answered an earlier question yet")
    try:
        with service.database.read() as session:
            session.execute(text("SELECT 1"))
            missing = set(Base.metadata.tables) - set(inspect(session.connection()).get_table_names())
        if missing:
            names = ", ".join(sorted(missing))
            raise Problem(503, "no_tables", f"the database lacks {names}: migrate it first")
        service.broker.check()
        service.store.check()
    except BrokerAway as error:
        raise Problem(503, "broker", str(error)) from None
    finally:
        service.looking.release()
    return Health(status="ok")


def create_app(settings: Settings) -> FastAPI:
    """Return the service over `settings`; SettingsError if they would serve others without secrets."""
    check_safe(settings)
    spool.clear(settings)
    database, kept = Database(settings.database_url), secrets(settings)
    still_good = partial(sessions.still_good, database, kept.admin_token)
    live = Live(news.look_with(database, settings.lease_s), still_good)
    broker = Broker(settings)
    writer, reader = Together(database.write), Together(database.read)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        live.close()
        broker.close()
        writer.close()
        reader.close()
        database.close()

    app = FastAPI(
        title="Lockstep",
        description="Comparisons of an agent's clips, and the preferences that people and teachers give.",
        docs_url=None,  # its own page, without scripts from elsewhere, is in pages.py
        redoc_url=None,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # ours are at /metrics
    )
    app.state.context = Context(
        settings=settings,
        secrets=kept,
        database=database,
        writer=writer,
        reader=reader,
        store=settings.open_store(),
        broker=broker,
        live=live,
    )
    app.add_middleware(security.shield, settings=settings)
    problems.install(app, pages.error_page)
    for router in (
        labeling.router,  # first, because addresses are compared in this order and these are asked for most
        health,
        metrics.router,
        labelers.router,
        invitations.router,
        status.router,
        media.router,
        practice.router,
        teaching.router,
        admin.session_router,
        invitations.admin_router,
        admin.router,
        insight.router,
        news.router,
        transfer.router,
        audit.router,
        admin_pages.router,
    ):
        app.include_router(router)
    pages.install(app)
    openapi.install(app)
    return app
