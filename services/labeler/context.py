"""What endpoints ask for: the parts of the service, and who is asking."""

import math
import threading
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Path, Request
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labeler import limits, security, sessions
from services.labeler.kept import Kept
from services.labeler.live import Live
from services.labeler.problems import Problem
from services.labeler.schemas import MAX_ID, ClipView
from services.labeler.tally import Tally
from services.labeler.together import Together
from shared.asides import Terms
from shared.broker import Broker
from shared.config import NAME_PATTERN
from shared.database import Database
from shared.models import Experiment, Labeler
from shared.settings import Secrets, Settings
from shared.storage import Store

# By the sums of a comparison's clips, the probability of each to be preferred to all others.
Told = dict[tuple[str, ...], list[float]]
NOBODY = "say who you are: a labeler's token as Authorization: Bearer, or the cookie of the label page"


@dataclass(frozen=True, eq=False)
class Context:
    """The parts of one running labeler service."""

    settings: Settings
    secrets: Secrets
    database: Database
    writer: Together  # for claims and answers
    reader: Together  # for looking up who asks
    store: Store
    broker: Broker
    live: Live
    tally: Tally = field(default_factory=Tally)
    terms: Kept[str, Terms] = field(default_factory=lambda: Kept(math.inf, 1000))  # by experiment, for good
    clips: Kept[int, ClipView] = field(default_factory=lambda: Kept(math.inf, 10_000))  # they never change
    # By the sum of a round's predictions, how likely each clip of a held-out comparison is to be preferred.
    held_out: Kept[str, Told] = field(default_factory=lambda: Kept(math.inf, 500))
    batches: Kept[int, str] = field(default_factory=lambda: Kept(math.inf, 1000))  # a round's mark, for good
    # By experiment, the first open number: what comes free before it is seen a second later, or when needed.
    open_from: Kept[str, int] = field(default_factory=lambda: Kept(1.0, 1000))
    # By what they show. Who changes a labeler, or shuts one out, says `labelers.forget()`; other
    # processes learn of it a second later.
    labelers: Kept[sessions.Shown, Labeler] = field(default_factory=lambda: Kept(1.0, 5000))
    looking: threading.Lock = field(default_factory=threading.Lock)  # at database, broker and store
    moving: threading.Lock = field(default_factory=threading.Lock)  # an experiment out, or labels in

    @property
    def open_to_visitors(self) -> bool:
        """Whether everybody who can come here sits at this machine."""
        return security.open_to_visitors(self.settings)


async def _context(request: Request) -> Context:  # async, or it would cost a thread
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


def shown_by(request: Request) -> sessions.Shown | None:
    """Return by what a request says who is asking: the token of the header, or else the cookie."""
    if token := bearer(request):
        return sessions.Shown("token", security.token_sha256(token))
    cookie = request.cookies.get(security.LABELER_COOKIE)
    return sessions.Shown("cookie", security.token_sha256(cookie)) if cookie else None


def find_labeler(request: Request, context: Context) -> Labeler | None:
    """Return who is asking, by the token of the header or the session of the cookie."""
    shown = shown_by(request)
    if shown is None:
        return None
    with context.database.read() as session:
        return sessions.find_labelers(session, [shown], context.database)[0]


@dataclass(frozen=True)
class _Recognize:
    """Looks up all who ask at the same time."""

    context: Context

    def __call__(self, session: Session, shown: list[sessions.Shown]) -> list[Labeler | None]:
        return sessions.find_labelers(session, shown, self.context.database)


def is_admin(request: Request, context: Context) -> bool:
    """Return whether the admin is asking, by the token of the header or the session of the cookie.

    The admin token is the one that a person may have chosen, so wrong ones are counted here too.
    """
    if (token := bearer(request)) is not None:
        limits.check(context.database, "admin", request)
        if security.same(token, context.secrets.admin_token):
            return True
        if find_labeler(request, context) is None:  # a labeler's own token is no guess
            limits.failed(context.database, "admin", request)
        return False
    cookie = request.cookies.get(security.ADMIN_COOKIE)
    if not cookie:
        return False
    return sessions.is_admin(context.database, cookie, context.secrets.admin_token)


def is_teacher(request: Request, context: Context) -> bool:
    """Return whether the teachers' credential is shown. Wrong ones are counted."""
    token = request.headers.get("x-teacher-token")
    if token is None:
        return False
    limits.check(context.database, "teacher", request)
    if security.same(token, context.secrets.teacher_token):
        return True
    limits.failed(context.database, "teacher", request)
    return False


async def current_labeler(request: Request) -> Labeler:
    """Return who is asking; a problem 401 if that is nobody."""
    context = await _context(request)  # not a dependency of this one too: it is resolved for every answer
    shown = shown_by(request)
    labeler = context.labelers.get(shown) if shown else None
    if shown and labeler is None:
        labeler = await context.reader.do(_Recognize(context), shown)
        if labeler is not None:
            context.labelers.put(shown, labeler)
    if labeler is None:
        raise Problem(401, "no_labeler", NOBODY, {"WWW-Authenticate": "Bearer"})
    return labeler


def _visitor(request: Request, context: Service) -> None:
    if context.open_to_visitors or is_teacher(request, context) or find_labeler(request, context):
        return
    if not is_admin(request, context):
        raise Problem(401, "no_labeler", NOBODY, {"WWW-Authenticate": "Bearer"})


def _admin(request: Request, context: Service) -> None:
    if not is_admin(request, context):
        detail = "this needs the admin token as Authorization: Bearer, or the cookie of the admin page"
        raise Problem(401, "no_admin", detail, {"WWW-Authenticate": "Bearer"})


def _teacher(request: Request, context: Service) -> None:
    if not is_teacher(request, context):
        raise Problem(401, "no_teacher", "this needs the teachers' token as X-Teacher-Token")


def _admin_shown(request: Request) -> frozenset[sessions.Shown] | None:
    """Return what an admin's stream hangs on: their session; None for the token itself, which never ends."""
    cookie = request.cookies.get(security.ADMIN_COOKIE)
    if bearer(request) is not None or not cookie:
        return None
    return frozenset([sessions.Shown("admin", security.token_sha256(cookie))])


def _visitor_shown(request: Request, context: Service) -> frozenset[sessions.Shown] | None:
    """Return what a visitor's stream hangs on, any of it; None if nothing of that ever ends."""
    if context.open_to_visitors or security.same(bearer(request), context.secrets.admin_token):
        return None
    if security.same(request.headers.get("x-teacher-token"), context.secrets.teacher_token):
        return None
    labeler = shown_by(request)
    return frozenset(filter(None, [labeler])) | (_admin_shown(request) or frozenset())


AdminShown = Annotated[frozenset[sessions.Shown] | None, Depends(_admin_shown)]
VisitorShown = Annotated[frozenset[sessions.Shown] | None, Depends(_visitor_shown)]
CurrentLabeler = Annotated[Labeler, Depends(current_labeler)]
RequireVisitor = Depends(_visitor)
RequireAdmin = Depends(_admin)
RequireTeacher = Depends(_teacher)


def get_experiment(session: Session, name: str) -> Experiment:
    """Return the experiment named `name`; a problem 404 if there is none."""
    experiment = session.scalar(select(Experiment).where(Experiment.name == name))
    if experiment is None:
        raise Problem(404, "unknown", f"there is no experiment named {name[:80]}")
    return experiment


def _known(name: ExperimentName, context: Service) -> str:
    with context.database.read() as session:
        return get_experiment(session, name).name


KnownName = Annotated[str, Depends(_known)]  # asked before a stream begins: it can't answer 404 any more
