"""The pages. They are shells: who labels and where things stand, their scripts ask the API."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from fastapi.templating import Jinja2Templates
from markdown_it import MarkdownIt
from markupsafe import Markup
from sqlalchemy import select
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import Scope

from services.labeler.context import (
    Context,
    ExperimentName,
    Service,
    find_labeler,
    get_experiment,
    is_admin,
)
from services.labeler.status import public_status
from shared.models import Experiment
from shared.states import EXPERIMENT_TABLE

HERE = Path(__file__).parent
router = APIRouter(include_in_schema=False, default_response_class=Response)
templates = Jinja2Templates(HERE / "templates")


def _version() -> str:
    """Return a word that changes with any static file and stands in all their addresses."""
    digest = hashlib.sha256()
    for path in sorted((HERE / "static").iterdir()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


VERSION = _version()
markdown = MarkdownIt("commonmark", {"html": False}).disable("image")
templates.env.globals.update(static=f"/static/{VERSION}")
templates.env.filters["markdown"] = lambda text: Markup(markdown.render(text))
templates.env.trim_blocks = templates.env.lstrip_blocks = True


class Kept(StaticFiles):
    """Static files under an address that names their version, so that browsers need not ask again."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Add the header that says so."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "public, max-age=31536000, immutable"
        return response


def install(app: FastAPI) -> None:
    """Add the pages and their files."""
    app.include_router(router)
    files = GZipMiddleware(Kept(directory=HERE / "static"))  # these alone: clips are small already
    app.mount(f"/static/{VERSION}", files, name="static")


def _may_look(request: Request, service: Context) -> bool:
    return service.open_to_visitors or bool(find_labeler(request, service)) or is_admin(request, service)


def page(request: Request, template: str, **values: Any) -> Response:
    """Return a page, packed if the browser can read that: it is a third of the size."""
    response = templates.TemplateResponse(request, template, values)
    response.headers["Vary"] = "Accept-Encoding"
    if "gzip" in request.headers.get("accept-encoding", ""):
        response.body = gzip.compress(bytes(response.body), compresslevel=6)
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Content-Length"] = str(len(response.body))
    return response


@router.get("/")
def index(request: Request, service: Service) -> Response:
    """List the experiments, or go straight to the only one."""
    if not _may_look(request, service):
        return page(request, "join.html")
    with service.database.read() as session:
        found = list(session.scalars(select(Experiment).order_by(Experiment.id.desc())))
        statuses = [public_status(session, one, service.settings.lease_s) for one in found]
    running = [one for one in statuses if one.state in EXPERIMENT_TABLE]
    if len(statuses) == 1 and running and "all" not in request.query_params:
        return RedirectResponse(f"/label/{running[0].name}", 303)
    may_log_out = not service.open_to_visitors and find_labeler(request, service) is not None
    return page(request, "index.html", experiments=statuses, may_log_out=may_log_out)


@router.get("/join")
def join(request: Request) -> Response:
    """Where the link of an invitation leads: its token stands behind the #, for the page's script alone."""
    return page(request, "invited.html")


@router.get("/label/{name}")
def label(name: ExperimentName, request: Request, service: Service) -> Response:
    """Two clips side by side, or three or four to rank."""
    return _experiment_page(request, service, name, "label.html")


@router.get("/agents/{name}")
def agents(name: ExperimentName, request: Request, service: Service) -> Response:
    """Every round's agent side by side."""
    return _experiment_page(request, service, name, "agents.html")


@router.get("/docs")
def docs(request: Request) -> Response:
    """List the API's endpoints, drawn from its schema."""
    return page(request, "docs.html", schema=request.app.openapi(), base=str(request.base_url).rstrip("/"))


def _experiment_page(request: Request, service: Context, name: str, template: str) -> Response:
    if not _may_look(request, service):
        return page(request, "join.html")
    with service.database.read() as session:
        experiment = get_experiment(session, name)
        status = public_status(session, experiment, service.settings.lease_s)
    return page(
        request,
        template,
        name=name,
        env_id=experiment.config["env_id"],
        instructions=status.instructions,
        lease_s=experiment.config["labels"]["lease_s"],
        practice=experiment.config["labels"].get("practice", 0),
        repeats=experiment.config["labels"].get("repeats", 0),
        clips=experiment.config["labels"].get("clips_per_comparison", 2),  # older ones do not say
        may_log_out=not service.open_to_visitors,
    )


def error_page(request: Request, status: int, detail: str) -> Response | None:
    """Return an error as a page, if a browser asked for one; None for a program."""
    if "text/html" not in request.headers.get("accept", "") or request.url.path.startswith("/api"):
        return None
    return templates.TemplateResponse(request, "error.html", {"status": status, "detail": detail}, status)
