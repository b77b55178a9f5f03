"""Labels of one experiment as the first labels of another: nothing lost, nothing mixed, all of it final."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sqlalchemy import func, select

from services import reusing
from services.agent_trainer import clips
from shared import assignments, config, labels, reuse, rounds
from shared.database import Database, migrate
from shared.export import clip_rows, export, preference_lines
from shared.jobs import CollectJob, TrainRewardJob
from shared.labels import LabelError
from shared.models import Attempt, Event, Experiment, Labeler, Preference, Round
from shared.segments import shape_of
from shared.settings import Settings, secrets
from tests import scenes
from tests.admin_scene import live_through

KEPT = (
    "clips", "ranks", "shown", "held_out", "labeler", "labeler_kind", "seconds", "answered_at",
    "withdrawn_at",
)  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment in which two labelers answered, with ties, incomparable ones and withdrawn answers."""
    folder = tmp_path_factory.mktemp("source")
    url = f"sqlite:///{folder / 'source.db'}"
    migrate(url)
    settings = scenes.settings_for(folder, url, port=0, log_level="WARNING")
    with scenes.Scene(settings, labels={"labels_per_comparison": 2}) as scene:
        scene.collect()
        with scenes.serve(settings) as address:
            live_through(scene, lambda: httpx.Client(base_url=address), 1)
        with scene.database.read() as session:
            return export(session, scene.store, "shapes", folder / "out")


def wanted(name: str = "second", **changes: Any) -> config.ExperimentConfig:
    labels_ = {"comparisons_per_round": 6, "undo_grace_s": 0.0}
    return config.parse({"name": name, "env_id": "CartPole-v1", "rounds": 2, "labels": labels_} | changes)


def content(session: Any, experiment_id: int) -> list[list[Any]]:
    """What must survive: every answer, with the sums of its clips in place of their names."""
    sums = {
        row["clip"]: [row["npz_sha256"], row["mp4_sha256"], row["steps"], row["fps"]]
        for row in clip_rows(session, experiment_id)
    }
    rows = preference_lines(session, experiment_id)
    return [[[sums[name] for name in row["clips"]], *(row[key] for key in KEPT[1:])] for row in rows]


def exported_content(folder: Path) -> list[list[Any]]:
    clips = [json.loads(line) for line in (folder / "clips.jsonl").read_text().splitlines()]
    sums = {row["clip"]: [row["npz_sha256"], row["mp4_sha256"], row["steps"], row["fps"]] for row in clips}
    rows = [json.loads(line) for line in (folder / "preferences.jsonl").read_text().splitlines()]
    return [[[sums[name] for name in row["clips"]], *(row[key] for key in KEPT[1:])] for row in rows]


def order(rows: list[list[Any]]) -> list[str]:
    return sorted(json.dumps(row) for row in rows)


def test_a_round_trip_loses_nothing(tmp_path: Path, database_url: str, exported: Path) -> None:
    settings = scenes.settings_for(tmp_path, database_url)
    database = Database(database_url)
    with database.write() as session:  # a labeler of this system who is called like one of that one
        session.add(Labeler(name="Ada", kind="person", token_sha256="0" * 64, created_at=rounds.now(session)))
    reusing.create(settings, wanted(), exported)
    with database.read(snapshot=True) as session:
        again = export(session, settings.open_store(), "second", tmp_path / "again")
    reusing.create(settings, wanted("third"), again)
    with database.read() as session:
        experiments = {one.name: one.id for one in session.scalars(select(Experiment))}
        told = preference_lines(session, experiments["second"])
        assert {row["imported_from"] for row in told} == {"shapes"}
        assert {row["round"] for row in told} == {0}
        for name in ("second", "third"):
            assert order(content(session, experiments[name])) == order(exported_content(exported))
        assert {row["imported_from"] for row in preference_lines(session, experiments["third"])} == {
            "shapes, second"
        }
        sums = [
            session.scalars(
                select(Round.label_set_sha256).where(Round.experiment_id == number, Round.number == 0)
            ).one()
            for name, number in experiments.items()
        ]
        assert len(set(sums)) == 1  # the same labels, so the same sum
        assert session.scalars(select(Preference.id)).all()
        event = session.scalars(select(Event).where(Event.event == "imported")).first()
        assert event is not None
        assert event.detail == {"from": "shapes", "answers": len(told), "labelers": 2}
    database.close()


