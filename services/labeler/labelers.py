"""Who labels: joining, coming back, one's own name."""

from fastapi import APIRouter, Depends, Request, Response
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from services.labeler import limits, security, sessions
from services.labeler.context import CurrentLabeler, Service, is_admin, is_teacher
from services.labeler.names import friendly_name
from services.labeler.problems import Problem
from services.labeler.schemas import Joined, Me, NewLabeler, Rename, Token
from shared import asides
from shared.database import now
from shared.models import Labeler, Preference

router = APIRouter(prefix="/api", tags=["labelers"])


def _may_join(request: Request, service: Service, body: NewLabeler) -> None:
    if body.kind == "teacher" and not is_teacher(request, service):
        raise Problem(401, "no_teacher", "a teacher needs the teachers' token as X-Teacher-Token")
    if body.kind == "person" and not (service.open_to_visitors or is_admin(request, service)):
        detail = "other machines can reach this server: ask its operator for an invitation"
        raise Problem(401, "no_admin", detail)


@router.post("/labelers", status_code=201, dependencies=[Depends(_may_join)])
def join(body: NewLabeler, request: Request, response: Response, service: Service) -> Joined:
    """Make a labeler; the token is shown this once. On loopback a person's browser is logged in too.

    A teacher that comes again with the teachers' token gets a fresh token for the same labeler.
    """
    token = security.new_token()
    with service.database.write() as session:
        labeler = _new_labeler(session, body, token)
        to_page = body.kind == "person" and service.open_to_visitors
        cookie = sessions.log_in_labeler(session, labeler) if to_page else ""
    service.labelers.forget()
    if cookie:
        sessions.set_cookie(request, response, security.LABELER_COOKIE, cookie)
    return Joined(id=labeler.id, name=labeler.name, kind=labeler.kind, token=token)


@router.post("/session", status_code=204)
def come_back(body: Token, request: Request, response: Response, service: Service) -> None:
    """Log a browser in with a labeler's token: it gets a cookie for the label page."""
    limits.check(service.database, "labeler", request)
    query = select(Labeler).where(Labeler.token_sha256 == security.token_sha256(body.token))
    with service.database.write() as session:  # locked: who is shut out meanwhile does not get in
        labeler = session.scalar(query.with_for_update())
        cookie = sessions.log_in_labeler(session, labeler) if labeler else ""
    if not cookie:
        limits.failed(service.database, "labeler", request)
        raise Problem(401, "no_labeler", "that is not a token of anybody here")
    sessions.set_cookie(request, response, security.LABELER_COOKIE, cookie)


@router.delete("/session", status_code=204)
def log_out(request: Request, response: Response, service: Service) -> None:
    """Log this browser's labeler out."""
    cookie = request.cookies.get(security.LABELER_COOKIE)
    if cookie:
        with service.database.write() as session:
            sessions.end(session, cookie)
        service.labelers.forget()
    response.delete_cookie(security.LABELER_COOKIE)


@router.get("/me")
def read_me(labeler: CurrentLabeler, service: Service) -> Me:
    """Say who is asking."""
    with service.database.read() as session:
        return me(session, labeler)


@router.patch("/me")
def rename_me(body: Rename, labeler: CurrentLabeler, service: Service) -> Me:
    """Take another name. Only before the first answer: the sums of frozen sets hold the names."""
    with service.database.write() as session:
        answered = select(Preference.id).where(Preference.labeler_id == labeler.id).limit(1)
        if body.name != labeler.name and session.scalar(answered) is not None:
            raise Problem(409, "named", f"your answers are already filed under {labeler.name}")
        if session.scalar(select(Labeler.id).where(Labeler.name == body.name, Labeler.id != labeler.id)):
            raise Problem(409, "taken", f"somebody here is called {body.name} already; take another name")
        session.execute(update(Labeler).where(Labeler.id == labeler.id).values(name=body.name))
        renamed = me(session, session.get_one(Labeler, labeler.id, populate_existing=True))
    service.labelers.forget()
    return renamed


def add_person(session: Session, name: str) -> Labeler:
    """Add a person who comes in by a session alone: their token is nobody's."""
    return _new_labeler(session, NewLabeler(name=name, kind="person"), security.new_token())


def _new_labeler(session: Session, body: NewLabeler, token: str) -> Labeler:
    name, tried = body.name or friendly_name(), 0
    while (known := session.scalar(select(Labeler).where(Labeler.name == name))) is not None:
        if body.name is None:
            tried += 1
            name = friendly_name(tried)
        elif body.kind == known.kind == "teacher" and known.imported_from is None:
            known.token_sha256 = security.token_sha256(token)
            return known
        else:
            raise Problem(409, "taken", f"somebody here is called {name} already; take another name")
    labeler = Labeler(name=name, kind=body.kind, token_sha256=security.token_sha256(token))
    labeler.created_at = now(session)
    session.add(labeler)
    session.flush()
    return labeler


def me(session: Session, labeler: Labeler) -> Me:
    """Return a labeler as they see themselves."""
    standing = (Preference.labeler_id == labeler.id) & Preference.withdrawn_at.is_(None)
    given = session.scalars(select(func.count()).select_from(Preference).where(standing)).one()
    given += asides.repeats_answered(session, labeler)  # or the count would tell which they were
    return Me(id=labeler.id, name=labeler.name, kind=labeler.kind, labels=given)
