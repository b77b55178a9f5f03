"""Connections and transactions, the same for SQLite (embedded) and Postgres (full).

Every change goes through `Database.write()`: one transaction, committed at the end of the block or not at
all. SQLite takes its single write lock at the start of the block, so what a block reads stays true until it
commits; on Postgres the functions in `rounds.py` and `labels.py` lock the rows they decide on.
"""

import json
import logging
import math
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

RECORDED = "recorded"  # event rows of a session that are to be logged
READ_ONLY = "lockstep_read_only"
# Postgres ends a transaction whose client says nothing for this long, so that a worker which is frozen or cut
# off in the middle of one holds up nobody by its locks.
IDLE_S = 5
REST_S = 0.2  # a connection that rested longer is tried before it is used: the server may have restarted
POOL = 16  # connections kept open, once so many were needed; as many more in a rush
POSTGRES_CONNECTION = {
    "connect_timeout": 10,
    "options": f"-c idle_in_transaction_session_timeout={IDLE_S}s",
    # A server that vanished without a word is noticed within half a minute, not after a quarter of an hour.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}


class Database:
    """An engine and the two kinds of block that use it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = make_url(url).get_backend_name() == "sqlite"
        if self.is_sqlite:
            path = make_url(url).database
            if path:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            options: dict[str, Any] = {"connect_args": {"timeout": 30, "check_same_thread": False}}
            self.engine = create_engine(url, json_serializer=to_json, **options)
            event.listen(self.engine, "connect", _configure_sqlite)
            event.listen(self.engine, "begin", _begin_sqlite)
        else:
            options = {"pool_size": POOL, "max_overflow": POOL, "connect_args": POSTGRES_CONNECTION}
            # Last in, first out: the few that are in use have prepared what is asked for.
            self.engine = create_engine(url, json_serializer=to_json, pool_use_lifo=True, **options)
            event.listen(self.engine, "checkin", _note_use)
            event.listen(self.engine, "checkout", partial(_ping_after_a_rest, self.engine))

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Open a transaction that is committed at the end of the block, or rolled back by an exception."""
        with Session(self.engine, expire_on_commit=False) as session:
            with session.begin():
                yield session
            for row in session.info.pop(RECORDED, []):
                _log_event(row)

    @contextmanager
    def read(self, snapshot: bool = False) -> Iterator[Session]:
        """Read only: on SQLite that neither waits for writers nor holds them up.

        With `snapshot` everything is read as it was at one moment, and the reader may take its time. Without
        it Postgres would look afresh at every statement anyway, so we open no transaction there: that saves
        its beginning and its end, and a rollback would make the driver forget its prepared statements.
        """
        with self.engine.connect() as connection:
            connection.execution_options(**{READ_ONLY: True})
            if not self.is_sqlite:  # where every transaction reads as of one moment
                level = "REPEATABLE READ" if snapshot else "AUTOCOMMIT"
                connection.execution_options(isolation_level=level)
            if snapshot and not self.is_sqlite:
                connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            with Session(connection, autoflush=False, expire_on_commit=False) as session:
                yield session

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def now(session: Session) -> datetime:
    """Return the database's time (UTC): leases are judged by one clock, whatever a worker's own says."""
    if session.get_bind().dialect.name == "sqlite":
        return datetime.now(UTC)  # an embedded system has one machine, and so one clock
    moment: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return moment.astimezone(UTC)


def migrate(url: str, revision: str = "head") -> None:
    """Bring the database at `url` to `revision`, creating it where it is a file that is not there yet."""
    Database(url).close()  # makes the folder of a SQLite file
    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))  # Alembic gives % a meaning
    alembic.command.upgrade(config, revision)


def to_json(value: Any) -> str:
    """Write a JSON column. NaN and the infinities, which JSON and Postgres do not know, become null."""
    return json.dumps(_finite(value), allow_nan=False)


def _log_event(row: Any) -> None:
    """Log a row of the table of events, which is committed by now."""
    names = {"experiment": row.experiment_id, "round": row.round_id, "attempt": row.attempt_id}
    ids = {name: value for name, value in names.items() if value is not None}
    change = {name: getattr(row, name) for name in ("event", "source", "target", "actor")}
    place = ", ".join(f"{name} {value}" for name, value in ids.items())
    log.info("%s: %s by %s", place, row.event, row.actor, extra=ids | change)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def _note_use(_connection: Any, record: Any) -> None:
    record.info["used"] = time.monotonic()


def _ping_after_a_rest(engine: Engine, connection: Any, record: Any, _proxy: Any) -> None:
    """Try a connection that rested for a while; if it is gone, so are all that are as old.

    A labeler's answer takes a few milliseconds: on a busy server a try for each would be felt.
    """
    if time.monotonic() - record.info.get("used", math.inf) < REST_S:
        return
    try:
        engine.dialect.do_ping(connection)
    except engine.dialect.loaded_dbapi.Error as error:
        raise InvalidatePoolError from error


def _configure_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = (
        None  # transactions begin where _begin_sqlite says, not where pysqlite guesses
    )
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=30000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
