"""Browsers that are logged in: a random token in a cookie that no script can read, its sum in the database.

A session is a labeler's, or the admin's if it has no labeler. It ends when it is logged out, when the admin
ends it, when nobody used it for a while, and the admin's also when the admin token is changed.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from fastapi import Request, Response
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from services.labeler import security
from shared.database import Database, now
from shared.models import BrowserSession, Labeler

LABELER_LIFE = timedelta(days=90)  # without use
ADMIN_LIFE = timedelta(days=14)
COARSE = timedelta(hours=1)  # use is noted at most so often, so that asking hardly ever writes


def log_in_labeler(session: Session, labeler: Labeler) -> str:
    """Begin a labeler's session and return the token of its cookie."""
    return _begin(session, LABELER_LIFE, labeler_id=labeler.id)


def log_in_admin(session: Session, admin_token: str) -> str:
    """Begin a session of the admin and return the token of its cookie."""
    return _begin(session, ADMIN_LIFE, admin_sha256=security.token_sha256(admin_token))


@dataclass(frozen=True)
class Shown:
    """What somebody shows to say who they are, by its sum: a labeler's own token, or a browser's cookie."""

    kind: Literal["token", "cookie", "admin"]  # the last is the cookie of the admin
    sha256: str


def find_labelers(session: Session, shown: list[Shown], database: Database) -> list[Labeler | None]:
    """Return for each whose it is, None if nobody's: at most two queries by an index."""
    found: dict[Shown, Labeler] = {}
    tokens = [one.sha256 for one in shown if one.kind == "token"]
    if tokens:
        for labeler in session.scalars(select(Labeler).where(Labeler.token_sha256.in_(tokens))):
            found[Shown("token", labeler.token_sha256)] = labeler
    cookies = [one.sha256 for one in shown if one.kind == "cookie"]
    if cookies:
        query = select(Labeler, BrowserSession).join(BrowserSession, BrowserSession.labeler_id == Labeler.id)
        for labeler, browser in session.execute(query.where(BrowserSession.token_sha256.in_(cookies))):
            if _is_good(database, browser, LABELER_LIFE):
                found[Shown("cookie", browser.token_sha256)] = labeler
    return [found.get(one) for one in shown]


def still_good(database: Database, admin_token: str, shown: Collection[Shown]) -> set[Shown]:
    """Return those that still say who somebody is. To ask is no use of a session: it runs out as ever."""
    sums = {kind: [one.sha256 for one in shown if one.kind == kind] for kind in ("token", "cookie", "admin")}
    cookie = select(BrowserSession.token_sha256).where(BrowserSession.expires_at > datetime.now(UTC))
    labelers = cookie.where(BrowserSession.labeler_id.is_not(None))
    admins = cookie.where(BrowserSession.admin_sha256 == security.token_sha256(admin_token))
    queries = {
        "token": select(Labeler.token_sha256).where(Labeler.token_sha256.in_(sums["token"])),
        "cookie": labelers.where(BrowserSession.token_sha256.in_(sums["cookie"])),
        "admin": admins.where(BrowserSession.token_sha256.in_(sums["admin"])),
    }
    with database.read() as session:
        good = {kind: set(session.scalars(query)) for kind, query in queries.items() if sums[kind]}
    return {one for one in shown if one.sha256 in good.get(one.kind, ())}


def is_admin(database: Database, token: str, admin_token: str) -> bool:
    """Return whether this is a session of who knows the admin token as it is now."""
    query = select(BrowserSession).where(
        BrowserSession.token_sha256 == security.token_sha256(token), BrowserSession.labeler_id.is_(None)
    )
    with database.read() as session:
        found = session.scalar(query)
    if found is None or not security.same(found.admin_sha256, security.token_sha256(admin_token)):
        return False
    return _is_good(database, found, ADMIN_LIFE)


def end(session: Session, token: str) -> None:
    """Log one browser out."""
    session.execute(delete(BrowserSession).where(BrowserSession.token_sha256 == security.token_sha256(token)))


def end_all(session: Session, labeler_id: int) -> int:
    """Log a labeler out everywhere; return how many sessions that ended."""
    ended = session.execute(
        delete(BrowserSession).where(BrowserSession.labeler_id == labeler_id).returning(BrowserSession.id)
    )
    return len(ended.all())


def set_cookie(request: Request, response: Response, name: str, value: str) -> None:
    """Set a cookie that no script can read and no other site can send along.

    A web server in between may speak HTTPS where this one hears HTTP; the browser's Origin tells of it.
    """
    secure = request.url.scheme == "https" or request.headers.get("origin", "").startswith("https://")
    response.set_cookie(
        name, value, max_age=security.COOKIE_S, httponly=True, samesite="strict", secure=secure
    )


def _begin(
    session: Session, life: timedelta, labeler_id: int | None = None, admin_sha256: str | None = None
) -> str:
    token, moment = security.new_token(), now(session)
    session.execute(delete(BrowserSession).where(BrowserSession.expires_at < moment))
    session.add(
        BrowserSession(
            token_sha256=security.token_sha256(token),
            labeler_id=labeler_id,
            admin_sha256=admin_sha256,
            created_at=moment,
            used_at=moment,
            expires_at=moment + life,
        )
    )
    session.flush()
    return token


def _is_good(database: Database, one: BrowserSession, life: timedelta) -> bool:
    """Return whether a session is not over, and note its use if that was not done lately."""
    moment = datetime.now(UTC)  # this machine's clock: minutes do not matter to what lasts for weeks
    if one.expires_at <= moment:
        return False
    if one.used_at + COARSE < moment:
        used = {"used_at": moment, "expires_at": moment + life}
        with database.write() as session:
            session.execute(update(BrowserSession).where(BrowserSession.id == one.id).values(used))
    return True
