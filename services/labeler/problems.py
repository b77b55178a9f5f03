"""Errors as problem documents (RFC 9457): what went wrong, and a short `reason` for programs."""

import logging
from collections.abc import Callable
from http import HTTPStatus

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from starlette.exceptions import HTTPException

from shared.config import ConfigError
from shared.labels import LabelError
from shared.storage import DamagedArtifact, MissingArtifact, StoreError, StoreFull
from shared.transitions import StaleState

log = logging.getLogger(__name__)

LABEL_STATUS = {"unknown": 404, "not_yours": 403, "malformed": 422}  # any other reason is a conflict: 409


class Problem(Exception):
    """Raised by an endpoint: becomes the answer."""

    def __init__(self, status: int, reason: str, detail: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status, self.reason, self.detail, self.headers = status, reason, detail, headers


def document(
    status: int,
    reason: str,
    detail: str,
    headers: dict[str, str] | None = None,
    errors: dict[str, str] | None = None,
) -> JSONResponse:
    """Return a problem document as an answer; `errors` says by field what is wrong."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "reason": reason,
        **({"errors": errors} if errors else {}),
    }
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return JSONResponse(body, status, headers, "application/problem+json")


def install(app: FastAPI, as_page: Callable[[Request, int, str], Response | None]) -> None:
    """Turn every exception an endpoint can raise into a problem document, or for a browser into a page."""

    @app.exception_handler(Problem)
    def on_problem(request: Request, error: Problem) -> Response:
        page = as_page(request, error.status, error.detail)
        return page or document(error.status, error.reason, error.detail, error.headers)

    @app.exception_handler(LabelError)
    def on_label_error(_: Request, error: LabelError) -> JSONResponse:
        return document(LABEL_STATUS.get(error.reason, 409), error.reason, str(error))

    @app.exception_handler(StaleState)
    def on_stale_state(_: Request, error: StaleState) -> JSONResponse:
        return document(409, "stale_state", str(error))

    @app.exception_handler(ConfigError)
    def on_config_error(_: Request, error: ConfigError) -> JSONResponse:
        return document(422, "bad_config", str(error), errors=error.errors)

    @app.exception_handler(RequestValidationError)
    def on_invalid(request: Request, error: RequestValidationError) -> Response:
        wrong = [f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}" for one in error.errors()]
        page = as_page(request, 404, "There is no such page.")
        return page or document(422, "malformed", "; ".join(wrong))

    @app.exception_handler(HTTPException)
    def on_http(request: Request, error: HTTPException) -> Response:
        reason = HTTPStatus(error.status_code).name.lower()
        page = as_page(request, error.status_code, str(error.detail))
        return page or document(error.status_code, reason, str(error.detail), dict(error.headers or {}))

    @app.exception_handler(StoreError)
    def on_store_error(_: Request, error: StoreError) -> JSONResponse:
        log.warning("the store: %s", error)
        if isinstance(error, MissingArtifact):
            return document(404, "missing_artifact", str(error))
        if isinstance(error, DamagedArtifact):
            return document(500, "damaged_artifact", str(error))
        if isinstance(error, StoreFull):
            return document(507, "full", str(error))
        return document(503, "store", str(error), {"Retry-After": "5"})

    @app.exception_handler(SQLAlchemyError)
    def on_database_error(_: Request, error: SQLAlchemyError) -> JSONResponse:
        log.error("the database: %s", error)
        if isinstance(error, IntegrityError):
            return document(409, "conflict", "somebody else was quicker; look again and try once more")
        if "is full" in str(error) or "No space left" in str(error):
            return document(
                507, "full", "the disk is full: free some room; nothing was stored, so send it again"
            )
        detail = "the database does not answer; nothing was stored, so send it again in a while"
        return document(503, "database", detail, {"Retry-After": "5"})

    @app.exception_handler(Exception)
    def on_anything(_: Request, error: Exception) -> JSONResponse:
        log.error("an endpoint failed", exc_info=error)
        return document(500, "internal", "the server made a mistake; its log says more")
