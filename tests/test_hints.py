"""What travels to workers: hints that are lost, late or damaged end nothing."""

import shutil
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from shared import broker as broker_module
from shared.broker import Broker, BrokerAway, make_app
from shared.settings import load_settings
from shared.states import AttemptState
from shared.transitions import Hint

from . import parts
from .parts import attempts, part, until
from .test_workers import odd, system


def test_an_unreachable_broker_is_only_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from .services import free_ports

    (port,) = free_ports(1)
    broker = Broker(load_settings(data_dir=tmp_path, broker_url=f"redis://127.0.0.1:{port}/0"))
    broker.send([Hint(1, "agent_trainer"), Hint(2, "reward_trainer")])
    assert [record.levelname for record in caplog.records if record.name == "shared.broker"] == ["WARNING"]
    broker.close()


def test_a_broker_that_hangs_holds_up_nobody(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(broker_module, "ANSWER_S", 0.3)
    with parts.cable(int(redis_url.rpartition(":")[2].partition("/")[0])) as cable:
        broker = Broker(load_settings(data_dir=tmp_path, broker_url=f"redis://127.0.0.1:{cable.port}/7"))
        broker.check()
        broker.send([Hint(1, "agent_trainer")])
        assert not caplog.records
        cable.stalled.set()
        began = time.monotonic()
        broker.send([Hint(2, "agent_trainer")])
        assert "could not hint at attempt 2" in caplog.text
        with pytest.raises(BrokerAway, match="does not answer"):
            broker.check()
        assert time.monotonic() - began < 30, "it waited for what never came"
        broker.close()


def test_damaged_messages_are_dropped_and_the_next_one_is_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings(data_dir=tmp_path)
    app, folder = make_app(settings), tmp_path / "broker"
    for number, text in enumerate(["", "{half", "[]", '{"body": 1}', "\xff"]):
        (folder / f"{number}.agent_trainer.msg").write_text(text)
    Broker(settings).send([Hint(7, "agent_trainer")])
    with app.connection_for_read() as connection, connection.channel() as channel:
        message = channel.basic_get("agent_trainer", no_ack=True)
        assert message.payload[0] == [7]
        assert channel.basic_get("agent_trainer") is None
    assert [path.name for path in folder.iterdir()] == []
    assert caplog.text.count("dropped a damaged message") == 5


NO_MESSAGES = (
    "", "{half", "[]", "null", "7", '"text"', "{}", '{"body": 1}', b"\xff\xfe",
    '{"body": "", "properties": null}',
    '{"body": "!", "properties": {"delivery_tag": "a", "body_encoding": "base64", "delivery_info": {}}}',
    '{"body": "x", "properties": {"delivery_tag": "b", "body_encoding": "odd", "delivery_info": {}}}',
    '{"body": "x", "properties": {"delivery_tag": "c", "delivery_info": {"routing_key": "agent_trainer"}}}',
    *(
        '{"body": "' + body + '", "headers": {' + headers + '}, "content-type": "application/json",'
        ' "content-encoding": "utf-8", "properties": {"delivery_tag": "d", "body_encoding": "base64",'
        ' "delivery_info": {"exchange": "", "routing_key": "agent_trainer"}}}'
        for body, headers in (
            ("W10=", '"task": "lockstep.attempt", "id": "d"'),  # []
            ("W1sxXSwge30sIG51bGxd", '"task": "lockstep.attempt"'),  # [[1], {}, null]
            ("W1sxXSwge30sIG51bGxd", '"task": "another", "id": "e"'),
            ("W1tdLCB7fSwgbnVsbF0=", '"task": "lockstep.attempt", "id": "f"'),  # [[], {}, null]
            ("W1siYSJdLCB7fSwgbnVsbF0=", '"task": "lockstep.attempt", "id": "g"'),  # [["a"], {}, null]
        )
    ),
)  # fmt: skip


def test_a_damaged_message_in_redis_ends_no_worker(
    tmp_path: Path, sqlite_template: Path, redis_url: str
) -> None:
    broker_url = redis_url.rpartition("/")[0] + "/6"
    path = shutil.copyfile(sqlite_template, tmp_path / "lockstep.db")
    with ExitStack() as stack:
        one = stack.enter_context(system(tmp_path, f"sqlite:///{path}", broker_url))
        client = stack.enter_context(redis.Redis.from_url(broker_url))
        client.flushdb()
        process = stack.enter_context(part("tests.odd_worker", one.settings))
        experiment_id, hints = parts.create(one.database, odd("quick"))
        for _ in range(2):
            client.lpush("agent_trainer", *NO_MESSAGES)
            until(lambda: client.llen("agent_trainer") == 0)
            one.broker.send(hints)
            until(lambda: attempts(one.database, experiment_id)[0].state == AttemptState.SUCCEEDED)
            assert process.poll() is None
    log = (tmp_path / "tests.odd_worker.log").read_text()
    assert log.count("dropped a damaged message") == 2 * (len(NO_MESSAGES) - 3), log  # 3 are calls, if odd
