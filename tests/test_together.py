"""What the labeler service does for many at once: wishes served together, and what it keeps in memory."""

import asyncio
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from services.labeler.kept import Kept
from services.labeler.tally import Tally
from services.labeler.together import Together
from shared import handing_out, labels
from shared import label_statements as sql
from shared.database import Database
from shared.handing_out import Wish
from shared.labels import Given, LabelError
from shared.models import Comparison, Labeler, Lease
from tests import core


def names(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(Labeler.name).order_by(Labeler.name)))


def test_who_waits_together_is_served_together_and_only_what_fails_is_undone(database: Database) -> None:
    """While one transaction is written the others gather; an error costs nobody else their outcome."""
    started, go_on = threading.Event(), threading.Event()
    calls: list[list[str]] = []

    def hold_up(_: Session, wishes: list[None]) -> list[None]:
        started.set()
        assert go_on.wait(30)
        return wishes

    def add(session: Session, wishes: list[str]) -> list[str | LabelError]:
        calls.append(list(wishes))
        for name in wishes:
            if name != "refused":
                session.add(
                    Labeler(name=name.strip(), kind="person", token_sha256=name, created_at=datetime.now(UTC))
                )
        session.flush()
        return [LabelError("no", "refused") if name == "refused" else name.upper() for name in wishes]

    def fail(_: Session, wishes: list[str]) -> list[str]:
        raise ZeroDivisionError

    async def everybody() -> list[Any]:
        writer = Together(database.write)
        first = asyncio.create_task(writer.do(hold_up, None))
        await asyncio.to_thread(started.wait, 30)
        gone = asyncio.create_task(writer.do(add, "ida"))  # who hangs up has asked all the same
        rest = [
            writer.do(add, "ada"),
            writer.do(add, "refused"),
            writer.do(add, "ben"),
            writer.do(add, "ada "),
        ]
        rest = [asyncio.create_task(one) for one in [*rest, writer.do(fail, "x"), writer.do(add, "cleo")]]
        await asyncio.sleep(0)
        gone.cancel()
        go_on.set()
        outcomes = await asyncio.gather(first, *rest, return_exceptions=True)
        writer.close()
        return outcomes

    outcomes = asyncio.run(everybody())
    assert [one if isinstance(one, str) else type(one) for one in outcomes[1:]] == [
        "ADA", LabelError, "BEN", IntegrityError, ZeroDivisionError, "CLEO",
    ]  # fmt: skip
    assert calls[0] == ["ida", "ada", "refused", "ben", "ada ", "cleo"]
    assert names(database) == ["ada", "ben", "cleo", "ida"]


def test_nobody_is_told_before_the_commit(database: Database) -> None:
    def rename(session: Session, wishes: list[str]) -> list[str]:
        session.execute(update(Labeler).values(name=wishes[-1]))
        return wishes

    async def turns() -> None:
        writer = Together(database.write)
        for number in range(20):
            told = await writer.do(rename, f"labeler-{number:02d}")
            assert names(database) == [told]
        writer.close()

    core.create_labeler(database, "ada")
    asyncio.run(turns())


@pytest.mark.parametrize("wanted", [1, 2])
def test_many_who_ask_together_get_what_each_alone_might_have_got(database: Database, wanted: int) -> None:
    options = {"labels_per_comparison": wanted}
    experiment_id, _ = core.to_labeling(database, comparisons=12, labels=options)
    name = core.experiment(database, experiment_id).name
    people = [core.create_labeler(database, f"labeler-{number}") for number in range(4)]
    skipped = core.take(database, experiment_id, people[0], 1)[0].comparison_id
    with database.write() as session:
        labels.skip(session, skipped, people[0])
    held = core.take(database, experiment_id, people[1], 2)
    wishes = [Wish(one, 3) for one in people] + [Wish(people[2], 5)]  # the third has two windows
    with database.write() as session:
        all_handed = handing_out.claim_all(session, name, wishes)
    got = [[one.comparison_id for one in handed.comparisons] for handed in all_handed]
    assert [len(set(one)) for one in got] == [3, 3, 3, 3, 5 if wanted == 2 else 3]
    assert got[4][:3] == got[2]
    assert got[1][:2] == [one.comparison_id for one in held]
    assert all(one == sorted(one) for one in got[:1])
    times = Counter(comparison for one in (got[0], got[1], got[3], got[4]) for comparison in one)
    assert max(times.values()) <= wanted
    assert skipped not in got[0]  # others get first what somebody gave back
    with database.read() as session:
        assert times == Counter(session.scalars(select(Lease.comparison_id).where(Lease.state == "held")))


