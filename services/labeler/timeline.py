"""A round's stages in time: when each was entered and left, its attempts, and in words why it waits."""

from datetime import datetime, timedelta
from html import escape
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared import labels
from shared.config import ExperimentConfig
from shared.database import now
from shared.models import Attempt, Event, Experiment, Round
from shared.states import (
    LIVE_ATTEMPTS,
    QUEUES,
    ROUND_TABLE,
    STAGES,
    AttemptState,
    ExperimentState,
    RoundState,
)
from shared.supervision import LOG_END

ROUND_EVENTS = ("begun", *(row.event for row in ROUND_TABLE))
WIDTH, HEIGHT, LEAST = 1000, 26, 6  # of the picture, and of the shortest stage in it
Span = dict[str, Any]


def spans(session: Session, round_: Round, attempts: list[Attempt]) -> list[Span]:
    """Return each stay of the round in a state that takes time, in order, with the attempts made in it.

    A stage that failed and was retried has a stay before and one after; `ended_at` is None where it is now.
    """
    query = select(Event.event, Event.target, Event.at).where(
        Event.round_id == round_.id, Event.event.in_(ROUND_EVENTS), Event.target.is_not(None)
    )
    moves = [(RoundState(str(target)), at) for _, target, at in session.execute(query.order_by(Event.id))]
    if not moves:
        return []  # round 0: the labels that the experiment began with
    moment = now(session)
    ends: list[datetime | None] = [at for _, at in moves[1:]]
    found: list[Span] = []
    for (state, began), ended in zip(moves, [*ends, None], strict=True):
        if state == RoundState.DONE:
            continue
        until = ended or moment
        mine = [one for one in attempts if one.stage == state and _offered(one, began, ended)]
        found.append(
            {
                "stage": state,
                "began_at": began,
                "ended_at": ended,
                "seconds": round((until - began).total_seconds(), 3),
                "attempts": [one.id for one in mine],
                "says": says(session, round_, mine, moment) if ended is None else None,
            }
        )
    return found


def _offered(attempt: Attempt, began: datetime, ended: datetime | None) -> bool:
    """Return whether an attempt was made between two moments: one is offered while its stage lasts."""
    return attempt.not_before >= began and (ended is None or attempt.not_before < ended)


def seconds_by_stage(found: list[Span]) -> dict[str, float]:
    """Return how many seconds a round has spent in each of its stages until now, retries included."""
    seconds: dict[str, float] = {}
    for one in found:
        if one["stage"] in STAGES:
            seconds[one["stage"]] = round(seconds.get(one["stage"], 0.0) + one["seconds"], 3)
    return seconds


def says(session: Session, round_: Round, attempts: list[Attempt], moment: datetime) -> str:
    """Say in words what the round does now, what it waits for, or why it failed."""
    experiment: Experiment = round_.experiment
    if experiment.ended_at is not None:
        return f"stopped here: the experiment is {experiment.state}"
    if round_.state == RoundState.FAILED:
        stage = str(round_.failed_stage).replace("_", " ")
        return f"gave up {stage}: {last_line(round_.error)}; mend it, then retry"
    paused = "the experiment is paused; " if experiment.state == ExperimentState.PAUSED else ""
    if round_.state == RoundState.LABELING:
        return paused + _says_labels(session, round_, experiment)
    live = next((one for one in attempts if one.state in LIVE_ATTEMPTS), None)
    return paused + (_says_attempt(live, attempts, moment) if live else "waits for the coordinator")


def _says_labels(session: Session, round_: Round, experiment: Experiment) -> str:
    given, wanted = labels.progress(session, round_.id)
    if given < wanted:
        return f"waits for {wanted - given} of {wanted} labels"
    grace_s = ExperimentConfig.model_validate(experiment.config).labels.undo_grace_s
    return f"every label is in; they are final {grace_s:g} s after the last"


def _says_attempt(live: Attempt, attempts: list[Attempt], moment: datetime) -> str:
    queue = QUEUES[live.stage].replace("_", " ")
    if live.state == AttemptState.RUNNING:
        if live.lease_until and live.lease_until < moment:
            return "its worker is silent; the coordinator is about to offer the stage again"
        return f"{live.progress:.0%} done" if live.first_step_at else "a worker has it and is getting ready"
    failed = [
        one for one in attempts if one.error and one.state in (AttemptState.FAILED, AttemptState.EXPIRED)
    ]
    after = f", after try {failed[-1].number} ended: {last_line(failed[-1].error)}" if failed else ""
    if live.not_before > moment:
        wait = max((live.not_before - moment) / timedelta(seconds=1), 1)
        return f"tries again in {wait:.0f} s{after}"
    again = f" (told {live.hints} times)" if live.hints > 1 else ""
    return f"waits for a free {queue}{again}{after}"


def last_line(error: str | None) -> str:
    """Return the line of an error that says most: its last, before the end of the log that follows it."""
    lines = (error or "").partition(LOG_END)[0].strip().splitlines()
    return lines[-1].strip() if lines else "an error without words"


def draw(found: list[Span]) -> str:
    """Return the stages as one SVG bar, each as long as it took; colours come from the style sheet."""
    total = sum(one["seconds"] for one in found) or 1.0
    room = WIDTH - LEAST * len(found)
    parts = [f'<svg class="spans" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
             f'aria-label="{escape(_in_words(found))}">']  # fmt: skip
    x = 0.0
    for one in found:
        width = LEAST + room * one["seconds"] / total
        now_ = " now" if one["ended_at"] is None else ""
        hint = f"{one['stage'].replace('_', ' ')}: {one['seconds']:.1f} s"
        parts.append(
            f'<rect class="{one["stage"]}{now_}" x="{x:.1f}" y="0" width="{max(width - 2, 1):.1f}" '
            f'height="{HEIGHT}"><title>{escape(hint)}</title></rect>'
        )
        x += width
    return "".join([*parts, "</svg>"])


def _in_words(found: list[Span]) -> str:
    return ", ".join(f"{one['stage'].replace('_', ' ')} {one['seconds']:.1f} s" for one in found)
