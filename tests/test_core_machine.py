"""A machine that does anything, in any order, to two experiments, and checks after each step what must hold.

Workers, labelers, coordinators and operators act by rules; time moves by moving the moments in the database.
At the end of every run whatever is left is driven home by sweeps alone: hints may all have been lost.
"""

import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import Table, event, select, text

from shared import labels, rounds, states
from shared.database import Database
from shared.labels import LabelError
from shared.models import (
    Attempt,
    Base,
    Event,
    Experiment,
    Labeler,
    Preference,
    Round,
)
from shared.states import AttemptState, ExperimentState, RoundState
from shared.transitions import StaleState
from tests import core, core_checks

RUNS, STEPS = 15, 30  # about 15 s a database
COMPARISONS = 2
EXPERIMENTS = (0, 1)
which_experiment = st.sampled_from(EXPERIMENTS)
which_labeler = st.sampled_from((0, 1, 2))
in_vain = st.sampled_from(["fail", "silence", "fail", "release"])
crashes = st.sampled_from([False, False, False, True])


class CrashError(RuntimeError):
    """The process ends before its transaction commits."""


class CoreMachine(RuleBasedStateMachine):
    """Drives the core; `database` is set for each test."""

    database: ClassVar[Database]
    seen: ClassVar[set[str]]  # the events of all runs

    # ------------------------------------------------------------------------------- acting

    @initialize(wanted=st.sampled_from([1, 2]), grace=st.sampled_from([0, 1000]), ahead=st.integers(0, 7))
    def begin(self, wanted: int, grace: float, ahead: int) -> None:
        _empty(self.database)
        options = {"labels_per_comparison": wanted, "undo_grace_s": grace}
        made = [core.create(self.database, f"experiment-{n}", labels=options) for n in EXPERIMENTS]
        self.experiments = [experiment_id for experiment_id, _ in made]
        kinds = ("person", "teacher", "teacher")
        self.labelers = [
            core.create_labeler(self.database, f"labeler-{n}", kind) for n, kind in enumerate(kinds)
        ]
        self.answers: list[tuple[str, int, Labeler, list[int] | None]] = []
        self.frozen: dict[int, str] = {}
        self.begun: dict[int, list[int]] = {}  # when an experiment was paused

        for _ in range(ahead):
            advance(self.database, self.experiments[0], self.labelers)

    def write(self, act: Callable[..., object], *arguments: object, crash: bool = False) -> None:
        """Do `act` in a transaction; a refusal and a crash leave everything as it was."""
        before = self.picture() if crash else None
        with suppress(StaleState, LabelError, CrashError), self.database.write() as session:
            act(session, *arguments)
            if crash:
                session.flush()
                raise CrashError
        if crash:
            assert self.picture() == before

    def picture(self) -> list[list[tuple[Any, ...]]]:
        """Return every row there is."""
        with self.database.read() as session:
            return [[tuple(row) for row in session.execute(select(table))] for table in _tables()]

    def attempts(self, experiment: int, *of: AttemptState) -> list[int]:
        """Return the attempts of an experiment that are in one of the states `of`, oldest first."""
        query = select(Attempt.id).join(Round).where(Round.experiment_id == self.experiments[experiment])
        with self.database.read() as session:
            return list(session.scalars(query.where(Attempt.state.in_(of)).order_by(Attempt.id)))

    def newest(self, experiment: int) -> Round:
        return core.newest_round(self.database, self.experiments[experiment])

    # ------------------------------------------------------------------------------ workers

    @rule(experiment=which_experiment, steps=st.integers(1, 2))
    def go_on(self, experiment: int, steps: int) -> None:
        """What would happen if nothing went wrong, so that the rest happens everywhere."""
        for _ in range(steps):
            if core.experiment(self.database, self.experiments[experiment]).state == ExperimentState.RUNNING:
                advance(self.database, self.experiments[experiment], self.labelers)

    @rule(experiment=which_experiment, doubled=st.booleans(), crash=crashes)
    def claim(self, experiment: int, doubled: bool, crash: bool) -> None:
        for attempt_id in self.attempts(experiment, *AttemptState)[-2:]:
            for _ in range(1 + doubled):
                self.write(rounds.claim, attempt_id, core.WORKER, core.LEASE_S, crash=crash)

    @rule(experiment=which_experiment, ends=st.lists(in_vain, min_size=1, max_size=4))
    def try_in_vain(self, experiment: int, ends: list[str]) -> None:
        """Attempts that are claimed (once, though the hint came twice) and come to nothing."""
        for end in ends:
            for attempt_id in self.attempts(experiment, AttemptState.OFFERED):
                core.make_due(self.database, attempt_id)
                got = [core.claim(self.database, attempt_id) for _ in range(2)]
                assert got in ([True, False], [False, False])
            for attempt_id in self.attempts(experiment, AttemptState.RUNNING):
                if end == "silence":
                    core.run_out_of_time(self.database, attempt_id)
                    assert core.sweep(self.database, self.newest(experiment).id).expired == [attempt_id]
                elif end == "fail":
                    core.fail(self.database, attempt_id)
                else:
                    self.write(rounds.release, attempt_id, "stopped")

    @rule(experiment=which_experiment, progress=st.floats(0, 1))
    def beat(self, experiment: int, progress: float) -> None:
        running = self.attempts(experiment, AttemptState.RUNNING)
        for attempt_id in self.attempts(experiment, *AttemptState)[-3:]:
            with self.database.write() as session:
                beat = rounds.heartbeat(session, attempt_id, core.LEASE_S, progress, {"loss": progress})
            assert beat.lost == (attempt_id not in running)

    @rule(experiment=which_experiment, crash=crashes, back=st.integers(1, 4))
    def complete(self, experiment: int, crash: bool, back: int) -> None:
        """Complete the running attempt, or try it with one that has ended: its result must not be taken."""
        chosen = (
            self.attempts(experiment, AttemptState.RUNNING)
            or self.attempts(experiment, *AttemptState)[-back:]
        )
        for attempt_id in chosen[:1]:
            attempt = core.attempt(self.database, attempt_id)
            result = core.result_for(attempt.stage, attempt_id, COMPARISONS)
            before = self.picture() if attempt.state != AttemptState.RUNNING else None
            self.write(rounds.complete, attempt_id, result, crash=crash)
            assert before is None or self.picture() == before

    @rule(experiment=which_experiment, crash=crashes)
    def fail(self, experiment: int, crash: bool) -> None:
        for attempt_id in self.attempts(experiment, AttemptState.RUNNING, AttemptState.EXPIRED)[-1:]:
            self.write(rounds.fail, attempt_id, "boom", core.MAX_ATTEMPTS, crash=crash)

    @rule(experiment=which_experiment)
    def release(self, experiment: int) -> None:
        for attempt_id in self.attempts(experiment, AttemptState.RUNNING):
            self.write(rounds.release, attempt_id, "stopped")

    @rule(experiment=which_experiment)
    def time_passes(self, experiment: int) -> None:
        """Every lease runs out, every pause between tries and every grace ends."""
        for attempt_id in self.attempts(experiment, AttemptState.OFFERED):
            core.make_due(self.database, attempt_id)
        for attempt_id in self.attempts(experiment, AttemptState.RUNNING):
            core.run_out_of_time(self.database, attempt_id)
        end_graces_and_leases(self.database, self.experiments[experiment])

    @rule(experiment=which_experiment, crash=crashes)
    def sweep(self, experiment: int, crash: bool) -> None:
        self.write(rounds.sweep, self.newest(experiment).id, core.MAX_ATTEMPTS, crash=crash)

    # ---------------------------------------------------------------------------- operators

    @rule(experiment=which_experiment)
    def pause(self, experiment: int) -> None:
        self.write(rounds.pause, self.experiments[experiment], "op")

    @rule(experiment=which_experiment)
    def resume(self, experiment: int) -> None:
        self.write(rounds.resume, self.experiments[experiment], "op")

    @rule(experiment=which_experiment, really=st.integers(0, 5))
    def abandon(self, experiment: int, really: int) -> None:
        if really == 0:
            self.write(rounds.abandon, self.experiments[experiment], "op", "enough")

    @rule(experiment=which_experiment)
    def retry(self, experiment: int) -> None:
        self.write(rounds.retry, self.newest(experiment).id, "op")

    # ----------------------------------------------------------------------------- labelers

    @rule(
        experiment=which_experiment, labeler=which_labeler, count=st.integers(1, 3),
        ranks=st.sampled_from([[0, 1], [1, 0], [0, 0], None]), crash=crashes,
    )  # fmt: skip
    def label(self, experiment: int, labeler: int, count: int, ranks: list[int] | None, crash: bool) -> None:
        who = self.labelers[labeler]
        for one in core.take(self.database, self.experiments[experiment], who, count):
            sent = (str(uuid.uuid4()), one.comparison_id, who, ranks)
            self.answers.append(sent)
            self.write(labels.answer, *sent, crash=crash)

    @rule(back=st.integers(1, 6))
    def resend(self, back: int) -> None:
        """An answer arrives (again): whether it was lost or not, it counts at most once."""
        for sent in self.answers[-back:][:1]:
            self.write(labels.answer, *sent)
            given = core.labels_given(self.database)
            self.write(labels.answer, *sent)
            assert core.labels_given(self.database) == given

    @rule(back=st.integers(1, 6), crash=crashes)
    def undo(self, back: int, crash: bool) -> None:
        with self.database.read() as session:
            given = list(
                session.execute(select(Preference.id, Labeler).join(Labeler).order_by(Preference.answered_at))
            )
        for preference_id, who in given[-back:][:1]:
            self.write(labels.undo, preference_id, who, crash=crash)

    @rule(experiment=which_experiment, labeler=which_labeler, renew=st.booleans())
    def skip_or_renew(self, experiment: int, labeler: int, renew: bool) -> None:
        who = self.labelers[labeler]
        for one in core.take(self.database, self.experiments[experiment], who):
            self.write(labels.renew if renew else labels.skip, one.comparison_id, who)

    @rule(experiment=which_experiment, crash=crashes)
    def close(self, experiment: int, crash: bool) -> None:
        self.write(rounds.close_labeling, self.newest(experiment).id, "op", crash=crash)

    # --------------------------------------------------------------------- what always holds

    @invariant()
    def everything_adds_up(self) -> None:
        with self.database.read() as session:
            core_checks.check_attempts(session)
            core_checks.check_artifacts(session)
            core_checks.check_labels(session)
            self.check_frozen_sets(session)
            self.check_pauses(session)
            core_checks.check_events(session)

    def check_frozen_sets(self, session: Any) -> None:
        """A frozen set keeps its sum for ever, and only rounds past labeling have one."""
        for round_ in session.scalars(select(Round)):
            if round_.label_set_sha256 is not None:
                digest = labels.label_set_sha256(session, round_)
                assert digest == round_.label_set_sha256 == self.frozen.setdefault(round_.id, digest)
            else:
                assert round_.id not in self.frozen
            stage = round_.failed_stage or round_.state
            early = (RoundState.COLLECTING, RoundState.LABELING)
            assert (round_.label_set_sha256 is None) == (stage in early)

    def check_pauses(self, session: Any) -> None:
        """While an experiment is paused nothing is begun: no attempt is claimed, no label set frozen."""
        for experiment in session.scalars(select(Experiment)):
            query = select(Event.id).where(Event.experiment_id == experiment.id)
            begun = list(session.scalars(query.where(Event.event.in_(("claimed", "labeled")))))
            if experiment.state == ExperimentState.PAUSED:
                assert self.begun.setdefault(experiment.id, begun) == begun
            else:
                self.begun.pop(experiment.id, None)

    # -------------------------------------------------------------- and progress is possible

    def teardown(self) -> None:
        """From wherever it is, sweeps and ordinary workers and labelers bring everything home."""
        for experiment_id in getattr(self, "experiments", []):
            drive_home(self.database, experiment_id, self.labelers)
            self.seen.update(row.event for row in core.events(self.database, experiment_id))
            self.everything_adds_up()


