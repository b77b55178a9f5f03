"""Long lists come in pages, everywhere in the same way.

`limit` says how many; `after` (lists that rise) or `before` (the newest first) what the page before ended
with. Nobody needs to work that out: as long as there is more, the header `Link` (RFC 8288) has the address of
the next page, `<…>; rel="next"`.
"""

from collections.abc import Sequence
from typing import Annotated, TypeVar

from fastapi import Query, Request, Response

from services.labeler.schemas import MAX_ID

Row = TypeVar("Row")

Limit = Annotated[int, Query(ge=1, le=1000, description="how many, at most")]
Before = Annotated[int | None, Query(ge=0, le=MAX_ID, description="the next page's: take it from Link")]
After = Annotated[int, Query(ge=0, le=MAX_ID, description="the id of the last one seen")]
AfterName = Annotated[
    str, Query(max_length=120, pattern=r"^[^\x00-\x1f]*$", description="the name of the last one seen")
]


def cut(rows: Sequence[Row], limit: int | None) -> tuple[list[Row], bool]:
    """Return a page of `rows`, of which one more than `limit` was asked for, and whether there are more."""
    return list(rows[:limit]), limit is not None and len(rows) > limit


def link_next(request: Request, response: Response, **cursor: object) -> None:
    """Say where the next page is: this one's address, with another cursor."""
    url = request.url.include_query_params(**cursor)
    response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'
