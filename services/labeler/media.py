"""Clips and videos, streamed from the store: byte ranges, entity tags, caching."""

import re
from collections.abc import Iterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import select

from services.labeler.context import (
    Context,
    CurrentLabeler,
    ExperimentName,
    PathId,
    RequireVisitor,
    Service,
    get_experiment,
)
from services.labeler.problems import Problem
from services.labeler.status import keep_unswayed
from shared.jobs import Artifact
from shared.models import Clip, Round, StoredArtifact
from shared.rounds import current_round
from shared.storage import DamagedArtifact, Store

router = APIRouter(prefix="/api", tags=["media"])

WHOLE = 4 << 20  # bytes: a file up to this size is read whole, and its sum checked, before any of it is sent
FOR_GOOD = "private, max-age=31536000, immutable"
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@router.get("/clips/{clip_id}.mp4", response_class=Response)
def read_clip(clip_id: PathId, request: Request, service: Service, _labeler: CurrentLabeler) -> Response:
    """Send a clip as people see it."""
    return send_clip(clip_id, request, service)


def send_clip(clip_id: int, request: Request, service: Context) -> Response:
    """Send a clip to somebody who may see it; a problem 404 if there is none."""
    with service.database.read() as session:
        clip = session.get(Clip, clip_id)
    if clip is None:
        raise Problem(404, "unknown", "there is no such clip")
    return send(request, service.store, Artifact("clip_mp4", clip.mp4_key, clip.mp4_sha256, clip.mp4_size))


@router.get(
    "/experiments/{name}/rounds/{number}/video.mp4", response_class=Response, dependencies=[RequireVisitor]
)
def read_video(name: ExperimentName, number: PathId, request: Request, service: Service) -> Response:
    """Send the video of a round's agent: between two batches, and to the admin at any time."""
    with service.database.read() as session:
        experiment = get_experiment(session, name)
        now = current_round(session, experiment.id).state
    keep_unswayed(request, service, experiment.state, now)
    return send_video(name, number, request, service)


def send_video(name: str, number: int, request: Request, service: Context) -> Response:
    """Send a round's video to somebody who may see it; a problem 404 if there is none."""
    with service.database.read() as session:
        query = select(StoredArtifact).join(Round).where(Round.number == number)
        query = query.where(Round.experiment_id == get_experiment(session, name).id)
        video = session.scalar(query.where(StoredArtifact.kind == "video"))
    if video is None:
        raise Problem(404, "unknown", f"round {number} of {name} has no video yet")
    return send(request, service.store, Artifact("video", video.key, video.sha256, video.size))


def send(request: Request, store: Store, artifact: Artifact) -> Response:
    """Return a stored file, or the range of it that was asked for; StoreError if it is missing or damaged."""
    tag = f'"{artifact.sha256}"'
    named = request.query_params.get("v", "") == artifact.sha256[:16]
    headers = {
        "ETag": tag,
        "Cache-Control": FOR_GOOD if named else "private, no-cache",
        "Accept-Ranges": "bytes",
    }
    known = [one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(",")]
    if tag in known or "*" in known:
        return Response(status_code=304, headers=headers)
    wanted = request.headers.get("range", "")
    if request.headers.get("if-range", tag) != tag:
        wanted = ""
    part = byte_range(wanted, artifact.size)
    start, end = part or (0, artifact.size)
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.size}"
    headers["Content-Length"] = str(end - start)
    body = _read(store, artifact, start, end)
    return StreamingResponse(body, 206 if part else 200, headers, "video/mp4")


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """Return (start, end) of a Range header, end not included; None: send all; a problem 416 if beyond.

    Several ranges at once, which no player asks for, are answered with everything, as the standard allows.
    """
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match[1], match[2]
    if first:
        start, end = int(first), min(int(last) + 1, size) if last else size
    else:
        start, end = max(size - int(last), 0), size
    if first and last and int(last) < int(first):
        return None  # not a range at all: to be ignored
    if start >= end:
        detail = f"the file has {size} bytes"
        raise Problem(416, "no_such_range", detail, {"Content-Range": f"bytes */{size}"})
    return start, end


def _read(store: Store, artifact: Artifact, start: int, end: int) -> Iterator[bytes]:
    if artifact.size <= WHOLE:
        return iter([store.get(artifact.key, artifact.sha256)[start:end]])
    size = store.size(artifact.key)
    if size != artifact.size:
        raise DamagedArtifact(f"{artifact.key} is damaged: it has {size} bytes, not {artifact.size}")
    return store.open_range(artifact.key, start, end)
