"""What operators do: create, look, pause, resume, finish, abandon, retry."""

import logging
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from sqlalchemy.orm import Session

from services import known_environments
from services.labeler import audit, limits, overview, report, security, sessions
from services.labeler.context import Context, ExperimentName, RequireAdmin, Service, get_experiment
from services.labeler.paging import After, Before, Limit, cut, link_next
from services.labeler.problems import Problem
from services.labeler.report_schemas import EventRow, ExperimentReport, ExperimentRow
from services.labeler.schemas import NewExperiment, Reason, Reusable, Token
from shared import config, reuse, rounds
from shared.transitions import Hint

router = APIRouter(prefix="/api/admin", tags=["admin"], dependencies=[RequireAdmin])
session_router = APIRouter(prefix="/api/admin", tags=["admin"])

log = logging.getLogger(__name__)

ACTOR = audit.ACTOR
DONE = {
    "pause": "paused", "resume": "resumed", "finish": "finished", "abandon": "abandoned", "retry": "retried",
}  # fmt: skip


@session_router.post("/session", status_code=204)
def log_in(body: Token, request: Request, response: Response, service: Service) -> None:
    """Log a browser in with the admin token: it gets a cookie for the admin pages."""
    limits.check(service.database, "admin", request)
    if not security.same(body.token, service.secrets.admin_token):
        limits.failed(service.database, "admin", request)
        raise Problem(401, "no_admin", "that is not the admin token")
    with service.database.write() as session:
        audit.note(session, request, "logged_in")
    give_cookie(request, response, service)
    log.info("the admin logged in from %s", limits.address(request))


def give_cookie(request: Request, response: Response, service: Context) -> None:
    """Begin a session of the admin and set its cookie."""
    with service.database.write() as session:
        cookie = sessions.log_in_admin(session, service.secrets.admin_token)
    sessions.set_cookie(request, response, security.ADMIN_COOKIE, cookie)


@session_router.delete("/session", status_code=204)
def log_out(request: Request, response: Response, service: Service) -> None:
    """Log this browser's admin out."""
    cookie = request.cookies.get(security.ADMIN_COOKIE)
    if cookie:
        with service.database.write() as session:
            sessions.end(session, cookie)
    response.delete_cookie(security.ADMIN_COOKIE)


@router.get("/experiments", response_model=list[ExperimentRow])
def list_experiments(
    request: Request, response: Response, service: Service, before: Before = None, limit: Limit = 1000
) -> list[dict[str, Any]]:
    """List the experiments, the newest first, with where each stands or how it ended."""
    with service.database.read() as session:
        found, more = cut(overview.rows(session, limit + 1, before), limit)
    if more:
        link_next(request, response, before=found[-1]["id"])
    return found


@router.post("/experiments", status_code=201, response_model=ExperimentReport)
def create(body: NewExperiment, request: Request, service: Service) -> dict[str, Any]:
    """Create an experiment and begin its first round."""
    parsed = config.parse(body.config)
    known_environments.check(parsed)
    with service.database.write() as session:
        past = None
        if body.labels_from is not None:
            past = _past(session, body.labels_from, parsed)
        experiment, hints = rounds.create_experiment(session, parsed, ACTOR, body.origin, past)
        what = {"origin": body.origin, "labels_from": body.labels_from}
        audit.note(session, request, "created", experiment.name, **what)
        answer = report.report(session, experiment)
    service.broker.send(hints)
    return answer


def _past(session: Session, name: str, parsed: config.ExperimentConfig) -> reuse.Past:
    """Return the labels to begin with; what is wrong with them is said of that field."""
    try:
        return reuse.from_experiment(session, get_experiment(session, name), parsed)
    except reuse.ReuseError as error:
        raise config.ConfigError(str(error), {"labels_from": str(error)}) from None


@router.get("/reusable")
def list_reusable(service: Service) -> list[Reusable]:
    """List the experiments whose labels another can begin with, and what must be the same in that one."""
    with service.database.read() as session:
        return [Reusable(**vars(one)) for one in reuse.sources(session)]


@router.get("/presets")
def list_presets() -> dict[str, dict[str, Any]]:
    """Return the ready-made configurations by name."""
    return {name: one.model_dump(mode="json") for name, one in config.presets().items()}


@router.get("/experiments/{name}", response_model=ExperimentReport)
def read(
    name: ExperimentName,
    request: Request,
    response: Response,
    service: Service,
    before: Before = None,
    limit: Limit = 1000,
) -> dict[str, Any]:
    """Return all that is known of an experiment: its last `limit` rounds, or those below number `before`."""
    with service.database.read() as session:
        told = report.report(session, get_experiment(session, name), before, limit + 1)
    if len(told["rounds"]) > limit:
        del told["rounds"][0]
        link_next(request, response, before=told["rounds"][0]["number"])
    return told


@router.get("/experiments/{name}/events", response_model=list[EventRow])
def read_events(
    name: ExperimentName,
    request: Request,
    response: Response,
    service: Service,
    after: After = 0,
    limit: Limit = 1000,
) -> list[dict[str, Any]]:
    """Return what changed after event `after`, the oldest first; the last one's id is the next `after`."""
    with service.database.read() as session:
        found = report.events(session, get_experiment(session, name), after, limit + 1)
    found, more = cut(found, limit)
    if more:
        link_next(request, response, after=found[-1]["id"])
    return found


@router.get("/experiments/{name}/history", response_model=list[EventRow])
def read_history(
    name: ExperimentName,
    request: Request,
    response: Response,
    service: Service,
    before: Before = None,
    limit: Limit = 100,
) -> list[dict[str, Any]]:
    """List what was done to the experiment itself, and its retries, the newest first."""
    with service.database.read() as session:
        found, more = cut(report.history(session, get_experiment(session, name), limit + 1, before), limit)
    if more:
        link_next(request, response, before=found[-1]["id"])
    return found


@router.post("/experiments/{name}/{action}", response_model=ExperimentReport)
def act(
    name: ExperimentName,
    action: Literal["pause", "resume", "finish", "abandon", "retry"],
    request: Request,
    service: Service,
    body: Reason | None = None,
) -> dict[str, Any]:
    """Pause, resume, finish or abandon an experiment, or retry its failed round."""
    reason = (body or Reason()).reason
    hints: list[Hint] = []
    with service.database.write() as session:
        experiment = get_experiment(session, name)
        if action == "pause":
            rounds.pause(session, experiment.id, ACTOR)
        elif action == "resume":
            hints = rounds.resume(session, experiment.id, ACTOR)
        elif action == "finish":
            rounds.finish(session, experiment.id, ACTOR, reason)
        elif action == "abandon":
            rounds.abandon(session, experiment.id, ACTOR, reason)
        else:
            failed = report.failed_round(session, experiment)
            if failed is None:
                raise Problem(409, "stale_state", f"no round of {name} has failed: there is nothing to retry")
            hints = rounds.retry(session, failed.id, ACTOR)
        ended = action in ("finish", "abandon")
        audit.note(session, request, DONE[action], name, reason=reason if ended else None)
        answer = report.report(session, experiment)
    service.broker.send(hints)
    return answer
