"""What the labeler service does for many at once: works committed together, and what it keeps in memory."""

import threading
from concurrent.futures import Future, wait
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.labeler.kept import Kept
from services.labeler.tally import Tally
from shared import label_statements as sql
from shared import labels
from shared.database import Database
from shared.models import Labeler
from tests import core


def add(name: str, token: str) -> Any:
    """Return a work that adds a labeler and returns how many there are."""

    def work(session: Session) -> int:
        session.add(
            Labeler(name=name, kind="person", token_sha256=token, created_at=datetime.now(UTC)),
        )
        session.flush()
        return session.scalars(select(func.count()).select_from(Labeler)).one()

    return work


def names(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(Labeler.name).order_by(Labeler.name)))


def test_what_is_submitted_together_is_done_and_only_what_fails_is_undone(database: Database) -> None:
    """While one is at work the others gather; SQLite then commits them in one transaction."""
    started, go_on = threading.Event(), threading.Event()

    def hold_up(_: Session) -> None:
        started.set()
        assert go_on.wait(30)

    first = database.submit(hold_up)
    assert started.wait(30)
    works = [add("ada", "1"), add("ben", "2"), add("ada", "3"), lambda _: 1 / 0, add("cleo", "4")]
    futures: list[Future[Any]] = [database.submit(work) for work in works]
    go_on.set()
    assert wait([first, *futures], 60).not_done == set()
    assert names(database) == ["ada", "ben", "cleo"]
    errors = [type(future.exception()) for future in futures]
    assert errors.count(IntegrityError) == 1
    assert errors == [
        *([type(None)] * 2 if errors[0] is type(None) else [IntegrityError, type(None)]),
        IntegrityError if errors[0] is type(None) else type(None),
        ZeroDivisionError,
        type(None),
    ]


def test_a_future_ends_only_after_the_commit(database: Database) -> None:
    for number in range(20):
        database.submit(add(f"labeler-{number:02d}", str(number))).result(30)
        assert len(names(database)) == number + 1


def test_an_error_of_the_driver_is_sqlalchemys(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database)
    ada = core.create_labeler(database, "ada")
    (one,) = core.take(database, experiment_id, ada)
    given = {"comparison": one.comparison_id, "labeler": ada.id, "ranks": None, "shown": "[0, 1]"}

    def store(session: Session) -> None:
        for number in range(2):
            sql.run(session, sql.STORE, preference=str(number), seconds=None, **given)

    with pytest.raises(IntegrityError):
        database.submit(store).result(30)
    assert core.labels_given(database) == [(0, 0, 1)] * 3
    core.answer(database, ada, one.comparison_id)  # the connection is as good as before


def test_looking_from_a_later_number_still_finds_what_lies_before_it(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database, comparisons=4)
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    name = core.experiment(database, experiment_id).name
    with database.write() as session:
        late = labels.claim(session, name, ada, 1, start=3)
        every = labels.claim(session, name, ben, 10, start=4)
    assert (late.open_from, every.open_from) == (0, 1)
    numbers = sorted(one.comparison_id for one in every.comparisons)
    assert len({late.comparisons[0].comparison_id, *numbers}) == 4
    assert late.comparisons[0].comparison_id not in numbers


def test_what_is_kept_is_kept_for_a_while_and_up_to_a_number() -> None:
    kept: Kept[int, str] = Kept(60, 2)
    looked: list[int] = []

    def look_up() -> str:
        looked.append(1)
        return "found"

    assert [kept.find(1, look_up), kept.find(1, look_up), len(looked)] == ["found", "found", 1]
    kept.put(2, "two")
    kept.put(3, "three")  # the oldest makes room
    assert [kept.get(number) for number in (1, 2, 3)] == [None, "two", "three"]
    kept.forget()
    assert kept.get(3) is None
    assert Kept[int, str](0, 2).put(1, "x") == "x"
    stale: Kept[int, str] = Kept(0, 2)
    stale.put(1, "x")
    assert stale.get(1) is None


def test_a_small_round_is_counted_each_time_and_a_large_one_once_a_second(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []

    def progress(_: Session, round_id: int) -> tuple[int, int]:
        counted.append(round_id)
        return {1: (10, 900), 2: (10, 5000), 3: (4500, 5000)}[round_id]

    monkeypatch.setattr(labels, "progress", progress)
    tally = Tally()
    with database.read() as session:
        for round_id in (1, 1, 2, 2, 3, 3):
            tally.of(session, round_id)
    assert counted == [1, 1, 2, 3, 3]  # the third is near its end
