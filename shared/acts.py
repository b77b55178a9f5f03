"""The rows of what the admin did, in whichever way it was asked for."""

from typing import Any

from sqlalchemy.orm import Session

from shared.database import Database, now
from shared.models import AdminAction

ACTOR = "admin"
COMMAND_LINE = "the command line"  # stands where a browser's or program's address stands


def note(session: Session, address: str, action: str, about: str | None = None, **detail: Any) -> None:
    """Add the row of an act; a `detail` that is None or empty is left out."""
    said = {name: value for name, value in detail.items() if value not in (None, "")}
    row = AdminAction(at=now(session), actor=ACTOR, address=address, action=action)
    row.about, row.detail = about and about[:120], said or None
    session.add(row)


def check_noting(database: Database) -> None:
    """Raise what the database would say to a row here, so that it is known before any work is done."""
    with database.write() as session:
        note(session, COMMAND_LINE, "exported")
        session.flush()
        session.rollback()
