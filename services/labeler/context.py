"""What endpoints ask for: the parts of the service, and who is asking."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Path, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labeler import security
from services.labeler.live import Live
from services.labeler.problems import Problem
from services.labeler.schemas import MAX_ID
from shared.broker import Broker
from shared.config import NAME_PATTERN
from shared.database import Database
from shared.models import Experiment, Labeler
from shared.settings import Secrets, Settings
from shared.storage import Store


@dataclass(frozen=True)
class Context:
    """The parts of one running labeler service."""

    settings: Settings
    secrets: Secrets
    database: Database
    store: Store
    broker: Broker
    live: Live

    @property
    def open_to_visitors(self) -> bool:
        """Whether everybody who can come here sits at this machine."""
        return security.open_to_visitors(self.settings)


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


Service = Annotated[Context, Depends(_context)]
ExperimentName = Annotated[str, Path(pattern=NAME_PATTERN)]
PathId = Annotated[int, Path(ge=1, le=MAX_ID)]
RoundNumber = Annotated[int, Path(ge=0, le=MAX_ID, description="0: the labels it began with")]


def bearer(request: Request) -> str | None:
    """Return the token of the Authorization header."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


def find_labeler(request: Request, context: Context) -> Labeler | None:
    """Return who is asking, by header or cookie."""
    token = bearer(request) or request.cookies.get(security.LABELER_COOKIE)
    if not token:
        return None
    with context.database.read() as session:
        return session.scalar(select(Labeler).where(Labeler.token_sha256 == security.token_sha256(token)))


def is_admin(request: Request, context: Context) -> bool:
    """Return whether the admin is asking, by header or cookie."""
    token = context.secrets.admin_token
    cookie = request.cookies.get(security.ADMIN_COOKIE)
    return security.same(bearer(request), token) or security.same(cookie, security.admin_cookie(token))


def is_teacher(request: Request, context: Context) -> bool:
    """Return whether the teachers' credential is shown."""
    return security.same(request.headers.get("x-teacher-token"), context.secrets.teacher_token)


def _labeler(request: Request, context: Service) -> Labeler:
    labeler = find_labeler(request, context)
    if labeler is None:
        detail = (
            "say who you are: a labeler's token as Authorization: Bearer, or the cookie of the label page"
        )
        raise Problem(401, "no_labeler", detail, {"WWW-Authenticate": "Bearer"})
    return labeler


def _visitor(request: Request, context: Service) -> None:
    if context.open_to_visitors or is_admin(request, context) or is_teacher(request, context):
        return
    _labeler(request, context)


def _admin(request: Request, context: Service) -> None:
    if not is_admin(request, context):
        detail = "this needs the admin token as Authorization: Bearer, or the cookie of the admin page"
        raise Problem(401, "no_admin", detail, {"WWW-Authenticate": "Bearer"})


def _teacher(request: Request, context: Service) -> None:
    if not is_teacher(request, context):
        raise Problem(401, "no_teacher", "this needs the teachers' token as X-Teacher-Token")


CurrentLabeler = Annotated[Labeler, Depends(_labeler)]
RequireVisitor = Depends(_visitor)
RequireAdmin = Depends(_admin)
RequireTeacher = Depends(_teacher)


def get_experiment(session: Session, name: str) -> Experiment:
    """Return the experiment named `name`; a problem 404 if there is none."""
    experiment = session.scalar(select(Experiment).where(Experiment.name == name))
    if experiment is None:
        raise Problem(404, "unknown", f"there is no experiment named {name[:80]}")
    return experiment
