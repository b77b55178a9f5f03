"""Practice and repeats through the API: nothing tells a repeat from another pair, and neither is counted."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as parquet
import pytest
import yaml

from services.labeler import handles
from shared import dataset
from shared.export import export
from shared.models import Aside, Preference
from shared.settings import secrets
from tests import scenes
from tests.scenes import Scene, join, put_answer
from tests.served import Served, reason

LABELS = {"comparisons_per_round": 12, "practice": 2, "repeats": 1.0, "undo_grace_s": 0.0}
NAME = "/api/experiments/shapes"


@pytest.fixture
def asking(tmp_path: Path, database_url: str) -> Iterator[Served]:
    """A service whose experiment asks for practice and repeats."""
    settings = scenes.settings_for(tmp_path, database_url, port=0, log_level="WARNING")
    kept = secrets(settings)
    admin = {"Authorization": f"Bearer {kept.admin_token}"}
    with (
        Scene(settings, labels=LABELS) as scene,
        scenes.serve(settings) as url,
        httpx.Client(base_url=url) as ann,
        httpx.Client(base_url=url) as bob,
        httpx.Client(base_url=url, headers=admin) as operator,
    ):
        scene.collect()
        join(ann, "ann")
        join(bob, "bob")
        yield Served(scene, url, ann, bob, operator, {"X-Teacher-Token": kept.teacher_token})


def best_first(comparison: dict[str, Any]) -> list[int]:
    """Rank the clip with the lower id first, wherever it is shown."""
    left, right = (clip["id"] for clip in comparison["clips"])
    return [int(left > right), int(left < right)]


def label_as_the_page_does(asking: Served, client: httpx.Client, count: int = 4) -> list[dict[str, Any]]:
    """Answer one pair after the other, a few fetched ahead; return them as they were handed out."""
    handed: list[dict[str, Any]] = []
    while comparisons := asking.scene.claims(client, count)["comparisons"]:
        assert len(comparisons) <= count
        handed.append(comparisons[0])
        put_answer(client, comparisons[0]["id"], best_first(comparisons[0])).raise_for_status()
    return handed


def pair_of(comparison: dict[str, Any]) -> frozenset[int]:
    return frozenset(clip["id"] for clip in comparison["clips"])


def test_repeats_come_among_the_others_and_change_no_label(asking: Served, tmp_path: Path) -> None:
    scene, ann = asking.scene, asking.ann
    handed = label_as_the_page_does(asking, ann)
    pairs = [pair_of(one) for one in handed]
    repeats = [place for place, pair in enumerate(pairs) if pair in pairs[:place]]
    assert len(set(pairs)) == 12
    assert repeats, "each is drawn, and there is room for some"
    assert all(place - pairs.index(pairs[place]) > 3 for place in repeats)
    assert pairs[-1] not in pairs[:-1]  # the batch ends with a label, not with a repeat
    assert {tuple(one) for one in handed} == {("id", "batch", "clips", "expires_at")}
    assert all(one["id"] >= handles.SEALED for one in handed)
    assert len({one["id"] for one in handed}) == len(handed)
    for place in repeats:
        first = handed[pairs.index(pairs[place])]
        assert [clip["id"] for clip in handed[place]["clips"]] == [clip["id"] for clip in first["clips"]][
            ::-1
        ]
    # The round has its labels and no more; only the labeler's own count has grown by what they answered.
    status = ann.get(NAME).json()
    assert (status["given"], status["wanted"]) == (12, 12)
    assert ann.get("/api/me").json()["labels"] == len(handed)
    with scene.database.read() as session:
        assert session.query(Preference).count() == 12
    # The newest answers stand in the list whichever kind they are.
    listed = [one["comparison"]["id"] for one in ann.get(f"{NAME}/preferences").json()["answers"]]
    assert listed == [one["id"] for one in handed[:-11:-1]]
    assert status["round_state"] == "training_reward"
    late = put_answer(ann, handed[repeats[0]]["id"], [0, 1])
    assert reason(late, 409) == "answered"
    # Who looks on sees who agreed with themselves, apart from the labels.
    (seen,) = [one for one in asking.admin.get("/api/admin/labelers").json() if one["name"] == "ann"]
    assert (seen["labels"], seen["repeats"], seen["repeated"]) == (12, len(repeats), len(repeats))
    charts = {one["id"]: one for one in asking.admin.get("/api/admin/experiments/shapes/charts").json()}
    many = len(repeats)
    assert charts["consistency"]["rows"] == [["ann", many, many, many, 1.0]]
    assert sum(charts["answers"]["rows"][0][1:]) == 12
    page = asking.admin.get("/labelers").text
    assert f"{many} of {many}" in page
    with scene.database.read() as session:
        folder = export(session, scene.store, "shapes", tmp_path / "out", add=dataset.adder("cc0-1.0"))
    told = parquet.read_table(folder / "asides.parquet").to_pylist()
    assert [one["kind"] for one in told] == ["repeat"] * many
    assert len(parquet.read_table(folder / "preferences.parquet")) == 12
    configs = yaml.safe_load((folder / "README.md").read_text().split("---")[1])["configs"]
    assert "asides.parquet" in {one["data_files"] for one in configs}


def test_a_repeat_is_renewed_skipped_and_undone_like_any_pair(asking: Served) -> None:
    scene, ann = asking.scene, asking.ann
    seen: set[frozenset[int]] = set()
    while (one := scene.claims(ann)["comparisons"][0]) and pair_of(one) not in seen:
        seen.add(pair_of(one))
        put_answer(ann, one["id"], best_first(one)).raise_for_status()
    again = scene.claims(ann)["comparisons"]
    assert again[0]["id"] == one["id"]  # it is held until it is answered
    assert reason(put_answer(asking.bob, one["id"], [0, 1]), 404) == "unknown"
    assert ann.post(f"/api/comparisons/{one['id']}/renew").json()["expires_at"] > one["expires_at"]
    key = str(uuid.uuid4())
    before = ann.get(NAME).json()["given"]
    for _ in range(2):
        assert put_answer(ann, one["id"], [0, 0], key).json() == {"given": before, "wanted": 12}
    assert reason(put_answer(ann, one["id"], [0, 0]), 409) == "answered"
    assert reason(asking.bob.delete(f"/api/preferences/{key}"), 404) == "unknown"
    for _ in range(2):
        undone = ann.delete(f"/api/preferences/{key}").json()
        assert undone | {"expires_at": ""} == one | {"expires_at": ""}
    assert ann.post(f"/api/comparisons/{one['id']}/skip").status_code == 204
    assert reason(ann.post(f"/api/comparisons/{one['id']}/renew"), 403) == "not_yours"
    assert one["id"] not in {other["id"] for other in scene.claims(ann)["comparisons"]}
    # A first time goes by its handle too, and one that is asked for can be undone under it.
    first = scene.claims(ann)["comparisons"][0]
    put_answer(ann, first["id"], [0, 1], key := str(uuid.uuid4())).raise_for_status()
    assert ann.delete(f"/api/preferences/{key}").json()["id"] == first["id"]


def test_a_teacher_knows_comparisons_by_their_ids_and_is_asked_once(asking: Served) -> None:
    with httpx.Client(base_url=asking.url) as teacher:
        join(teacher, "oracle", **asking.teacher_header)
        handed = label_as_the_page_does(asking, teacher)
    assert [one["id"] for one in handed] == sorted(one["id"] for one in handed)
    assert len(handed) == 12
    assert all(one["id"] < handles.SEALED for one in handed)
    with asking.scene.database.read() as session:
        assert session.query(Aside).count() == 0


def test_a_newcomer_practises_through_the_api(asking: Served) -> None:
    scene, bob = asking.scene, asking.bob
    nothing = {"done": 0, "of": 0, "comparisons": []}
    assert bob.post(f"{NAME}/practice").json() == nothing
    label_as_the_page_does(asking, asking.ann)
    scene.train_reward()
    scene.train_agent()
    scene.collect()
    found = bob.post(f"{NAME}/practice").json()
    assert (found["done"], found["of"]) == (0, 2)
    one, two = found["comparisons"]
    assert bob.get(one["clips"][0]["url"]).status_code == 200
    body = {"comparison": one["id"], "ranks": best_first(one), "seconds": 2.0}
    told = bob.put(f"/api/practice/{uuid.uuid4()}", json=body).json()
    assert told == {"others": best_first(one), "most": 1, "of": 1, "agreed": True}
    assert reason(bob.put(f"/api/practice/{uuid.uuid4()}", json=body), 409) == "answered"
    assert reason(bob.put(f"/api/practice/{uuid.uuid4()}", json=body | {"comparison": 999}), 404) == "unknown"
    assert [left["id"] for left in bob.post(f"{NAME}/practice").json()["comparisons"]] == [two["id"]]
    assert bob.post(f"{NAME}/practice/skip").status_code == 204
    assert bob.post(f"{NAME}/practice").json() == {"done": 2, "of": 2, "comparisons": []}
    assert asking.ann.post(f"{NAME}/practice").json() == nothing
    assert bob.get("/api/me").json()["labels"] == 0
    assert bob.get(NAME).json()["given"] == 0
    assert reason(bob.post("/api/experiments/nothing/practice"), 404) == "unknown"