GUARDED = ("events", "admin_actions")  # the tables that are append-only


def _tables() -> list[Table]:
    return Base.metadata.sorted_tables


def _empty(database: Database) -> None:
    """Remove every row, for the next run. What is append-only refuses that, so its guards step aside."""
    names = ", ".join(table.name for table in _tables())
    with database.write() as session:
        if database.is_sqlite:
            guards = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%_delete'"
            found = session.execute(text(guards)).all()
            for name, _ in found:
                session.execute(text(f"DROP TRIGGER {name}"))
            for table in reversed(_tables()):
                session.execute(table.delete())
            for _, create in found:
                session.execute(text(create))
        else:
            for table in GUARDED:
                session.execute(text(f"ALTER TABLE {table} DISABLE TRIGGER USER"))
            session.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))
            for table in GUARDED:
                session.execute(text(f"ALTER TABLE {table} ENABLE TRIGGER USER"))


def end_graces_and_leases(database: Database, experiment_id: int) -> None:
    with database.write() as session:
        mine = "comparison_id IN (SELECT c.id FROM comparisons c JOIN rounds r ON r.id = c.round_id "
        mine += f"WHERE r.experiment_id = {experiment_id})"
        past = "'2020-01-01 00:00:00.000000'" if database.is_sqlite else "TIMESTAMPTZ '2020-01-01 00:00:00Z'"
        session.execute(text(f"UPDATE leases SET expires_at = {past} WHERE {mine}"))
        session.execute(text(f"UPDATE preferences SET answered_at = {past} WHERE {mine}"))


