"""Backup and restore: the whole database and every artifact that it names, in one file for either database.

The file is a tar archive: `backup.json` (the schema's revision, the number of rows by table),
`tables/NAME.jsonl` (one row a line), `store/KEY` (the artifacts). The database is read as it was at one
moment; artifacts never change, so those that it names are copied afterwards. The backup of an SQLite database
may be restored into Postgres and the other way round.
"""

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection, DateTime, MetaData, Table, func, insert, select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session

from shared.database import Database, migrate, to_json
from shared.storage import Store, StoreError

FORMAT = 1
BATCH = 500  # rows inserted at a time
INSUFFICIENT_PRIVILEGE = "42501"  # Postgres's word for it
REVISION = text("SELECT version_num FROM alembic_version")
# Which columns name an artifact, by table: its key and its sum.
NAMED = {"artifacts": [("key", "sha256")], "clips": [("npz_key", "npz_sha256"), ("mp4_key", "mp4_sha256")]}

Said = Callable[[str], None]


class BackupError(RuntimeError):
    """A backup that cannot be made or restored; the message says why. Nothing half done is left behind."""


def backup(database: Database, store: Store, path: Path) -> dict[str, int]:
    """Write everything to `path`, which must not exist; return how many rows and artifacts and bytes."""
    if path.exists():
        raise BackupError(f"{path} exists already: name a file that does not")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        with (
            as_owner(BackupError),
            tarfile.open(unfinished, "x") as archive,
            database.read(snapshot=True) as session,
        ):
            rows, named = _write_tables(archive, session)
            for key, sha256 in named.items():
                _add(archive, f"store/{key}", store.get(key, sha256))
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        os.link(unfinished, path)  # unlike a rename it never replaces a file
    except FileExistsError:
        raise BackupError(f"{path} exists already: name a file that does not") from None
    except (StoreError, OSError) as error:
        raise BackupError(f"no backup was made: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return {"rows": sum(rows.values()), "artifacts": len(named), "bytes": path.stat().st_size}


def restore(database_url: str, store: Store, path: Path) -> dict[str, int]:
    """Bring a backup into an empty database and its artifacts into the store; return how many of each.

    A backup of an earlier version is brought up to date. BackupError if the database holds anything, or the
    file is damaged: the database is then as empty as it was.
    """
    try:
        with as_owner(BackupError), tarfile.open(path, "r") as archive:
            head = json.loads(_member(archive, "backup.json").read())
            if head.get("format") != FORMAT:
                raise BackupError(
                    f"{path} is of format {head.get('format')}, and this version reads {FORMAT}"
                )
            _refuse_unless_empty(database_url)
            named = _read_names(archive, head["rows"])
            copied = _restore_store(archive, store, named)
            migrate(database_url, head["revision"])
            _insert_tables(archive, database_url, head["rows"])
    except (tarfile.TarError, OSError, ValueError, KeyError, StoreError) as error:
        raise BackupError(f"{path} cannot be restored: {error}") from error
    migrate(database_url)
    return {"rows": sum(head["rows"].values()), "artifacts": copied}


@contextmanager
def as_owner(error_type: type[Exception]) -> Iterator[None]:
    """Raise `error_type`, saying so, if the database's account has not all the rights that its owner has."""
    try:
        yield
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
            raise
        raise error_type(
            "only the owner of the database may read and write all of it: run this as the service `migrate` "
            "does, see docs/operations.md"
        ) from None


def _write_tables(archive: tarfile.TarFile, session: Session) -> tuple[dict[str, int], dict[str, str]]:
    """Write every table; return the rows by table and the sums of the artifacts by key."""
    rows: dict[str, int] = {}
    named: dict[str, str] = {}
    connection = session.connection()
    with tempfile.TemporaryDirectory() as folder:
        for table in _tables(connection):
            if table.name == "checkpoints":  # whose files pass away: training begins anew instead
                continue
            file = Path(folder) / table.name
            rows[table.name] = 0
            with file.open("w", encoding="utf-8") as lines:
                for row in connection.execute(select(table).order_by(*table.primary_key)).mappings():
                    lines.write(to_json({name: _plain(value) for name, value in row.items()}) + "\n")
                    rows[table.name] += 1
                    named |= {row[key]: row[sha256] for key, sha256 in NAMED.get(table.name, [])}
        revision = connection.execute(REVISION).scalar_one()
        made_at = datetime.now(UTC).isoformat(timespec="seconds")
        head = {"format": FORMAT, "made_at": made_at, "revision": revision, "rows": rows}
        _add(archive, "backup.json", json.dumps(head, indent=1).encode())
        for name in rows:
            archive.add(Path(folder) / name, f"tables/{name}.jsonl")
    return rows, named


def _insert_tables(archive: tarfile.TarFile, database_url: str, rows: dict[str, int]) -> None:
    database = Database(database_url)
    try:
        with database.write() as session:
            connection = session.connection()
            for table in _tables(connection):
                batch: list[dict[str, Any]] = []
                for row in _rows(archive, table.name) if table.name in rows else ():
                    batch.append({name: _typed(table, name, value) for name, value in row.items()})
                    if len(batch) == BATCH:
                        connection.execute(insert(table), batch)
                        batch = []
                if batch:
                    connection.execute(insert(table), batch)
                found = connection.execute(select(func.count()).select_from(table)).scalar_one()
                if found != rows.get(table.name, 0):
                    raise BackupError(f"{table.name} has {found} rows instead of {rows.get(table.name, 0)}")
                if not database.is_sqlite:
                    _advance_sequence(connection, table)
    finally:
        database.close()


def _restore_store(archive: tarfile.TarFile, store: Store, named: dict[str, str]) -> int:
    """Copy the artifacts; harmless if they are there already, as after a restore that was interrupted."""
    missing = set(named)
    for member in archive:
        folder, _, key = member.name.partition("/")
        if folder != "store":
            continue
        file = archive.extractfile(member)
        data = file.read() if file else b""
        if hashlib.sha256(data).hexdigest() != named.get(key):
            raise BackupError(f"the artifact {key} in the backup is damaged")
        store.put(key, data)
        missing.discard(key)
    if missing:
        raise BackupError(f"the backup lacks {len(missing)} artifacts, {min(missing)} among them")
    return len(named)


def _read_names(archive: tarfile.TarFile, rows: dict[str, int]) -> dict[str, str]:
    tables = [name for name in NAMED if name in rows]
    return {
        row[key]: row[sha256]
        for name in tables
        for row in _rows(archive, name)
        for key, sha256 in NAMED[name]
    }


def _rows(archive: tarfile.TarFile, table: str) -> Iterator[dict[str, Any]]:
    for line in _member(archive, f"tables/{table}.jsonl"):
        yield json.loads(line)


def _refuse_unless_empty(database_url: str) -> None:
    database = Database(database_url)
    try:
        with database.read() as session:
            connection = session.connection()
            for table in _tables(connection):
                if connection.execute(select(table).limit(1)).first() is not None:
                    raise BackupError(
                        f"the database is not empty ({table.name} has rows): restore into a new one, before "
                        "anything else runs"
                    )
    finally:
        database.close()


def _tables(connection: Connection) -> list[Table]:
    """Return the tables as this database has them, each after those that it refers to."""
    found = MetaData()
    found.reflect(connection)
    return [table for table in found.sorted_tables if table.name != "alembic_version"]


def _advance_sequence(connection: Connection, table: Table) -> None:
    """Let Postgres number the next row after the last one that was restored."""
    if "id" not in table.c:
        return
    with suppress(TypeError):  # an id that is not a number has no sequence
        last = connection.execute(select(func.max(table.c.id))).scalar_one()
        sequence = connection.execute(select(func.pg_get_serial_sequence(table.name, "id"))).scalar_one()
        if last is not None and sequence is not None:
            connection.execute(select(func.setval(sequence, last)))


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)).isoformat()
    return value


def _typed(table: Table, name: str, value: Any) -> Any:
    kind = table.c[name].type
    if isinstance(kind, DateTime) and value is not None:
        moment = datetime.fromisoformat(value)
        return moment if kind.timezone else moment.replace(tzinfo=None)  # SQLite keeps UTC without its name
    return value


def _member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime = len(data), int(datetime.now(UTC).timestamp())
    archive.addfile(entry, io.BytesIO(data))
