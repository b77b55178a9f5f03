"""How often a wrong token may be tried at a door, counted in the database for all labeler services together.

Only failures count, and only who logs in is asked: a session that exists is never looked up here, so no flood
of wrong tokens can shut anybody out who is in. The rows of one door are at most as many as its limits allow.
"""

import ipaddress
import logging
from datetime import datetime, timedelta
from math import ceil
from typing import Literal

from fastapi import Request
from sqlalchemy import delete, select, text
from sqlalchemy.orm import Session

from services.labeler.problems import Problem
from shared.database import Database, now
from shared.models import FailedLogIn

Door = Literal["admin", "teacher", "labeler", "invitation"]

log = logging.getLogger(__name__)

WINDOW = timedelta(minutes=10)
FROM_ONE = 10  # failures from one address at one door in WINDOW
FROM_ALL = 300  # failures from everywhere at one door in WINDOW
LOCK = 0x446F6F72  # of Postgres: failures are counted one after the other


def check(database: Database, door: Door, request: Request) -> None:
    """Raise Problem 429 if too many wrong tokens came lately, before anybody looks at the next one."""
    with database.read() as session:
        _refuse_if_full(session, door, address(request), now(session))


def failed(database: Database, door: Door, request: Request) -> None:
    """Count a wrong token; Problem 429 if others, at the same moment, were one too many."""
    with database.write() as session:
        if not database.is_sqlite:  # where the write lock does the same
            session.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
        moment, client = now(session), address(request)
        session.execute(delete(FailedLogIn).where(FailedLogIn.at < moment - WINDOW))
        _refuse_if_full(session, door, client, moment)
        session.add(FailedLogIn(door=door, address=client, at=moment))
    log.warning("a wrong token at the door of the %s, from %s", door, client)


def address(request: Request) -> str:
    """Return where a request comes from; of IPv6 the network, since one host has all of its addresses."""
    host = request.client.host if request.client else ""
    try:
        parsed = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host[:45]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))


def _refuse_if_full(session: Session, door: Door, client: str, moment: datetime) -> None:
    lately = select(FailedLogIn.at).where(FailedLogIn.door == door, FailedLogIn.at > moment - WINDOW)
    lately = lately.order_by(FailedLogIn.at.desc())
    oldest = session.scalar(lately.where(FailedLogIn.address == client).offset(FROM_ONE - 1).limit(1))
    # At the machine itself the operator gets in whatever was tried from elsewhere.
    if oldest is None and client not in ("127.0.0.1", "::/64"):
        oldest = session.scalar(lately.offset(FROM_ALL - 1).limit(1))
    if oldest is not None:
        wait = max(1, ceil((oldest + WINDOW - moment).total_seconds()))
        detail = f"too many wrong tokens came lately; try again in {ceil(wait / 60)} min"
        raise Problem(429, "too_many", detail, {"Retry-After": str(wait)})
