"""Live news: the admin is told what the list tells, and a stream ends with the session that asked for it."""

import asyncio
import json
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

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


class Told(BaseModel):
    """News of a number."""

    number: int


def test_nobody_is_told_what_was_news_for_somebody_who_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody leaves while the database is asked for them, and comes back when others keep on listening."""
    monkeypatch.setattr(live, "LOOK_S", 0.001)
    asked, go_on, now = threading.Event(), threading.Event(), {"number": 1}
    one, other = live.Topic("status", "one"), live.Topic("status", "other")

    def look(topics: Collection[live.Topic]) -> dict[live.Topic, BaseModel]:
        found: dict[live.Topic, BaseModel] = {topic: Told(**now) for topic in topics}
        if one in topics and now["number"] == 2:
            asked.set()
            assert go_on.wait(10)
        return found

    async def come_and_go() -> int:
        lively = live.Live(look, lambda shown: set(shown))
        stays, leaves = lively.listen(other), lively.listen(one)
        await anext(stays)
        await anext(leaves)
        now["number"] = 2
        await asyncio.to_thread(asked.wait, 10)
        await leaves.aclose()  # type: ignore[attr-defined]
        now["number"] = 3
        go_on.set()
        while (await anext(stays)).number < 3:  # type: ignore[attr-defined]
            pass
        told = await anext(lively.listen(one))
        lively.close()
        return told.number  # type: ignore[attr-defined, no-any-return]

    assert asyncio.run(come_and_go()) == 3


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