def test_the_first_reward_model_learns_from_them(tmp_path: Path, database_url: str, exported: Path) -> None:
    settings = scenes.settings_for(tmp_path, database_url, port=0, log_level="WARNING")
    with scenes.Scene(settings, name="other") as scene:  # the scene's own database and store
        reusing.create(settings, wanted(), exported)
        with scene.database.read() as session:
            scene.id = session.scalars(select(Experiment.id).where(Experiment.name == "second")).one()
            collecting = select(Attempt.id).join(Round).where(Round.experiment_id == scene.id)
            job = assignments.job_for(session, session.scalars(collecting).one(), None)
            assert isinstance(job, CollectJob)
            assert job.past_clip  # with which the trainer checks that both see alike
            assert job.run.startswith("second-")
        scene.name = "second"
        scene.collect()
        with scenes.serve(settings) as address, httpx.Client(base_url=address) as client:
            scenes.join(client, "Ada")
            assert len({one["batch"] for one in scene.claims(client)["comparisons"]}) == 1
            scene.label_all(client)  # no grace: the last answer closes labeling
            seen = client.get("/api/experiments/second").json()
            assert [film["round"] for film in seen["rounds"]] == [1]
        attempt_id = scene.claim()
        with scene.database.read() as session:
            job = assignments.job_for(session, attempt_id, None)
            past = [row for row in preference_lines(session, scene.id) if row["round"] == 0]
            theirs = session.scalars(select(Labeler).where(Labeler.imported_from.is_not(None))).first()
        assert isinstance(job, TrainRewardJob)
        trained = [row for row in past if row["ranks"] is not None and not row["withdrawn_at"]]
        assert [label.round_number for label in job.labels] == [0] * len(trained) + [1] * 6
        for label in job.labels:
            for clip in label.clips:
                scene.store.get(clip.key, clip.sha256)
        assert theirs is not None
        with scene.database.write() as session:
            standing = select(Preference.id).where(Preference.withdrawn_at.is_(None))
            given = session.scalars(standing.where(Preference.labeler_id == theirs.id)).first()
            assert given is not None
            with pytest.raises(LabelError, match="final"):
                labels.undo(session, given, theirs)


def test_rankings_come_in_whole_and_only_where_as_many_clips_are_ranked(
    tmp_path: Path, exported: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'lockstep.db'}"
    migrate(url)
    settings = scenes.settings_for(tmp_path, url, port=0, log_level="WARNING")
    three = {"clips_per_comparison": 3, "comparisons_per_round": 6}
    with scenes.Scene(settings, name="three", labels={**three, "labels_per_comparison": 2}) as scene:
        scene.collect()
        with scenes.serve(settings) as address:
            live_through(scene, lambda: httpx.Client(base_url=address), 1)
        with scene.database.read() as session:
            folder = export(session, scene.store, "three", tmp_path / "out")
        reusing.create(settings, wanted(labels=three), folder)
        with scene.database.read() as session:
            second = session.scalars(select(Experiment.id).where(Experiment.name == "second")).one()
            assert order(content(session, second)) == order(exported_content(folder))
            assert {len(row["ranks"]) for row in preference_lines(session, second) if row["ranks"]} == {3}
        with pytest.raises(reuse.ReuseError, match=r"given with labels\.clips_per_comparison = 3"):
            reusing.create(settings, wanted("third"), folder)
        older = tmp_path / "older"  # made before there was such a setting
        shutil.copytree(exported, older)
        told = json.loads((older / "config.json").read_text())
        del told["labels"]["clips_per_comparison"]
        (older / "config.json").write_text(json.dumps(told))
        with pytest.raises(reuse.ReuseError, match="not of 3 clips"):
            reusing.create(settings, wanted("third", labels=three), older)
        reusing.create(settings, wanted("fourth"), older)


def api_of(settings: Settings, address: str) -> httpx.Client:
    token = secrets(settings).admin_token
    return httpx.Client(base_url=address, headers={"Authorization": f"Bearer {token}"})