def drive_home(database: Database, experiment_id: int, labelers: list[Labeler]) -> None:
    """Finish an experiment from wherever it is, by sweeps, workers and labelers; no earlier hint arrives."""
    experiment = core.experiment(database, experiment_id)
    if experiment.state == ExperimentState.PAUSED:
        with database.write() as session:
            rounds.resume(session, experiment_id, "op")
    steps = 0
    while core.experiment(database, experiment_id).state == ExperimentState.RUNNING:
        steps += 1
        assert steps < 20, "stuck"
        advance(database, experiment_id, labelers)


def advance(database: Database, experiment_id: int, labelers: list[Labeler]) -> None:
    """Take the one step that a running experiment waits for, as a sweep finds it."""
    round_ = core.newest_round(database, experiment_id)
    live = core.live_attempt(database, round_.id)
    if round_.state == RoundState.FAILED:
        with database.write() as session:
            rounds.retry(session, round_.id, "op")
    elif round_.state == RoundState.LABELING:
        end_graces_and_leases(database, experiment_id)
        for labeler in labelers:
            core.label_everything(database, experiment_id, labeler)
        end_graces_and_leases(database, experiment_id)
        assert core.sweep(database, round_.id).frozen == [round_.id]
    elif live is not None and live.state == AttemptState.RUNNING:
        core.run_out_of_time(database, live.id)  # its worker is gone
        assert core.sweep(database, round_.id).expired == [live.id]
    elif live is not None:
        core.make_due(database, live.id)
        (hint,) = core.sweep(database, round_.id).hints
        core.work(database, hint.attempt_id, comparisons=COMPARISONS)


@pytest.fixture
def machine(database: Database) -> type[CoreMachine]:
    CoreMachine.database, CoreMachine.seen = database, set()
    if database.is_sqlite:  # no power cut is played here, so the disk need not be waited for
        event.listen(database.engine, "connect", lambda c, _: c.execute("PRAGMA synchronous=OFF"))
    return CoreMachine


@pytest.mark.timeout(600)  # on a busy machine it takes its time
def test_whatever_happens_the_core_adds_up(machine: type[CoreMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=RUNS, stateful_step_count=STEPS, derandomize=True, deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )  # fmt: skip
    # A machine that never gets anywhere proves nothing.
    troubles = {"failed", "expired", "released", "paused"}
    assert {row.event for row in states.ROUND_TABLE} | troubles <= machine.seen
