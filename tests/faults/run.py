"""A run: an undisturbed experiment first, then the same one again and again under faults."""

import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from services import teachers
from shared import rounds
from shared.models import Attempt, Event, Experiment, Preference, Round
from shared.settings import secrets
from shared.states import RoundState
from shared.transitions import StaleState
from tests import parts
from tests.faults import checks
from tests.faults.plant import LEASE_S, SWEEP_S
from tests.faults.system import Flavour, Kind, System

ROUNDS = 8  # of each experiment
LIMIT_S = LEASE_S + SWEEP_S + 10.0  # within which every fault should be recovered from
LOST_S = 90.0  # a fault after which no stage ends within this is not survived
THINK_S = 0.08  # between two answers of the teacher, so that faults can strike among them
DELAY_S = (0.0, 0.6)  # from the begin of the stage to the fault
PEACE_S = 120.0  # the stage in which to strike comes round within this
CALM = "calm"


@dataclass
class Struck:
    """A fault and what came of it."""

    kind: str
    stage: str
    survived: bool = False
    recovery_s: float | None = None  # until a claim, a beat, an answer or a transition, all parts being up
    moved_s: float | None = None  # until a stage ended
    problem: str = ""
    slowdown: float = 1.0  # how long the machine took for a second of computing, measured when it was over