def edit(file: str, change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        rows = [json.loads(line) for line in (folder / file).read_text().splitlines()]
        change(rows)
        (folder / file).write_text("\n".join(map(json.dumps, rows)))

    return damage


def flip_a_bit(folder: Path) -> None:
    path = sorted((folder / "clips").glob("*.npz"))[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "another environment": (
        lambda folder: (folder / "config.json").write_text('{"env_id": "Pong", "segments": {"length": 25}}')
        and None,
        "given with env_id = Pong",
    ),
    "frames of another size": (
        lambda folder: (folder / "config.json").write_text(
            '{"env_id": "CartPole-v1", "segments": {"length": 25}, "atari": {"frame_size": 42}}'
        ) and None,
        "given with atari.frame_size = 42",
    ),
    "a damaged clip": (flip_a_bit, "is damaged"),
    "a missing film": (lambda folder: sorted(folder.glob("clips/*.mp4"))[-1].unlink(), "cannot be read"),
    "no export": (lambda folder: (folder / "preferences.jsonl").unlink(), "is this an export"),
    "half a line": (
        lambda folder: (folder / "preferences.jsonl").write_text('{"id": "1", "rou') and None, "line 1",
    ),
    "an unknown clip": (edit("preferences.jsonl", lambda rows: rows[0].update(clips=["a", "b"])), "clip a"),
    "odd ranks": (edit("preferences.jsonl", lambda rows: rows[0].update(ranks=[0, 7])), "do not order 2"),
    "an answer twice": (edit("preferences.jsonl", lambda rows: rows.append(rows[0])), "there twice"),
    "a way out": (
        edit("clips.jsonl", lambda rows: rows[0].update(mp4="../config.json")), "lies outside",
    ),
    "other steps": (edit("clips.jsonl", lambda rows: rows[0].update(steps=24)), "has not 25 steps"),
}  # fmt: skip


@pytest.mark.parametrize(("shape", "kind"), [((3,), np.float32), ((4, 8, 9), np.uint8)])
def test_the_shape_of_an_observation_is_read_from_a_clip(shape: tuple[int, ...], kind: type) -> None:
    observations = np.zeros((11, *shape), kind)
    data = clips.pack_npz(observations, np.zeros(10))
    assert shape_of(data, 10) == shape
    with pytest.raises(ValueError, match="its actions are"):
        shape_of(data, 12)


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_or_does_not_fit_changes_nothing(tmp_path: Path, exported: Path, what: str) -> None:
    damage, message = BROKEN[what]
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    damage(folder)
    url = f"sqlite:///{tmp_path / 'lockstep.db'}"
    settings = scenes.settings_for(tmp_path, url)
    with pytest.raises(reuse.ReuseError, match=message):
        reusing.create(settings, wanted(), folder)
    database = Database(url)
    with database.read() as session:
        for table in (Experiment, Labeler, Preference):
            assert session.scalars(select(func.count()).select_from(table)).one() == 0
    database.close()
    assert list(settings.open_store().list()) == []


def test_the_api_takes_over_the_labels_of_an_experiment(tmp_path: Path, database_url: str) -> None:
    settings = scenes.settings_for(tmp_path, database_url, port=0, log_level="WARNING")
    with scenes.Scene(settings, labels={"labels_per_comparison": 2}) as scene:
        scene.collect()
        with scenes.serve(settings) as address, api_of(settings, address) as client:
            live_through(scene, lambda: httpx.Client(base_url=address), 1)
            body = {"config": wanted().model_dump(mode="json"), "labels_from": "shapes"}
            made = client.post("/api/admin/experiments", json=body)
            assert made.status_code == 201, made.text
            assert [one["number"] for one in made.json()["rounds"]] == [0, 1]
            for path in ("", "/charts", "/events"):
                assert client.get(f"/api/admin/experiments/second{path}").status_code == 200
            for page in ("/admin/second", "/admin/second/rounds/0", "/admin/second/rounds/1"):
                assert client.get(page).status_code == 200, page
            with scene.database.read() as session:  # imported teachers: nobody may go on as them
                theirs = session.scalars(select(Labeler.name).where(Labeler.imported_from.is_not(None))).all()
            header = {"X-Teacher-Token": secrets(settings).teacher_token}
            for name in theirs:
                asked = {"name": name, "kind": "teacher"}
                assert client.post("/api/labelers", json=asked, headers=header).status_code == 409
            assert len(theirs) == 2
            body["config"] = wanted("short", segments={"length": 24}).model_dump(mode="json")
            refused = client.post("/api/admin/experiments", json=body)
            assert refused.status_code == 422
            assert "segments.length" in refused.json()["errors"]["labels_from"]
            second, first = client.get("/api/admin/reusable").json()
            assert (second["name"], first["name"]) == ("second", "shapes")
            assert second["answers"] == first["answers"] > 0
            assert first["given_with"]["segments.length"] == 25
            body |= {"labels_from": "nothing"}
            assert client.post("/api/admin/experiments", json=body).status_code == 404
        with scene.database.read() as session:
            second = session.scalars(select(Experiment.id).where(Experiment.name == "second")).one()
            assert order(content(session, second)) == order(content(session, scene.id))