def test_many_answers_at_once_are_each_judged_alone(database: Database) -> None:
    options = {"labels_per_comparison": 2}
    experiment_id, round_id = core.to_labeling(database, comparisons=3, labels=options)
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    for_ada = [one.comparison_id for one in core.take(database, experiment_id, ada, 3)]
    for_ben = [one.comparison_id for one in core.take(database, experiment_id, ben, 2)]
    ids = [f"00000000-0000-4000-8000-{number:012d}" for number in range(4)]
    answers = [
        Given(ids[0], for_ada[0], ada, [0, 1]),
        Given(ids[1], for_ben[0], ben, None),  # the same comparison
        Given(ids[0], for_ada[0], ada, [0, 1]),  # sent again
        Given(ids[0], for_ada[0], ada, [1, 0]),  # the same id, another content
        Given(ids[2], for_ada[2], ben, [0, 1]),  # not given to ben
        Given(ids[2], for_ada[1], ada, [0, 1, 2]),
        Given(ids[3], 999, ada, [0, 1]),
        Given(ids[3], for_ada[2], ada, [1, 1], 2.5),
    ]
    with database.write() as session:
        outcomes = labels.answer_all(session, answers)
    told = [one.reason if isinstance(one, LabelError) else one for one in outcomes]
    assert told == [
        round_id, round_id, round_id, "conflict", "not_yours", "malformed", "unknown", round_id,
    ]  # fmt: skip
    with database.read() as session:
        given = {one.id: one.labels_given for one in session.scalars(select(Comparison))}
        assert given == {for_ada[0]: 2, for_ada[1]: 0, for_ada[2]: 1}
        assert labels.missing(session, round_id) == 3
        assert labels.progress(session, round_id) == (3, 6)


def test_an_error_of_the_driver_is_sqlalchemys(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database)
    ada = core.create_labeler(database, "ada")
    (one,) = core.take(database, experiment_id, ada)
    given = {"comparison": one.comparison_id, "labeler": ada.id, "ranks": None, "shown": [0, 1], "seconds": 1}
    with pytest.raises(IntegrityError), database.write() as session:
        sql.run(session, sql.STORE, these=[given | {"preference": number} for number in ("0", "1")])
    assert core.labels_given(database) == [(0, 0, 1)] * 3
    core.answer(database, ada, one.comparison_id)  # the connection is as good as before


def test_looking_from_a_later_number_still_finds_what_lies_before_it(database: Database) -> None:
    experiment_id, _ = core.to_labeling(database, comparisons=4)
    ada, ben = core.create_labeler(database, "ada"), core.create_labeler(database, "ben")
    name = core.experiment(database, experiment_id).name
    with database.write() as session:
        late = handing_out.claim(session, name, ada, 1, start=3)
        every = handing_out.claim(session, name, ben, 10, start=4)
    assert (late.open_from, late.looked_at_all) == (3, False)
    assert (every.open_from, every.looked_at_all) == (1, True)
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
    kept.change(2, "deux")
    kept.change(4, "four")  # in the place of nothing
    assert [kept.get(number) for number in (2, 3, 4)] == ["deux", "three", None]
    kept.forget()
    assert kept.get(3) is None
    assert Kept[int, str](0, 2).put(1, "x") == "x"
    stale: Kept[int, str] = Kept(0, 2)
    stale.put(1, "x")
    stale.change(1, "y")  # it is as old as before
    assert stale.get(1) is None


def test_a_whole_round_is_counted_once_a_second_and_what_is_missing_each_time(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def progress(_: Session, round_id: int) -> tuple[int, int]:
        asked.append(("whole", round_id))
        return {1: (10, 900), 2: (10, 5000), 3: (4500, 5000), 4: (0, 0)}[round_id]

    def missing(_: Session, round_id: int) -> int:
        asked.append(("missing", round_id))
        return 30

    monkeypatch.setattr(labels, "progress", progress)
    monkeypatch.setattr(labels, "missing", missing)
    tally = Tally()
    with database.read() as session:
        counts = [tally.of(session, round_id) for round_id in (1, 1, 2, 2, 3, 3, 4, 4)]
    assert counts[1::2] == [(870, 900), (10, 5000), (4970, 5000), (0, 0)]
    assert [round_id for what, round_id in asked if what == "whole"] == [1, 2, 3, 4, 4]
    assert [round_id for what, round_id in asked if what == "missing"] == [1, 3]