@dataclass
class Outcome:
    """Everything a run gives."""

    seed: int
    struck: list[Struck] = field(default_factory=list)
    checks: dict[str, list[str]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    rounds: int = 0
    attempts: dict[str, int] = field(default_factory=dict)
    labels: int = 0
    limit_s: float = LIMIT_S

    @property
    def good(self) -> bool:
        """Whether every fault was survived, in time, and no check found anything."""
        late = [one for one in self.struck if one.recovery_s is None or one.recovery_s > self.limit_s]
        return all(one.survived for one in self.struck) and not late and not any(self.checks.values())


@dataclass
class School:
    """The teacher, in a thread: creates one experiment after the other and answers in each until it ends."""

    plant: System
    work: dict[str, Any]
    taken: set[str] = field(default_factory=set)  # ids of the answers that got a 200
    last: threading.Event = field(default_factory=threading.Event)  # begin no further experiment
    problem: str = ""

    def lead(self, names: list[str]) -> None:
        """Lead the experiments `names` to their ends; the rest is left out once `last` is set."""
        try:
            for name in names:
                if self.last.is_set():
                    return
                self._create(name)
                token = secrets(self.plant.settings).teacher_token
                teachers.teach(
                    teachers.Lesson(self.plant.url, name, teachers.Teacher(), token), self._on_answer
                )
        except Exception as error:  # shown with the fault during which it happened
            self.problem = f"the teacher failed: {type(error).__name__}: {error}"
            raise

    def _on_answer(self, given: int, preference_id: str) -> None:
        self.taken.add(preference_id)
        if not self.last.is_set():
            time.sleep(THINK_S)

    def _create(self, name: str) -> None:
        token = secrets(self.plant.settings).admin_token
        config = configuration(name, self.work).model_dump(mode="json")
        while True:
            with suppress(httpx.TransportError):
                answer = httpx.post(
                    f"{self.plant.url}/api/admin/experiments", json={"config": config},
                    headers={"Authorization": f"Bearer {token}"}, timeout=10.0, trust_env=False,
                )  # fmt: skip
                if answer.status_code in (201, 409):  # 409: the answer to the first try was lost
                    return
            time.sleep(0.1)


def configuration(name: str, work: dict[str, Any]) -> Any:
    """Return the experiment: CartPole, some seconds a round; `work` says how much is to be done."""
    labels = {"comparisons_per_round": 4, "lease_s": 5, "undo_grace_s": 0}
    return parts.tiny(name, **({"rounds": ROUNDS, "labels": labels} | work))


def run(flavour: Flavour, folder: Path, faults: int, seed: int, wanted: str, console: Console) -> Outcome:
    """Strike `faults` times; the kinds that `wanted` names, in equal shares and a drawn order."""
    outcome = Outcome(seed)
    draw = random.Random(seed)
    with flavour.running(folder) as plant:
        kinds, outcome.left_out = flavour.available(plant)
        kinds = [kind for kind in kinds if wanted in kind.name]
        order = [kinds[number % len(kinds)] for number in range(faults)]
        draw.shuffle(order)
        school = School(plant, flavour.work)
        console.print("the undisturbed run ...")
        school.lead([CALM])
        names = [f"faulted-{uuid.uuid4().hex[:8]}" for _ in range(faults + 1)]
        teacher = threading.Thread(target=school.lead, args=(names,), name="teacher", daemon=True)
        teacher.start()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("faults", total=faults)
            for number, kind in enumerate(order, start=1):
                one = strike(flavour, plant, kind, random.Random(f"{seed} {number}"))
                one.problem = one.problem or school.problem
                outcome.struck.append(one)
                took = f"{one.recovery_s:.1f} s" if one.recovery_s is not None else "not recovered"
                progress.console.print(
                    f"{number}: {one.kind} in {one.stage}: {took} {one.problem}"[:200], markup=False
                )
                progress.advance(task)
                if not one.survived and (school.problem or not _rescue(plant)):
                    break
        _end(plant, school, teacher)
        outcome.checks = checks.check(plant, CALM, school.taken)
        _count(plant, outcome, school)
    return outcome


def strike(flavour: Flavour, plant: System, kind: Kind, draw: random.Random) -> Struck:
    """Wait for the stage that is drawn, strike, and watch the system recover."""
    stage = draw.choice(kind.stages)
    one = Struck(kind.name, str(stage))
    found = _until(lambda: _standing(plant, stage), PEACE_S)
    if found is None:
        one.problem = f"no {stage} came round"
        return one
    delay_s = draw.uniform(*DELAY_S) * (0.3 if stage == RoundState.LABELING else 1.0)
    time.sleep(delay_s)
    victim = flavour.find_victim(plant, kind, stage, found[0], draw)
    errors: list[str] = []
    if kind.begin is not None:
        _guarded(errors, kind.begin, plant, victim)
    before, moves = _signs(plant), _moves(plant)
    since, wall = time.monotonic(), time.time()
    fault = plant.striker.submit(_guarded, errors, kind.strike, plant, victim, draw)
    if not kind.meanwhile:
        fault.result()
        since, wall = time.monotonic(), time.time()
        with suppress(SQLAlchemyError):
            before = _signs(plant)
    if _until(lambda: _signs(plant) != before and _up(flavour, plant, kind.hits, wall), LOST_S):
        one.recovery_s = time.monotonic() - since
    fault.result()
    if _until(lambda: _moves(plant) > moves, LOST_S):
        one.moved_s = time.monotonic() - since
    one.problem = "; ".join(errors) or _failed(plant)
    if one.moved_s is None:
        one.problem = one.problem or "nothing moved on"
    one.survived = not one.problem and one.recovery_s is not None
    one.slowdown = _slowdown()
    return one


def _slowdown() -> float:
    """Return the seconds that one second of computing takes: 1 on an idle machine."""
    wall_s, cpu_s = time.perf_counter(), time.thread_time()
    while time.thread_time() - cpu_s < 0.05:
        pass
    return (time.perf_counter() - wall_s) / 0.05


def _guarded(errors: list[str], act: Callable[..., None], *arguments: Any) -> None:
    try:
        act(*arguments)
    except Exception as error:  # it belongs to the fault's outcome, not to this thread's standard error
        errors.append(f"{type(error).__name__}: {error}")


def _until(true: Any, seconds: float) -> Any:
    """Wait until `true()` is and return that, None after `seconds`; a database that is away is waited for."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(SQLAlchemyError, httpx.TransportError):
            if value := true():
                return value
        time.sleep(0.05)
    return None


def _standing(plant: System, stage: RoundState) -> tuple[Attempt | None] | None:
    """Return the attempt that runs in `stage` if a round is there now."""
    with plant.database.read() as session:
        query = select(Round).join(Experiment).where(Experiment.state == "running", Round.state == stage)
        round_ = session.scalar(query)
        if round_ is None or stage == RoundState.LABELING:
            return (None,) if round_ is not None else None
        query_attempt = select(Attempt).where(Attempt.round_id == round_.id, Attempt.state == "running")
        attempt = session.scalar(query_attempt)
        return (attempt,) if attempt is not None else None


def _signs(plant: System) -> tuple[Any, ...]:
    """Return what changes when the system works: claims and transitions, beats, answers."""
    working = ("claimed", "begun", "created", *checks.ROUND_EVENTS)
    with plant.database.read() as session:
        events = session.scalar(select(func.max(Event.id)).where(Event.event.in_(working)))
        beats = session.scalar(select(func.max(Attempt.lease_until)))
        given = session.scalar(select(func.count()).select_from(Preference))
        return events, beats, given


def _moves(plant: System) -> int:
    with plant.database.read() as session:
        query = select(func.count()).select_from(Event).where(Event.event.in_(checks.ROUND_EVENTS))
        return session.scalars(query).one()


def _up(flavour: Flavour, plant: System, hits: str | None, since: float) -> bool:
    """Whether the part that the fault hit works again."""
    if hits == "coordinator":
        return flavour.goes_round(plant, since)
    if hits == "labeler":
        return httpx.get(f"{plant.url}/readyz", timeout=5.0, trust_env=False).status_code == 200
    return True


def _failed(plant: System) -> str:
    with plant.database.read() as session:
        round_ = session.scalar(select(Round).where(Round.state == RoundState.FAILED))
        return f"round {round_.number} failed: {round_.error}" if round_ else ""


def _rescue(plant: System) -> bool:
    """Do as an operator would with a round that failed, so that the run can go on; False without one."""
    with plant.database.write() as session:
        found = list(session.scalars(select(Round.id).where(Round.state == RoundState.FAILED)))
        for round_id in found:
            rounds.retry(session, round_id, "the fault suite")
    return bool(found)


def _end(plant: System, school: School, teacher: threading.Thread) -> None:
    """Let the last experiment end: finish it in its next labeling, or by itself."""
    school.last.set()
    deadline = time.monotonic() + 3 * LOST_S
    while teacher.is_alive() and time.monotonic() < deadline:
        teacher.join(1.0)
        with suppress(StaleState, SQLAlchemyError), plant.database.write() as session:
            query = select(Round).join(Experiment).where(
                Experiment.state == "running", Round.state == RoundState.COLLECTING, Round.number > 1
            )  # fmt: skip
            for round_ in session.scalars(query):
                rounds.finish(session, round_.experiment_id, "the fault suite", "all faults have struck")


def _count(plant: System, outcome: Outcome, school: School) -> None:
    with plant.database.read() as session:
        done = select(func.count()).select_from(Round).where(Round.state == RoundState.DONE)
        outcome.rounds = session.scalars(done).one()
        outcome.attempts = dict(
            sorted(Counter(str(state) for state in session.scalars(select(Attempt.state))).items())
        )
    outcome.labels = len(school.taken)
