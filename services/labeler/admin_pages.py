"""The operator's pages. What they show comes from the functions behind the admin API, and nowhere else."""

from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup
from sqlalchemy import func, select

from services.labeler import (
    admin,
    answers,
    audit,
    diagram,
    forms,
    insight,
    invitations,
    news,
    overview,
    report,
    timeline,
)
from services.labeler.context import Context, ExperimentName, RoundNumber, Service, get_experiment, is_admin
from services.labeler.pages import page
from services.labeler.paging import AfterName, Before, cut
from services.labeler.problems import Problem
from services.labeler.schemas import SeenComparison
from shared import rounds
from shared.config import NAME_PATTERN
from shared.models import Round
from shared.states import EXPERIMENT_TABLE, ExperimentState

router = APIRouter(include_in_schema=False, default_response_class=Response)

ROUNDS_A_PAGE = 25
ACTIONS_A_PAGE = 100
PEOPLE_A_PAGE = 50  # and as many invitations
SPARK_W, SPARK_H = 200, 40  # of the drawing of a clip's predicted rewards
COMPARISONS_A_PAGE = 10
Name = Annotated[str, Query(pattern=NAME_PATTERN)]
PLOTLY = f"/api/admin/plotly.min.js?v={version('plotly')}"
ADMIN_OUT = "/api/admin/session"  # DELETE logs the admin out
ACTIONS = (
    ("pause", ExperimentState.PAUSED),
    ("resume", ExperimentState.RUNNING),
    ("finish", ExperimentState.FINISHED),
    ("abandon", ExperimentState.ABANDONED),
)


def _admin_page(request: Request, service: Context, template: str, **values: Any) -> Response:
    response = page(request, template, may_log_out=not service.open_to_visitors, log_out=ADMIN_OUT, **values)
    if service.open_to_visitors and not is_admin(request, service):
        admin.give_cookie(request, response, service)
    return response


def _may_come_in(request: Request, service: Context) -> bool:
    return service.open_to_visitors or is_admin(request, service)


@router.get("/admin")
def admin_index(request: Request, service: Service, before: Before = None) -> Response:
    """The operator's overview, a page of experiments at a time, the newest first."""
    if not _may_come_in(request, service):
        return page(request, "admin_login.html")
    with service.database.read() as session:
        rows, further = cut(overview.rows(session, news.A_PAGE + 1, before), news.A_PAGE)
    more = rows[-1]["id"] if further else None
    return _admin_page(request, service, "admin.html", rows=rows, before=before, more=more)


@router.get("/labelers")
def labelers(request: Request, service: Service, after: AfterName = "", before: Before = None) -> Response:
    """Who labels, by name, and who is invited, the newest first: a page of each at a time."""
    if not _may_come_in(request, service):
        return page(request, "admin_login.html")
    people, more = cut(invitations.list_labelers(service, after, PEOPLE_A_PAGE + 1), PEOPLE_A_PAGE)
    invited, older = cut(invitations.list_invitations(service, before, PEOPLE_A_PAGE + 1), PEOPLE_A_PAGE)
    turning = {"after": after, "before": before, "more": people[-1].name if more else None}
    turning |= {"older": invited[-1].id if older else None}
    shown = {"people": people, "invited": invited}
    return _admin_page(request, service, "admin_labelers.html", **shown, **turning)


@router.get("/actions")
def actions(request: Request, service: Service, before: Before = None, about: audit.About = None) -> Response:
    """What the admin did, a page at a time, the newest first."""
    if not _may_come_in(request, service):
        return page(request, "admin_login.html")
    with service.database.read() as session:
        found = audit.list_actions(session, ACTIONS_A_PAGE + 1, before, about)
    more = found[ACTIONS_A_PAGE - 1].id if len(found) > ACTIONS_A_PAGE else None
    shown = found[:ACTIONS_A_PAGE]
    return _admin_page(
        request, service, "admin_actions.html", acts=shown, about=about, more=more, before=before
    )


@router.get("/admin/{name}")
def admin_experiment(
    name: ExperimentName, request: Request, service: Service, before: Before = None, history: Before = None
) -> Response:
    """Everything about one experiment, a page of rounds at a time: the last ones, or those below `before`.

    Its history turns by itself: the newest, or what came before the event `history`.
    """
    if not _may_come_in(request, service):
        return page(request, "admin_login.html")
    with service.database.read() as session:
        experiment = get_experiment(session, name)
        data = report.report(session, experiment, before, ROUNDS_A_PAGE)
        newest = rounds.current_round(session, experiment.id)
        oldest = session.scalar(select(func.min(Round.number)).where(Round.experiment_id == experiment.id))
        past, older = cut(report.history(session, experiment, report.HISTORY + 1, history), report.HISTORY)
        failed = report.failed_round(session, experiment)
        following = EXPERIMENT_TABLE.get(experiment.state, ())
    actions = [action for action, target in ACTIONS if target in following]
    actions += ["retry"] if failed and experiment.state == ExperimentState.RUNNING else []
    for one in data["rounds"]:
        tries = {attempt["id"]: attempt for attempt in one["attempts"]}
        for span in one["timeline"]:
            span["tries"] = [tries[attempt_id] for attempt_id in span["attempts"]]
        one["bar"] = Markup(timeline.draw(one["timeline"]))
    svg = Markup(diagram.draw(newest.state))
    numbers = [one["number"] for one in data["rounds"]]
    earlier = numbers[0] if numbers and numbers[0] != oldest else None
    turning = {"earlier": earlier, "is_last": newest.number in numbers, "before": before}
    turning |= {"past": past, "older": past[-1]["id"] if older else None, "history": history}
    shown = {"e": data, "svg": svg, "actions": actions, "plotly": PLOTLY, "last_line": timeline.last_line}
    return _admin_page(request, service, "admin_experiment.html", **shown, **turning)


