"""Experiments out and labels in, through the admin API: an export as one archive, and the way back."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from services import known_environments
from services.labeler import audit, report, spool
from services.labeler.context import Context, ExperimentName, RequireAdmin, Service, get_experiment
from services.labeler.problems import Problem
from services.labeler.report_schemas import ExperimentReport
from shared import archive, config, dataset, export, reuse, rounds
from shared.config import NAME_PATTERN
from shared.models import Experiment

router = APIRouter(prefix="/api/admin", tags=["admin"], dependencies=[RequireAdmin])

log = logging.getLogger(__name__)

ZIP = "application/zip"
CHUNK = 1 << 18
Form = Annotated[
    Literal["dataset", "files"], Query(description="dataset: with Parquet tables and a data card too")
]
Licence = Annotated[
    str,
    Query(pattern=dataset.LICENCE.pattern, description="what the data card says the data may be used for"),
]
Changes = Annotated[
    list[Annotated[str, Query(pattern=r"^[^\x00-\x08]{1,10000}$")]],
    Query(alias="set", max_length=200, description="a change of its configuration: agent.gamma=0.9"),
]
NewName = Annotated[str, Query(pattern=NAME_PATTERN, description="what the new experiment is called")]


@router.get("/experiments/{name}/export", response_class=StreamingResponse)
def export_experiment(
    name: ExperimentName,
    request: Request,
    service: Service,
    form: Form = "dataset",
    licence: Licence = "other",
) -> StreamingResponse:
    """Send an experiment as a zip archive of the folder that `lockstep export` writes.

    It is made on the server's disk first, so that whatever goes wrong is told before anything is sent.
    """
    if licence != "other" and form != "dataset":
        raise Problem(422, "no_export", "a licence stands in the data card, which only a data set has")
    with _alone(service), spool.room(service.settings) as place:
        file = tempfile.TemporaryFile(dir=place)  # noqa: SIM115 (it is closed once it is sent)
        try:
            _pack(name, service, place, file, form, licence)
            with service.database.write() as session:
                audit.note(session, request, "exported", name, form=form, licence=licence)
        except BaseException:
            file.close()
            raise
    size = file.tell()
    headers = {
        "Content-Disposition": f'attachment; filename="{name}.zip"',
        "Content-Length": str(size),
    }
    log.info("%s is exported: %s bytes", name, size)
    return StreamingResponse(_chunks(file), media_type=ZIP, headers=headers)


def _pack(name: str, service: Context, place: Path, file: IO[bytes], form: str, licence: str) -> None:
    with service.database.read(snapshot=True) as session:
        count, size = export.measure(session, get_experiment(session, name))
        if not count:
            raise Problem(409, "nothing", f"{name} has no clip yet: there is nothing to export")
        spool.check_room(place, size)
        try:
            add = dataset.adder(licence) if form == "dataset" else export.nothing_more
            written = export.export(session, service.store, name, place / name, add=add)
        except export.ExportError as error:
            raise Problem(409, "no_export", str(error)) from None
    archive.pack(written, name, file)


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        file.seek(0)
        while chunk := file.read(CHUNK):
            yield chunk


@contextmanager
def _alone(service: Context) -> Iterator[None]:
    """Work alone: two at once would need twice the room, and threads that labelers wait for."""
    if not service.moving.acquire(blocking=False):
        detail = "another export or import is under way: try again when it is done"
        raise Problem(503, "busy", detail, {"Retry-After": "10"})
    try:
        yield
    finally:
        service.moving.release()


@router.post(
    "/import",
    status_code=201,
    response_model=ExperimentReport,
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "the archive of an export",
            "content": {ZIP: {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def import_labels(
    request: Request,
    service: Service,
    name: NewName,
    changes: Changes = [],  # noqa: B006 (FastAPI copies it)
) -> dict[str, Any]:
    """Create an experiment that begins with the labels of an export, which is the body.

    It is configured as the one exported, apart from its name and what `set` changes. All of the archive is
    checked before anything is stored.
    """
    with spool.full_is_told():
        place = await run_in_threadpool(spool.folder, service.settings)
        with tempfile.TemporaryFile(dir=place) as file:
            await _receive(request, file, place, service.settings.import_mib << 20)
            return await run_in_threadpool(_create, request, service, file, name, changes)


async def _receive(request: Request, file: IO[bytes], place: Path, most: int) -> None:
    """Write the body to the disk as it comes."""
    spool.check_room(place, int(request.headers.get("content-length", "0")))
    try:
        async for chunk in request.stream():
            await run_in_threadpool(file.write, chunk)
    except ClientDisconnect:  # the shield hangs up on a body that said no length and grows too long
        raise Problem(413, "too_large", f"the archive broke off, or has more than {most >> 20} MiB") from None


def _create(
    request: Request, service: Context, file: IO[bytes], name: str, changes: list[str]
) -> dict[str, Any]:
    with _alone(service), spool.room(service.settings) as place:
        try:
            archive.unpack(file, place, service.settings.import_mib << 20, partial(spool.check_room, place))
            changed = config.changed(reuse.config_of(place), config.parse_overrides(changes))
            wanted = config.parse({**changed, "name": name})
            known_environments.check(wanted)
            _refuse_if_taken(service, name)
            with (
                reuse.from_folder(place, wanted, service.store) as past,
                service.database.write() as session,
            ):
                origin = f"an import of {past.source}"
                experiment, hints = rounds.create_experiment(session, wanted, audit.ACTOR, origin, past)
                what = {
                    "labels_of": past.source,
                    "answers": len(past.answers),
                    "changes": ", ".join(changes)[:500],
                }
                audit.note(session, request, "imported", name, **what)
                answer = report.report(session, experiment)
        except reuse.ReuseError as error:  # of the files' places here nobody needs to know
            raise reuse.ReuseError(str(error).replace(f"{place}/", "")) from None
    service.broker.send(hints)
    log.info("%s begins with %s answers given in %s", name, len(past.answers), past.source)
    return answer


def _refuse_if_taken(service: Context, name: str) -> None:
    """Say so before the clips are stored; whoever takes the name from now on is found later."""
    with service.database.read() as session:
        if session.scalar(select(Experiment.id).where(Experiment.name == name)):
            raise Problem(
                409, "stale_state", f"there is an experiment named {name} already; take another name"
            )
