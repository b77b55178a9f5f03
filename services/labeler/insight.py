"""What the admin page looks into: charts, the comparisons of a round with their answers, their clips."""

import json
from dataclasses import asdict
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from services.labeler import charts, figures, learning_charts, media
from services.labeler.answers import Answer
from services.labeler.context import (
    Context,
    ExperimentName,
    PathId,
    RequireAdmin,
    RoundNumber,
    Service,
    Told,
    get_experiment,
)
from services.labeler.paging import link_next
from services.labeler.problems import Problem
from services.labeler.schemas import ChartView, ComparisonPage
from shared.jobs import Artifact
from shared.models import Clip, Comparison, Labeler, Preference, Round, StoredArtifact
from shared.storage import StoreError

router = APIRouter(prefix="/api/admin", tags=["admin"], dependencies=[RequireAdmin])

After = Annotated[int, Query(ge=0, le=10**6, description="the number of the last one seen")]
Limit = Annotated[int, Query(ge=1, le=100, description="how many, at most")]


@router.get("/experiments/{name}/charts")
def read_charts(name: ExperimentName, service: Service) -> list[ChartView]:
    """Return every chart: its table, sentences about it, a warning if there is one, and Plotly's figure."""
    with service.database.read() as session:
        experiment = get_experiment(session, name)
        found = charts.charts(session, experiment, _held_out(service, session, experiment.id))
    return [ChartView(figure=figures.figure(one), **asdict(one)) for one in found]


@router.get("/experiments/{name}/rounds/{number}/comparisons")
def page_of_comparisons(
    name: ExperimentName,
    number: RoundNumber,
    request: Request,
    response: Response,
    service: Service,
    after: After = 0,
    limit: Limit = 20,
) -> ComparisonPage:
    """Return the comparisons of a round after number `after`: clips, answers, and what the reward model says.

    The predictions are of the model trained in this round: on these answers too, unless held out.
    """
    found = read_comparisons(name, number, service, after, limit)
    if found.next_after is not None:
        link_next(request, response, after=found.next_after)
    return found


def read_comparisons(name: str, number: int, service: Context, after: int, limit: int) -> ComparisonPage:
    """Return `limit` comparisons of a round after number `after`."""
    with service.database.read() as session:
        query = select(Round).where(Round.experiment_id == get_experiment(session, name).id)
        round_ = session.scalar(query.where(Round.number == number))
        if round_ is None:
            raise Problem(404, "unknown", f"{name} has no round {number}")
        told = _predictions(service, session, round_.id)
        wanted = select(Comparison).where(Comparison.round_id == round_.id).order_by(Comparison.number)
        some = list(session.scalars(wanted.where(Comparison.number > after).limit(limit + 1)))
        page = [_comparison(session, one, number, told) for one in some[:limit]]
        total = len(session.scalars(select(Comparison.id).where(Comparison.round_id == round_.id)).all())
    following = some[limit - 1].number if len(some) > limit else None
    return ComparisonPage.model_validate({"total": total, "next_after": following, "comparisons": page})


@router.get("/clips/{clip_id}.mp4", response_class=Response)
def read_clip(clip_id: PathId, request: Request, service: Service) -> Response:
    """Send a clip as people see it, to an admin, who need not be a labeler."""
    return media.send_clip(clip_id, request, service)


@router.get("/experiments/{name}/rounds/{number}/video.mp4", response_class=Response)
def read_video(name: ExperimentName, number: PathId, request: Request, service: Service) -> Response:
    """Send the video of a round's agent to an admin."""
    return media.send_video(name, number, request, service)


@router.get("/plotly.min.js", response_class=Response)
def read_plotly() -> Response:
    """Send the script of the installed Plotly, which draws the figures."""
    headers = {"Cache-Control": "private, max-age=86400"}
    return FileResponse(figures.script(), media_type="text/javascript", headers=headers)


def _comparison(
    session: Session, comparison: Comparison, number: int, told: dict[tuple[str, ...], dict[str, Any]]
) -> dict[str, Any]:
    found = {one.id: one for one in session.scalars(select(Clip).where(Clip.id.in_(comparison.clip_ids)))}
    clips = [found[clip_id] for clip_id in comparison.clip_ids]
    prediction = told.get(tuple(clip.npz_sha256 for clip in clips))
    query = select(Preference, Labeler.name, Labeler.kind).join(Labeler)
    query = query.where(Preference.comparison_id == comparison.id).order_by(Preference.answered_at)
    return {
        "id": comparison.id,
        "number": comparison.number,
        "held_out": comparison.held_out,
        "labels_given": comparison.labels_given,
        "labels_wanted": comparison.labels_wanted,
        "clips": [
            {
                "id": clip.id,
                "url": f"/api/admin/clips/{clip.id}.mp4?v={clip.mp4_sha256[:16]}",
                "steps": clip.steps,
                "fps": clip.fps,
                "best": prediction["best"][place] if prediction else None,
                "rewards": prediction["rewards"][place] if prediction else None,
            }
            for place, clip in enumerate(clips)
        ],
        "answers": [_answer(one, number, labeler, kind) for one, labeler, kind in session.execute(query)],
    }


def _answer(one: Preference, number: int, labeler: str, kind: str) -> dict[str, Any]:
    at = one.answered_at
    said = Answer(one.comparison_id, number, labeler, one.ranks, one.shown, one.seconds, at).said
    return {
        "labeler": labeler,
        "kind": kind,
        "ranks": one.ranks,
        "shown": one.shown,
        "said": said,
        "seconds": one.seconds,
        "answered_at": at,
        "withdrawn_at": one.withdrawn_at,
    }


def _held_out(service: Context, session: Session, experiment_id: int) -> dict[int, Told]:
    """Return, by round id, what the newest rounds' reward models say of their held-out comparisons."""
    query = select(StoredArtifact).join(Round, StoredArtifact.round_id == Round.id)
    query = query.where(Round.experiment_id == experiment_id, StoredArtifact.kind == "predictions")
    rows = session.scalars(query.order_by(Round.number.desc()).limit(learning_charts.CURVE_ROUNDS))

    def look_up(row: StoredArtifact) -> Told:
        try:
            told = json.loads(service.store.get(row.key, row.sha256))["comparisons"]
        except StoreError:  # the other charts are worth showing without it
            return {}
        return {tuple(one["clips"]): one["best"] for one in told if one["held_out"]}

    return {row.round_id: service.held_out.find(row.sha256, partial(look_up, row)) for row in rows}


def _predictions(service: Context, session: Session, round_id: int) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return what the round's reward model says, by the sums of a comparison's clips, once it is there."""
    query = select(StoredArtifact).where(StoredArtifact.round_id == round_id)
    row = session.scalar(query.where(StoredArtifact.kind == "predictions"))
    if row is None:
        return {}
    artifact = Artifact(row.kind, row.key, row.sha256, row.size)
    try:
        told = json.loads(service.store.get(artifact.key, artifact.sha256))
    except StoreError:  # the answers are worth showing without it
        return {}
    return {tuple(one["clips"]): one for one in told["comparisons"]}
