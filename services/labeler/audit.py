"""What the admin did: a row for each act, written in the act's own transaction, and read on a page."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labeler import limits
from services.labeler.context import RequireAdmin, Service
from services.labeler.paging import Before, Limit, cut, link_next
from services.labeler.schemas import Act
from shared import acts
from shared.models import AdminAction

router = APIRouter(prefix="/api/admin", tags=["admin"], dependencies=[RequireAdmin])

ACTOR = acts.ACTOR
About = Annotated[
    str | None, Query(max_length=120, pattern=r"^[^\x00-\x1f]+$", description="only what was done to this")
]


def note(session: Session, request: Request, action: str, about: str | None = None, **detail: Any) -> None:
    """Add the row of an act; a `detail` that is None or empty is left out."""
    acts.note(session, limits.address(request), action, about, **detail)


@router.get("/actions")
def read_actions(
    request: Request,
    response: Response,
    service: Service,
    before: Before = None,
    limit: Limit = 100,
    about: About = None,
) -> list[Act]:
    """List what the admin did, the newest first."""
    with service.database.read() as session:
        found, more = cut(list_actions(session, limit + 1, before, about), limit)
    if more:
        link_next(request, response, before=found[-1].id)
    return found


def list_actions(
    session: Session, limit: int, before: int | None = None, about: str | None = None
) -> list[Act]:
    """Return the newest acts, of those with an id below `before`, of those done to `about`."""
    query = select(AdminAction).order_by(AdminAction.id.desc()).limit(limit)
    if before is not None:
        query = query.where(AdminAction.id < before)
    if about is not None:
        query = query.where(AdminAction.about == about)
    return [Act.model_validate(one, from_attributes=True) for one in session.scalars(query)]
