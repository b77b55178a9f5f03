"""Backup and restore: a round trip on both databases and across, and every way a file can be unfit."""

import json
import tarfile
from pathlib import Path

import pytest
from sqlalchemy import select

from shared import rounds
from shared.backup import BackupError, backup, restore
from shared.database import Database, to_json
from shared.jobs import Artifact, ClipRecord, CollectResult, ComparisonRecord, TrainRewardResult, put_artifact
from shared.models import Base, Experiment
from shared.storage import Store, open_store
from tests import core


def rows(database: Database) -> dict[str, list[str]]:
    """Return every row of every table, as JSON with moments as text."""
    found = {}
    with database.read() as session:
        for table in Base.metadata.sorted_tables:
            query = select(table).order_by(*table.primary_key)
            lines = [{k: str(v) if hasattr(v, "year") else v for k, v in row.items()}
                     for row in session.execute(query).mappings()]  # fmt: skip
            found[table.name] = [to_json(line) for line in lines]
    return found


def store_in(folder: Path) -> Store:
    return open_store(folder.as_uri())


def lived_in(database: Database, store: Store) -> list[Artifact]:
    """Give a database an experiment in the middle of a round; return its artifacts."""
    experiment_id, attempt_id = core.create(database)
    stored: list[Artifact] = []

    def put(kind: str, name: str) -> Artifact:
        stored.append(put_artifact(store, kind, f"experiments/{name}", name.encode() * 1000))
        return stored[-1]

    clips = [
        ClipRecord(put("clip_npz", f"{n}.npz"), put("clip_mp4", f"{n}.mp4"), 5, 10.0, [0.5 * n])
        for n in range(2)
    ]
    assert core.claim(database, attempt_id)
    with database.write() as session:
        rounds.complete(
            session, attempt_id, CollectResult(clips, [ComparisonRecord([0, 1], False)], {"x": 1.5})
        )
    labeler = core.create_labeler(database, "Ada Łovelace", "teacher")
    core.label_everything(database, experiment_id, labeler)
    reward = core.newest_round(database, experiment_id)
    core.close(database, reward.id)
    attempt = core.live_attempt(database, reward.id)
    assert attempt is not None
    assert core.claim(database, attempt.id)
    with database.write() as session:
        rounds.complete(session, attempt.id, TrainRewardResult(put("reward_model", "rm.safetensors"), {}))
    return stored


def test_a_round_trip_keeps_every_row_and_artifact(
    database: Database, empty_database_url: str, tmp_path: Path
) -> None:
    """From either database into either: it goes on there as if nothing had happened."""
    store, copy = store_in(tmp_path / "store"), store_in(tmp_path / "copy")
    stored = lived_in(database, store)
    written = backup(database, store, tmp_path / "out" / "all.tar")
    assert written["artifacts"] == len(stored) == 5
    restored = restore(empty_database_url, copy, tmp_path / "out" / "all.tar")
    assert restored == {"rows": written["rows"], "artifacts": 5}
    other = Database(empty_database_url)
    before, after = rows(database), rows(other)
    assert {name: len(lines) for name, lines in after.items()} == {
        n: len(lines) for n, lines in before.items()
    }
    assert after == before
    for artifact in stored:
        assert copy.get(artifact.key, artifact.sha256)
    # New rows are numbered after those that came back, and the events are still append-only.
    core.create(other, "second")
    with other.read() as session:
        assert [one.id for one in session.scalars(select(Experiment).order_by(Experiment.id))] == [1, 2]
    other.close()


def test_a_database_with_anything_in_it_is_left_alone(database: Database, tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    lived_in(database, store)
    backup(database, store, tmp_path / "all.tar")
    before = rows(database)
    with pytest.raises(BackupError, match="not empty"):
        restore(database.url, store, tmp_path / "all.tar")
    assert rows(database) == before


def test_no_backup_is_made_over_a_file_or_without_an_artifact(database: Database, tmp_path: Path) -> None:
    store = store_in(tmp_path / "store")
    stored = lived_in(database, store)
    backup(database, store, tmp_path / "all.tar")
    with pytest.raises(BackupError, match="exists already"):
        backup(database, store, tmp_path / "all.tar")
    store.delete(stored[0].key)
    with pytest.raises(BackupError, match="no backup was made"):
        backup(database, store, tmp_path / "second.tar")
    assert sorted(path.name for path in tmp_path.glob("*.tar")) == ["all.tar"]
    assert not list(tmp_path.glob(".*unfinished"))


def test_a_damaged_backup_restores_nothing(
    database: Database, empty_database_url: str, tmp_path: Path
) -> None:
    store = store_in(tmp_path / "store")
    lived_in(database, store)
    backup(database, store, tmp_path / "all.tar")
    whole = (tmp_path / "all.tar").read_bytes()
    at = whole.index(b"0.npz" * 10)
    damage = {
        "short": whole[: len(whole) // 2],
        "flipped": whole[:at] + b"X" + whole[at + 1 :],
        "no archive": b"hello" * 1000,
    }
    for name, data in damage.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(BackupError):
            restore(empty_database_url, store_in(tmp_path / f"copy of {name}"), tmp_path / name)
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "backup.json").write_text(json.dumps({"format": 99}))
    with tarfile.open(tmp_path / "newer.tar", "w") as archive:
        archive.add(tmp_path / "newer" / "backup.json", "backup.json")
    with pytest.raises(BackupError, match="format 99"):
        restore(empty_database_url, store, tmp_path / "newer.tar")
    # A whole one is still welcome: nothing of the damaged ones stayed.
    restore(empty_database_url, store_in(tmp_path / "copy"), tmp_path / "all.tar")
