"""Invitations: how people come in where other machines can reach the server.

The admin makes one and hands its link on; whoever opens it first gives a name and is a labeler, logged in on
that browser. The token stands behind the # of the link, which browsers keep to themselves: it is in no log.
"""

import logging
from datetime import datetime, timedelta

from fastapi import APIRouter, Request, Response
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from services.labeler import answers, audit, limits, security, sessions
from services.labeler.context import Context, PathId, RequireAdmin, Service
from services.labeler.labelers import add_person, me
from services.labeler.paging import AfterName, Before, Limit, cut, link_next
from services.labeler.problems import Problem
from services.labeler.report_schemas import Ended
from services.labeler.schemas import (
    Invited,
    InvitedNow,
    LabelerSeen,
    Me,
    NewInvitation,
    Redeem,
    Token,
    Welcome,
)
from shared.database import now
from shared.models import BrowserSession, Invitation, Labeler, Preference

router = APIRouter(prefix="/api/invitations", tags=["labelers"])
admin_router = APIRouter(prefix="/api/admin", tags=["admin"], dependencies=[RequireAdmin])

log = logging.getLogger(__name__)

ACTOR = audit.ACTOR
SHUT = {
    "used": "this invitation was used already: it lets one person in once. Ask for another one",
    "revoked": "this invitation was taken back. Ask for another one",
    "expired": "this invitation has run out. Ask for another one",
}


@router.post("/look")
def look(body: Token, request: Request, service: Service) -> Welcome:
    """Say whom an invitation is for, without using it."""
    limits.check(service.database, "invitation", request)
    with service.database.read() as session:
        found = _find(session, body.token)
        if found is not None:
            _refuse_shut(found, now(session))
            known = session.get(Labeler, found.labeler_id) if found.labeler_id else None
            return Welcome(name=known.name if known else found.name, returning=known is not None)
    raise _unknown(request, service)


@router.post("/redeem")
def redeem(body: Redeem, request: Request, response: Response, service: Service) -> Me:
    """Use an invitation, once: become a labeler of this name, or the one it is for, and log in."""
    limits.check(service.database, "invitation", request)
    with service.database.write() as session:
        found = _find(session, body.token)
        if found is not None:
            labeler, cookie = _let_in(session, found, body.name)
            answer = me(session, labeler)
    if found is None:
        raise _unknown(request, service)
    sessions.set_cookie(request, response, security.LABELER_COOKIE, cookie)
    log.info("invitation %s let %s in, from %s", found.id, answer.name, limits.address(request))
    return answer


@admin_router.post("/invitations", status_code=201)
def invite(body: NewInvitation, request: Request, service: Service) -> InvitedNow:
    """Make an invitation; its link is shown this once. For a labeler's id, it lets that labeler in again."""
    token = security.new_token()
    with service.database.write() as session:
        moment = now(session)
        if body.labeler is not None:
            _check_person(session, body.labeler)
        elif body.name is not None and session.scalar(select(Labeler.id).where(Labeler.name == body.name)):
            detail = f"somebody here is called {body.name} already: invite them again by their id, or take "
            raise Problem(409, "taken", detail + "another name")
        one = Invitation(
            token_sha256=security.token_sha256(token),
            name=body.name,
            labeler_id=body.labeler,
            made_by=ACTOR,
            created_at=moment,
            expires_at=moment + timedelta(days=body.days),
        )
        session.add(one)
        session.flush()
        seen = _seen(one, _name(session, one), moment)
        audit.note(
            session, request, "invited", seen.name or "whoever comes", invitation=one.id, days=body.days
        )
    return InvitedNow(**seen.model_dump(), link=f"{_site(request, service)}/join#{token}")


@admin_router.get("/invitations")
def read_invitations(
    request: Request, response: Response, service: Service, before: Before = None, limit: Limit = 1000
) -> list[Invited]:
    """List the invitations, the newest first: open, used, expired and revoked ones."""
    found, more = cut(list_invitations(service, before, limit + 1), limit)
    if more:
        link_next(request, response, before=found[-1].id)
    return found


def list_invitations(service: Context, before: int | None = None, limit: int = 1000) -> list[Invited]:
    """Return the newest invitations, or the newest of those before one's id."""
    with service.database.read() as session:
        moment = now(session)
        query = select(Invitation, Labeler.name).outerjoin(Labeler).order_by(Invitation.id.desc())
        if before is not None:
            query = query.where(Invitation.id < before)
        return [_seen(one, name or one.name, moment) for one, name in session.execute(query.limit(limit))]


@admin_router.delete("/invitations/{invitation_id}", status_code=204)
def revoke(invitation_id: PathId, request: Request, service: Service) -> None:
    """Take an invitation back that nobody has used."""
    with service.database.write() as session:
        one = session.get(Invitation, invitation_id)
        if one is None:
            raise Problem(404, "unknown", f"there is no invitation {invitation_id}")
        unused = (Invitation.id == one.id) & Invitation.used_at.is_(None) & Invitation.revoked_at.is_(None)
        changed = session.execute(
            update(Invitation).where(unused).values(revoked_at=now(session)).returning(Invitation.id)
        )
        session.refresh(one)
        took = changed.first() is not None
        if not took and one.revoked_at is None:
            raise Problem(409, "used", "that invitation was used already: end the labeler's sessions instead")
        if took:
            about = _name(session, one) or "whoever comes"
            audit.note(session, request, "revoked_invitation", about, invitation=one.id)


