"""Events tell every change of state, once, in order, with who and why; nothing can change them afterwards."""

from itertools import pairwise

import pytest
from sqlalchemy import delete, text, update
from sqlalchemy.exc import DBAPIError

from shared import rounds
from shared.database import Database
from shared.models import Event
from tests import core


def told(database: Database, experiment_id: int) -> list[tuple[str, str | None, str | None, str]]:
    return [(e.event, e.source, e.target, e.actor) for e in core.events(database, experiment_id)]


def test_each_change_is_told_once_and_in_order(database: Database) -> None:
    experiment_id, attempt_id = core.create(database, rounds=1)
    core.work(database, attempt_id)
    round_id = core.newest_round(database, experiment_id).id
    core.label_everything(database, experiment_id, core.create_labeler(database, "oracle"))
    with database.write() as session:
        rounds.pause(session, experiment_id, "ada")
        rounds.resume(session, experiment_id, "ada")
    (reward,) = core.close(database, round_id)
    core.claim(database, reward)
    core.run_out_of_time(database, reward)
    (hint,) = core.sweep(database, round_id).hints
    (agent,) = core.work(database, hint.attempt_id)
    core.work(database, agent)
    reward_worker, agent_worker = "reward_trainer@gpu-1:7", "agent_trainer@gpu-1:7"
    assert told(database, experiment_id) == [
        ("created", None, "running", "test"),
        ("begun", None, "collecting", "test"),
        ("offered", None, "offered", "test"),
        ("claimed", "offered", "running", agent_worker),
        ("succeeded", "running", "succeeded", agent_worker),
        ("collected", "collecting", "labeling", agent_worker),
        ("paused", "running", "paused", "ada"),
        ("running", "paused", "running", "ada"),
        ("labeled", "labeling", "training_reward", "test"),
        ("offered", None, "offered", "test"),
        ("claimed", "offered", "running", reward_worker),
        ("expired", "running", "expired", "coordinator"),
        ("offered", None, "offered", "coordinator"),
        ("claimed", "offered", "running", reward_worker),
        ("succeeded", "running", "succeeded", reward_worker),
        ("reward_trained", "training_reward", "training_agent", reward_worker),
        ("offered", None, "offered", reward_worker),
        ("claimed", "offered", "running", agent_worker),
        ("succeeded", "running", "succeeded", agent_worker),
        ("agent_trained", "training_agent", "done", agent_worker),
        ("finished", "running", "finished", "coordinator"),
    ]
    rows = core.events(database, experiment_id)
    assert rows[-1].detail == {"reason": "its 1 rounds are done"}
    assert all(early.at <= late.at for early, late in pairwise(rows))
    assert all(
        row.round_id == round_id for row in rows[1:] if row.event not in ("paused", "running", "finished")
    )
    assert {row.attempt_id for row in rows if row.event == "claimed"} == {
        attempt_id, reward, hint.attempt_id, agent,
    }  # fmt: skip


def test_errors_and_reasons_are_told(database: Database) -> None:
    experiment_id, attempt_id = core.create(database)
    core.claim(database, attempt_id)
    core.fail(database, attempt_id, "out of memory")
    with database.write() as session:
        rounds.abandon(session, experiment_id, "ada", "wrong seed")
    details = {row.event: row.detail for row in core.events(database, experiment_id)}
    assert details["failed"] == {"error": "out of memory"}
    assert details["abandoned"] == {"reason": "wrong seed"}
    assert details["released"] == {"error": "the experiment is abandoned"}
    assert details["claimed"] == core.WORKER


def test_what_was_rolled_back_is_not_told(database: Database) -> None:
    experiment_id, attempt_id = core.create(database)
    before = told(database, experiment_id)

    def crash() -> None:
        with database.write() as session:
            assert rounds.claim(session, attempt_id, core.WORKER, core.LEASE_S)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        crash()
    assert told(database, experiment_id) == before
    assert core.claim(database, attempt_id)


def test_what_was_refused_is_not_told(database: Database) -> None:
    experiment_id, attempt_id = core.create(database)
    core.claim(database, attempt_id)
    before = told(database, experiment_id)
    assert not core.claim(database, attempt_id)
    with pytest.raises(rounds.StaleState), database.write() as session:
        rounds.resume(session, experiment_id, "ada")
    assert told(database, experiment_id) == before


def test_a_very_long_name_of_an_actor_fits(database: Database) -> None:
    experiment_id, attempt_id = core.create(database)
    with database.write() as session:
        assert rounds.claim(session, attempt_id, {"host": "h" * 300, "pid": 1}, core.LEASE_S)
    assert len(core.events(database, experiment_id)[-1].actor) == 120


@pytest.mark.parametrize(
    "change", [update(Event).values(actor="nobody"), delete(Event), text("DELETE FROM events")]
)
def test_the_database_refuses_to_change_or_remove_events(database: Database, change: object) -> None:
    experiment_id, _ = core.create(database)
    before = told(database, experiment_id)
    with pytest.raises(DBAPIError, match="events are append-only"), database.write() as session:
        session.execute(change)
    assert told(database, experiment_id) == before
