"""The tests' own servers: real, apart from each other, and gone when they are done with."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa

from tests import services

SEEN: list[str] = []


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_a_database_of_its_own(empty_database_url: str, turn: int) -> None:
    engine = sa.create_engine(empty_database_url)
    with engine.begin() as connection:
        assert sa.inspect(connection).get_table_names() == []
        connection.execute(sa.text("CREATE TABLE mine (turn INTEGER)"))
    engine.dispose()
    assert empty_database_url not in SEEN
    SEEN.append(empty_database_url)


@pytest.mark.parametrize("turn", [1, 2])
def test_each_test_has_migrated_tables_without_a_row(database_url: str, turn: int) -> None:
    engine = sa.create_engine(database_url)
    tables = sa.MetaData()
    with engine.begin() as connection:
        tables.reflect(connection)
        assert {"experiments", "rounds", "attempts"} <= set(tables.tables)
        for name, table in tables.tables.items():
            if name != "alembic_version":
                assert connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0, name
        connection.execute(sa.text("CREATE TABLE alien (turn INTEGER)"))
    engine.dispose()
    assert "alien" not in tables.tables


def test_redis_answers_and_keeps_what_it_is_told(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.set("tests:one", "1")
        assert client.get("tests:one") == b"1"
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


# A shell that starts the tests in the background has them ignore SIGINT, which children inherit.
START = """
import signal, sys, time
from tests import services
signal.signal(signal.SIGINT, signal.default_int_handler)
with services.{server}() as it:
    print("up", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("server", ["redis_server", "postgres", "s3_server"])
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_no_server_outlives_the_tests(server: str, end: signal.Signals) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # Postgres's own user must get to what lies in it
        left = start_and_end(server, end, {**os.environ, "TMPDIR": folder})
        assert left == []
        if end == signal.SIGINT:
            assert list(Path(folder).iterdir()) == []


def start_and_end(server: str, end: signal.Signals, environment: dict[str, str]) -> list[str]:
    """Start `server` from a process of its own, send that `end`, return which of its children stay."""
    command = [sys.executable, "-c", START.format(server=server)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    ) as parent:
        try:
            assert parent.stdout is not None
            assert parent.stdout.readline() == "up\n"
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
            assert len(children) == 1
            parent.send_signal(end)
            parent.wait(30)
        finally:
            parent.kill()
    deadline = time.monotonic() + 10
    while (
        left := [pid for pid in children if Path(f"/proc/{pid}").exists()]
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def test_free_ports_are_different() -> None:
    assert len(set(services.free_ports(50))) == 50


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    def answers() -> None:
        raise OSError("nobody there")

    command = [services.find("redis-server"), "--port", "none"]
    broken = services.running(services.Launch(command, tmp_path, answers))
    with pytest.raises(RuntimeError, match=r"argument couldn.t be parsed|Invalid port"), broken:
        pass


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(RuntimeError, match="the tests need no-such-program"):
        services.find("no-such-program")