@admin_router.get("/labelers")
def read_labelers(
    request: Request, response: Response, service: Service, after: AfterName = "", limit: Limit = 1000
) -> list[LabelerSeen]:
    """List everybody who labels here, by name, with their answers and the browsers they are logged in on."""
    found, more = cut(list_labelers(service, after, limit + 1), limit)
    if more:
        link_next(request, response, after=found[-1].name)
    return found


def list_labelers(service: Context, after: str = "", limit: int | None = None) -> list[LabelerSeen]:
    """Return who labels here and comes after a name."""
    given = (
        select(func.count()).where(Preference.labeler_id == Labeler.id, Preference.withdrawn_at.is_(None))
    ).scalar_subquery()
    with service.database.read() as session:
        live = BrowserSession.labeler_id == Labeler.id, BrowserSession.expires_at > now(session)
        browsers = select(func.count()).where(*live).scalar_subquery()
        used = select(func.max(BrowserSession.used_at)).where(*live).scalar_subquery()
        here = select(Labeler, given, browsers, used).where(Labeler.imported_from.is_(None))
        here = here.where(Labeler.name > after).order_by(Labeler.name).limit(limit)
        rows = session.execute(here).all()
        twice = answers.repeats_by_labeler(session)
    return [
        LabelerSeen(
            id=one.id,
            name=one.name,
            kind=one.kind,
            labels=labels,
            repeats=twice.get(one.id, (0, 0))[1],
            repeated=twice.get(one.id, (0, 0))[0],
            sessions=count,
            used_at=last,
            created_at=one.created_at,
        )
        for one, labels, count, last in rows
    ]


@admin_router.delete("/labelers/{labeler_id}/sessions", response_model=Ended)
def shut_out(labeler_id: PathId, request: Request, service: Service) -> dict[str, int]:
    """End a labeler's sessions, token and open invitations. Their answers stay; a new invitation helps."""
    with service.database.write() as session:
        labeler = session.get(Labeler, labeler_id)
        if labeler is None:
            raise Problem(404, "unknown", f"there is no labeler {labeler_id}")
        nobodys = security.token_sha256(security.new_token())
        session.execute(update(Labeler).where(Labeler.id == labeler_id).values(token_sha256=nobodys))
        open_ones = (Invitation.labeler_id == labeler_id) & Invitation.used_at.is_(None)
        session.execute(
            update(Invitation)
            .where(open_ones, Invitation.revoked_at.is_(None))
            .values(revoked_at=now(session))
        )
        audit.note(session, request, "ended_sessions", labeler.name)
        ended = sessions.end_all(session, labeler_id)  # last: an invitation may just have been redeemed
    service.labelers.forget()
    log.info("the admin shut labeler %s out: %s sessions ended", labeler_id, ended)
    return {"ended": ended}


def _find(session: Session, token: str) -> Invitation | None:
    return session.scalar(select(Invitation).where(Invitation.token_sha256 == security.token_sha256(token)))


def _unknown(request: Request, service: Context) -> Problem:
    """Count the guess and return what to answer."""
    limits.failed(service.database, "invitation", request)
    return Problem(404, "unknown", "there is no such invitation: was the link copied to its very end?")


def _let_in(session: Session, found: Invitation, name: str | None) -> tuple[Labeler, str]:
    """Mark the invitation as used, unless somebody else was quicker, and begin the session."""
    moment = now(session)
    _refuse_shut(found, moment)
    still_open = (Invitation.id == found.id) & Invitation.used_at.is_(None) & Invitation.revoked_at.is_(None)
    took = session.execute(
        update(Invitation).where(still_open).values(used_at=moment).returning(Invitation.id)
    )
    if took.first() is None:
        session.refresh(found)
        _refuse_shut(found, moment)
    if found.labeler_id is not None:
        labeler = session.get_one(Labeler, found.labeler_id)
    else:
        wanted = name or found.name
        if wanted is None:
            raise Problem(422, "malformed", "say a name: it stands beside your answers")
        labeler = add_person(session, wanted)
        session.execute(update(Invitation).where(Invitation.id == found.id).values(labeler_id=labeler.id))
    return labeler, sessions.log_in_labeler(session, labeler)


def _state(one: Invitation, moment: datetime) -> str:
    if one.used_at is not None:
        return "used"
    if one.revoked_at is not None:
        return "revoked"
    return "open" if moment < one.expires_at else "expired"


def _refuse_shut(one: Invitation, moment: datetime) -> None:
    state = _state(one, moment)
    if state != "open":
        raise Problem(410, state, SHUT[state])


def _check_person(session: Session, labeler_id: int) -> None:
    labeler = session.get(Labeler, labeler_id)
    if labeler is None:
        raise Problem(404, "unknown", f"there is no labeler {labeler_id}")
    if labeler.kind != "person":
        raise Problem(409, "no_person", f"{labeler.name} is a {labeler.kind}: it comes in by its own token")
    if labeler.imported_from is not None:
        raise Problem(409, "no_person", f"{labeler.name} labeled elsewhere: only their labels are here")


def _name(session: Session, one: Invitation) -> str | None:
    return session.get_one(Labeler, one.labeler_id).name if one.labeler_id else one.name


def _seen(one: Invitation, name: str | None, moment: datetime) -> Invited:
    return Invited(
        id=one.id,
        name=name,
        labeler=one.labeler_id,
        state=_state(one, moment),
        made_by=one.made_by,
        created_at=one.created_at,
        expires_at=one.expires_at,
        used_at=one.used_at,
        revoked_at=one.revoked_at,
    )


def _site(request: Request, service: Context) -> str:
    """Return the address under which people reach this server, as far as it is known."""
    told = service.settings.public_url or request.headers.get("origin") or str(request.base_url)
    return told.rstrip("/")
