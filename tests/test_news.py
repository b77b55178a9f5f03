"""Live news: the admin is told what the list tells, and a stream ends with the session that asked for it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.labeler import live
from shared import rounds
from tests import scenes
from tests.doors import Gate, open_gate
from tests.served import Served, reason

LIST, ALL = "/api/admin/experiments", "/api/admin/news"
ONE = "/api/admin/experiments/shapes/news"


@contextmanager
def stream(client: httpx.Client, path: str) -> Iterator[Iterator[Any]]:
    """Open a stream; give what its events hold, until it ends."""
    with client.stream("GET", path, timeout=30.0) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield (json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: "))


def test_the_admin_is_told_what_the_list_tells(served: Served) -> None:
    scene, admin = served.scene, served.admin
    with stream(admin, ALL) as everything, stream(admin, ONE) as one:
        assert next(everything)["experiments"] == admin.get(LIST).json()
        (row,) = next(one)["experiments"]
        assert (row["round"], row["of"], row["round_state"]) == (1, 4, "labeling")
        assert (row["given"], row["wanted"], row["progress"]) == (0, 6, None)
        with httpx.Client(base_url=served.url) as teacher:
            scenes.join(teacher, "oracle", **served.teacher_header)
            scene.label_all(teacher)
        attempt_id = scene.claim()
        scene.beat(attempt_id, 0.4)
        until = lambda told: next(news for news in told if news["experiments"][0]["progress"] == 0.4)  # noqa: E731
        for told in (everything, one):
            assert until(told)["experiments"] == admin.get(LIST).json()
        before = admin.get(LIST).json()[0]["last_event"]
        with scene.database.write() as session:
            rounds.fail(session, attempt_id, "boom", 1)
        (failed,) = next(news["experiments"] for news in one if news["experiments"][0]["last_event"] > before)
        assert failed["round_state"] == "failed"
        with scenes.Scene(scene.settings, name="another"):
            names = [[row["name"] for row in next(everything)["experiments"]] for _ in range(2)]
            assert names[-1] == ["another", "shapes"]
            (first,) = admin.get(LIST, params={"limit": 1}).json()
            with stream(admin, f"{ALL}?before={first['id']}") as older:
                assert [row["name"] for row in next(older)["experiments"]] == ["shapes"]
    assert reason(served.admin.get(ONE.replace("shapes", "owls")), 404) == "unknown"
    assert reason(served.ann.get(ALL), 401) == "no_admin"


@pytest.fixture
def gate(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    monkeypatch.setattr(live, "KNOWN_S", 0.3)
    yield from open_gate(tmp_path, database_url, log_level="ERROR")


def test_a_stream_ends_with_the_session_that_asked_for_it(gate: Gate) -> None:
    ann, bob, admin, public = (
        gate.newcomer("ann"),
        gate.newcomer("bob"),
        gate.client(),
        "/api/experiments/shapes/events",
    )
    admin.post("/api/admin/session", json={"token": "k3Jx9-admin-Qw7Zr2Lm5v"}).raise_for_status()
    with (
        stream(ann, public) as anns,
        stream(bob, public) as bobs,
        stream(admin, ALL) as admins,
        stream(gate.admin(), ALL) as programs,
    ):
        for told in (anns, bobs, admins, programs):
            next(told)
        time.sleep(1.0)  # long enough for each to be looked at
        labelers = {one["name"]: one["id"] for one in gate.admin().get("/api/admin/labelers").json()}
        gate.admin().delete(f"/api/admin/labelers/{labelers['ann']}/sessions").raise_for_status()
        assert list(anns) == []
        gate.client(Cookie=f"lockstep_admin={admin.cookies['lockstep_admin']}").delete("/api/admin/session")
        assert list(admins) == []
        with gate.scene.database.write() as session:
            rounds.pause(session, gate.scene.id, "test")
        assert (
            next(bobs)["state"] == "paused"
        )  # whoever is still logged in, and a program with the token, go on
        assert next(programs)["experiments"][0]["state"] == "paused"
    assert reason(ann.get(public), 401) == "no_labeler"
