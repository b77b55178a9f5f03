"""The coordinator: it repairs what got lost, one at a time, and costs next to nothing while all is well."""

import os
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import event, func, select, update

from services.coordinator import loop
from shared import rounds
from shared.broker import Broker
from shared.database import Database, now
from shared.models import Attempt, Comparison, Experiment, Round
from shared.settings import Settings, load_settings
from shared.states import AttemptState

from .parts import attempts, create, newest_round, tiny, until


class Recorder(Broker):
    """A real broker that also remembers what it sent."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.sent: list[int] = []

    def send(self, hints: object) -> None:
        listed = list(hints)  # type: ignore[call-overload]
        self.sent += [hint.attempt_id for hint in listed]
        super().send(listed)


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return load_settings(
        data_dir=tmp_path, database_url=database_url, sweep_s=0.05, beat_s=0.1, lease_s=0.4, max_attempts=2
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    made = Database(settings.database_url)
    yield made
    made.close()


@contextmanager
def coordinating(settings: Settings) -> Iterator[Recorder]:
    leaving, broker = threading.Event(), Recorder(settings)
    own = Database(settings.database_url)
    thread = threading.Thread(target=loop.coordinate, args=(settings, own, broker, leaving))
    thread.start()
    try:
        yield broker
    finally:
        leaving.set()
        thread.join(10)
        assert not thread.is_alive()
        own.close()
        broker.close()


def forget_hints(database: Database) -> None:
    with database.write() as session:
        session.execute(update(Attempt).values(hinted_at=now(session) - timedelta(hours=1)))


def claim(database: Database, attempt_id: int, lease_s: float) -> None:
    with database.write() as session:
        assert rounds.claim(session, attempt_id, {"host": "here", "pid": 1}, lease_s)


def test_a_lost_hint_is_sent_again_and_a_fresh_one_is_not(settings: Settings, database: Database) -> None:
    _, hints = create(database, tiny())
    with coordinating(settings) as broker:
        time.sleep(0.3)
        assert broker.sent == []
        forget_hints(database)
        until(lambda: broker.sent == [hints[0].attempt_id], 10)
        time.sleep(0.3)
        assert len(broker.sent) == 1


def test_a_silent_worker_is_given_up_and_too_many_failures_are_the_end(
    settings: Settings, database: Database
) -> None:
    experiment_id, hints = create(database, tiny())
    with coordinating(settings) as broker:
        claim(database, hints[0].attempt_id, 0.2)
        first, second = until(lambda: (found := attempts(database, experiment_id))[1:] and found, 10)
        assert first.state == AttemptState.EXPIRED
        assert broker.sent == [second.id]
        claim(database, second.id, 0.2)
        until(lambda: newest_round(database, experiment_id).state == "failed", 10)
    assert "no sign of life" in (newest_round(database, experiment_id).error or "")


def test_the_quick_look_waits_for_the_last_label(settings: Settings, database: Database) -> None:
    experiment_id, _ = create(database, tiny())
    with database.write() as session:  # as if collected and answered
        round_ = session.scalars(select(Round)).one()
        session.execute(update(Attempt).values(state=AttemptState.SUCCEEDED))
        round_.state = "labeling"  # type: ignore[assignment]
        row = Comparison(round_id=round_.id, number=1, held_out=False, clip_ids=[1, 2])
        row.labels_wanted = 1
        session.add(row)
    asked: list[str] = []
    event.listen(database.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    with database.read() as session:
        assert loop.due(session) == []
    assert sum("SELECT" in one for one in asked) == 1, asked  # while people label, a look is one round trip
    with database.write() as session:
        session.execute(update(Comparison).values(labels_given=1))
    with database.read() as session:
        assert loop.due(session) == [newest_round(database, experiment_id).id]


def test_a_round_that_cannot_be_swept_does_not_hold_up_the_others(
    settings: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    broken, _ = create(database, tiny("broken"))
    _, hints = create(database, tiny("sound"))
    forget_hints(database)
    with database.write() as session:  # a row that somebody spoilt by hand
        table = Round.__table__
        session.execute(update(table).where(table.c.experiment_id == broken).values(version=-1))
        session.execute(
            update(Attempt).where(Attempt.id != hints[0].attempt_id).values(hints=10_000)  # 2**9999 seconds
        )
    broker = Recorder(settings)
    with database.read() as session:
        ids = rounds.rounds_to_sweep(session)
    loop.sweep(database, broker, 2, ids)
    broker.close()
    assert broker.sent == [hints[0].attempt_id]
    assert "could not be swept" in caplog.text


def test_a_second_coordinator_waits_for_the_first(settings: Settings, database: Database) -> None:
    _, hints = create(database, tiny())
    with coordinating(settings) as first:
        time.sleep(0.2)
        with coordinating(settings) as second:
            forget_hints(database)
            until(lambda: first.sent == [hints[0].attempt_id], 10)
            time.sleep(0.2)
            assert second.sent == []
    with coordinating(settings) as third:
        forget_hints(database)
        until(lambda: third.sent == [hints[0].attempt_id], 10)


def test_a_broken_connection_is_survived(tmp_path: Path, postgres_url: str, postgres_template: str) -> None:
    from .conftest import fresh_postgres

    with fresh_postgres(postgres_url, postgres_template) as url:
        settings = load_settings(data_dir=tmp_path, database_url=url, sweep_s=0.05, beat_s=0.1, lease_s=0.4)
        database = Database(url)
        _, hints = create(database, tiny())
        with coordinating(settings) as broker:
            time.sleep(0.3)
            with psycopg.connect(postgres_url, autocommit=True) as connection:
                ended = connection.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = %s",
                    (url.rpartition("/")[2],),
                ).fetchone()
            assert ended
            assert ended[0] >= 1
            fresh = Database(url)
            forget_hints(fresh)
            fresh.close()
            until(lambda: broker.sent == [hints[0].attempt_id], 15)
        database.close()


def test_idling_is_cheap(tmp_path: Path, sqlite_template: Path) -> None:
    """A look every 0.25 s at 20 experiments that wait for labels or work costs under 2 % of a core."""
    path = tmp_path / "lockstep.db"
    shutil.copyfile(sqlite_template, path)
    settings = load_settings(data_dir=tmp_path)
    database = Database(settings.database_url)
    for number in range(20):
        create(database, tiny(f"e{number}"))
    looks = 0
    with database.read() as session:
        loop.due(session)
    began = time.process_time()
    while looks < 40:  # ten seconds' worth
        with database.read() as session:
            loop.due(session)
        looks += 1
    used_s = time.process_time() - began
    with database.read() as session:
        assert session.scalar(select(func.count(Experiment.id))) == 20
    database.close()
    assert used_s < 0.2, f"{os.getpid()} used {used_s:.2f} s for ten seconds' looks"
