"""`GET /metrics`: what Prometheus collects, read from the database, so that any replica answers alike.

Nothing here tells a true return or what somebody answered.
"""

from collections.abc import Iterator
from datetime import datetime

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from services.labeler.context import Service, is_admin
from services.labeler.problems import Problem
from shared.config import ExperimentConfig
from shared.database import Database, now
from shared.models import Attempt, Comparison, Experiment, Preference, Round
from shared.states import QUEUES, AttemptState, ExperimentState, RoundState

LATENCY_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # bounds of the histogram of how long an answer took


def _operator(request: Request, context: Service) -> None:
    if not (context.open_to_visitors or is_admin(request, context)):
        detail = "this needs the admin token as Authorization: Bearer"
        raise Problem(401, "no_admin", detail, {"WWW-Authenticate": "Bearer"})


router = APIRouter(tags=["health"], dependencies=[Depends(_operator)])


@router.get("/metrics", response_class=Response)
def read_metrics(service: Service) -> Response:
    """Return rounds, queues, labels, attempts and throughput in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Reading(service.database))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _Reading(Collector):
    """One reading of the database, in the form that the client library asks for."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def collect(self) -> Iterator[Metric]:
        with self.database.read() as session:
            moment = now(session)
            yield from _rounds(session, moment)
            yield from _attempts(session)
            yield from _labels(session)
            yield _throughput(session)

    def describe(self) -> Iterator[Metric]:
        return iter(())  # or it would be asked to read when it is registered


def _rounds(session: Session, moment: datetime) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "lockstep_round_state", "1 for the state of each live experiment's newest round",
        labels=("experiment", "experiment_state", "round_state"),
    )  # fmt: skip
    number = GaugeMetricFamily("lockstep_round", "Number of the newest round", labels=("experiment",))
    age = GaugeMetricFamily(
        "lockstep_round_state_age_seconds", "Seconds since the newest round changed its state",
        labels=("experiment",),
    )  # fmt: skip
    newest = select(func.max(Round.id)).group_by(Round.experiment_id)
    live = (ExperimentState.RUNNING, ExperimentState.PAUSED)
    query = select(Experiment, Round).join(Round).where(Round.id.in_(newest), Experiment.state.in_(live))
    for experiment, round_ in session.execute(query.order_by(Experiment.id)):
        state.add_metric((experiment.name, str(experiment.state), str(round_.state)), 1)
        number.add_metric((experiment.name,), round_.number)
        age.add_metric((experiment.name,), (moment - round_.changed_at).total_seconds())
    yield from (state, number, age)


def _attempts(session: Session) -> Iterator[Metric]:
    attempts = GaugeMetricFamily(
        "lockstep_attempts", "Attempts by stage and state", labels=("stage", "state")
    )
    depth = dict.fromkeys(sorted(set(QUEUES.values())), 0)
    query = select(Attempt.stage, Attempt.state, func.count()).group_by(Attempt.stage, Attempt.state)
    for stage, state, count in session.execute(query.order_by(Attempt.stage, Attempt.state)):
        attempts.add_metric((str(stage), str(state)), count)
        if state == AttemptState.OFFERED:
            depth[QUEUES[stage]] += count
    queues = GaugeMetricFamily("lockstep_queue_depth", "Attempts that wait for a worker", labels=("queue",))
    for queue, count in depth.items():
        queues.add_metric((queue,), count)
    yield from (attempts, queues)


def _labels(session: Session) -> Iterator[Metric]:
    wanted = GaugeMetricFamily("lockstep_labels_wanted", "Labels asked for so far", labels=("experiment",))
    given = GaugeMetricFamily("lockstep_labels_given", "Labels that stand", labels=("experiment",))
    totals = select(
        Experiment.name, func.sum(Comparison.labels_given), func.sum(Comparison.labels_wanted)
    )  # fmt: skip
    totals = totals.select_from(Experiment).join(Round).join(Comparison).group_by(Experiment.name)
    for name, stand, asked in session.execute(totals.order_by(Experiment.name)):
        given.add_metric((name,), int(stand))
        wanted.add_metric((name,), int(asked))
    latency = HistogramMetricFamily(
        "lockstep_label_seconds", "Seconds from shown to answered, as the label page measured them"
    )
    within = [func.sum(case((Preference.seconds <= bound, 1), else_=0)) for bound in LATENCY_S]
    counts = select(func.count(Preference.seconds), func.sum(Preference.seconds), *within)
    count, total, *buckets = session.execute(counts).one()
    bounds = [(str(bound), int(number or 0)) for bound, number in zip(LATENCY_S, buckets, strict=True)]
    latency.add_metric((), [*bounds, ("+Inf", int(count))], float(total or 0.0))
    yield from (given, wanted, latency)


def _throughput(session: Session) -> Metric:
    """Return the pace of the newest success of every stage, from its claim to its end."""
    pace = GaugeMetricFamily(
        "lockstep_trainer_steps_per_second",
        "Environment steps (in training_reward: epochs) a second of the newest finished attempt",
        labels=("experiment", "stage"),
    )
    won = select(func.max(Attempt.id)).join(Round).where(Attempt.state == AttemptState.SUCCEEDED)
    newest = won.group_by(Round.experiment_id, Attempt.stage)
    query = (
        select(Attempt, Round.number, Experiment).join(Round, Attempt.round_id == Round.id).join(Experiment)
    )
    for attempt, number, experiment in session.execute(
        query.where(Attempt.id.in_(newest)).order_by(Attempt.id)
    ):
        if attempt.ended_at is None or attempt.claimed_at is None:
            continue
        took_s = (attempt.ended_at - attempt.claimed_at).total_seconds()
        steps = _steps(ExperimentConfig.model_validate(experiment.config), attempt.stage, number)
        if took_s > 0:
            pace.add_metric((experiment.name, str(attempt.stage)), steps / took_s)
    return pace


def _steps(config: ExperimentConfig, stage: RoundState, number: int) -> int:
    if stage == RoundState.COLLECTING:
        return config.segments.collect_steps
    if stage == RoundState.TRAINING_REWARD:
        return config.reward_model.epochs
    return config.agent_steps(number)