@router.get("/admin/{name}/rounds/{number}")
def admin_round(
    name: ExperimentName,
    number: RoundNumber,
    request: Request,
    service: Service,
    after: Annotated[int, Query(ge=0, le=10**6)] = 0,
) -> Response:
    """The comparisons of a round, ten at a time."""
    if not _may_come_in(request, service):
        return page(request, "admin_login.html")
    found = insight.read_comparisons(name, number, service, after, COMPARISONS_A_PAGE)
    with service.database.read() as session:
        numbers = select(Round.number).where(Round.experiment_id == get_experiment(session, name).id)
        others = set(session.scalars(numbers.where(Round.number.in_((number - 1, number + 1)))))
    rewards = [step for one in found.comparisons for clip in one.clips for step in clip.rewards or ()]
    low, high = min(rewards, default=0.0), max(rewards, default=0.0)
    sparks = {
        clip.id: Markup(_spark(clip.rewards, low, high))
        for one in found.comparisons
        for clip in one.clips
        if clip.rewards
    }
    turning = {"after": after, "before": max(after - COMPARISONS_A_PAGE, 0), "others": others}
    shown = {"name": name, "number": number, "page": found, "sparks": sparks, "low": low, "high": high}
    words = {"verdicts": {one.id: _verdict(one) for one in found.comparisons}, "in_order": answers.in_order}
    return _admin_page(request, service, "admin_round.html", **shown, **turning, **words)


def _verdict(comparison: SeenComparison) -> str:
    """Say how often the clip that the reward model likes best was the one preferred, ties left out."""
    told = [clip.best for clip in comparison.clips if clip.best is not None]
    ranks = [one.ranks for one in comparison.answers if one.ranks and not one.withdrawn_at]
    decided = [one for one in ranks if one.count(0) == 1]
    if len(told) < len(comparison.clips) or not decided:
        return ""
    favourite = told.index(max(told))
    agreed = sum(one[favourite] == 0 for one in decided)
    of = "1 answer" if len(decided) == 1 else f"{len(decided)} answers"
    return f"The reward model's favourite, clip {favourite + 1}, won {agreed} of {of}."


def _spark(rewards: list[float], low: float, high: float) -> str:
    """Draw the predicted rewards along a clip as a small SVG; `low` and `high` are a whole page's.

    The page's script moves the mark to the step on show.
    """
    spread = (high - low) or 1.0
    last = max(len(rewards) - 1, 1)
    points = " ".join(
        f"{SPARK_W * step / last:.1f},{2 + (SPARK_H - 4) * (high - value) / spread:.1f}"
        for step, value in enumerate(rewards)
    )
    words = f"predicted reward along the clip, from {rewards[0]:.2f} to {rewards[-1]:.2f}"
    zero = 2 + (SPARK_H - 4) * high / spread
    ground = f'<path class="zero" d="M0 {zero:.1f}H{SPARK_W}"/>' if low < 0 < high else ""
    return (
        f'<svg class="spark" viewBox="0 0 {SPARK_W} {SPARK_H}" preserveAspectRatio="none" role="img" '
        f'aria-label="{words}"><title>{words}</title>{ground}<polyline points="{points}"/>'
        f'<path class="moment" d="M0 0V{SPARK_H}"/></svg>'
    )


@router.get("/new")
def new_experiment(
    request: Request, service: Service, preset: Name | None = None, copy: Name | None = None
) -> Response:
    """The form of a new experiment: of a preset, or of an experiment to copy."""
    if not _may_come_in(request, service):
        return page(request, "admin_login.html")
    presets = admin.list_presets()
    origin, values = "the defaults", {}
    if copy:
        with service.database.read() as session:
            values = get_experiment(session, copy).config
        origin, values = f"a copy of {copy}", {**values, "name": ""}
    elif preset:
        if preset not in presets:
            raise Problem(404, "unknown", f"there is no preset named {preset}")
        origin, values = f"the preset {preset}", {**presets[preset], "name": ""}
    shown: dict[str, Any] = {"parts": forms.form(values), "origin": origin, "presets": presets}
    shown |= {"reusable": admin.list_reusable(service), "import_mib": service.settings.import_mib}
    return _admin_page(request, service, "admin_new.html", **shown)
