"""Clips, live status, administration and pages: against a real server, on both databases."""

import hashlib
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from shared import rounds
from shared.database import migrate
from shared.models import Clip, StoredArtifact
from tests import parts, scenes
from tests.conftest import fresh_postgres
from tests.scenes import join, put_answer
from tests.served import Served, reason
from tests.services import S3

# --------------------------------------------------------------------------------- clips


def test_a_clip_comes_whole_in_parts_and_not_at_all_when_it_is_known(served: Served) -> None:
    url = served.scene.claims(served.ann)["comparisons"][0]["clips"][0]["url"]
    whole = served.ann.get(url)
    data, size = whole.content, len(whole.content)
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.headers["etag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert "immutable" in whole.headers["cache-control"]
    assert "immutable" not in served.ann.get(url.partition("?")[0]).headers["cache-control"]
    ranges = {
        "bytes=0-9": data[:10], "bytes=10-": data[10:], "bytes=-7": data[-7:],
        f"bytes=5-{size + 99}": data[5:], f"bytes={size - 1}-{size - 1}": data[-1:],
    }  # fmt: skip
    for header, expected in ranges.items():
        part = served.ann.get(url, headers={"Range": header})
        assert (part.status_code, part.content) == (206, expected)
        assert int(part.headers["content-length"]) == len(expected)
    assert served.ann.get(url, headers={"Range": "bytes=2-3"}).headers["content-range"] == f"bytes 2-3/{size}"
    for header in ("bytes=0-1,5-6", "bytes=-", "bytes=9-2", "lines=1-2", "nonsense"):
        assert served.ann.get(url, headers={"Range": header}).content == data
    for header in (f"bytes={size}-", "bytes=-0"):
        beyond = served.ann.get(url, headers={"Range": header})
        assert reason(beyond, 416) == "no_such_range"
        assert beyond.headers["content-range"] == f"bytes */{size}"
    known = served.ann.get(url, headers={"If-None-Match": whole.headers["etag"]})
    assert (known.status_code, known.content) == (304, b"")
    old = served.ann.get(url, headers={"Range": "bytes=0-9", "If-Range": '"old"'})
    assert (old.status_code, old.content) == (200, data)
    assert reason(served.ann.get("/api/clips/9999.mp4"), 404) == "unknown"


def test_a_missing_or_damaged_file_is_a_clear_problem(served: Served) -> None:
    scene = served.scene
    with scene.database.read() as session:
        first, second = session.query(Clip).order_by(Clip.id).limit(2)
    folder = scene.settings.data_dir / "store"
    (folder / first.mp4_key).unlink()
    (folder / second.mp4_key).write_bytes(b"\0" * second.mp4_size)
    assert reason(served.ann.get(f"/api/clips/{first.id}.mp4"), 404) == "missing_artifact"
    assert reason(served.ann.get(f"/api/clips/{second.id}.mp4"), 500) == "damaged_artifact"
    assert served.ann.get(f"/api/clips/{second.id + 1}.mp4").status_code == 200


def test_the_agents_video_of_a_round(served: Served) -> None:
    scene = served.scene
    path = "/api/experiments/shapes/rounds/1/video.mp4"
    assert reason(served.admin.get(path), 404) == "unknown"
    with httpx.Client(base_url=served.url) as teacher:
        join(teacher, "oracle", **served.teacher_header)
        scene.label_all(teacher)
    scene.train_reward()
    scene.train_agent()
    rounds_now = served.ann.get("/api/experiments/shapes").json()["rounds"]
    assert [one["round"] for one in rounds_now] == [1, 2]
    assert rounds_now[1]["video"] is None
    video = served.ann.get(rounds_now[0]["video"])
    with scene.database.read() as session:
        stored = session.query(StoredArtifact).filter_by(kind="video").one()
    assert hashlib.sha256(video.content).hexdigest() == stored.sha256
    scene.collect()  # from here on people answer, and it might sway them
    for one in (path, rounds_now[0]["video"]):
        assert reason(served.ann.get(one), 409) == "labeling"
        assert served.admin.get(one).content == video.content


# ------------------------------------------------------------------------- status, admin


def test_live_status_tells_what_changes_and_sleeps_when_nobody_listens(served: Served) -> None:
    with served.ann.stream("GET", "/api/experiments/shapes/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = (line for line in stream.iter_lines() if line.startswith("data:"))
        assert json.loads(next(events)[5:])["given"] == 0
        comparison = served.scene.claims(served.bob)["comparisons"][0]["id"]
        put_answer(served.bob, comparison, [0, 1])
        news = json.loads(next(events)[5:])
        assert (news["given"], news["wanted"], news["round_state"]) == (1, 6, "labeling")
    assert reason(served.ann.get("/api/experiments/none/events"), 404) == "unknown"


def test_progress_and_time_left_of_a_stage(served: Served) -> None:
    with httpx.Client(base_url=served.url) as teacher:
        join(teacher, "oracle", **served.teacher_header)
        served.scene.label_all(teacher)
    attempt_id = served.scene.claim()
    served.scene.beat(attempt_id, 0.0)
    assert served.ann.get("/api/experiments/shapes").json()["attempt"]["eta_s"] is None
    served.scene.beat(attempt_id, 0.25)
    attempt = served.ann.get("/api/experiments/shapes").json()["attempt"]
    assert (attempt["stage"], attempt["state"], attempt["progress"]) == ("training_reward", "running", 0.25)
    assert attempt["eta_s"] is not None


def test_an_operator_creates_and_ends_an_experiment(served: Served) -> None:
    body = {"config": {"name": "second", "env_id": "CartPole-v1"}}
    created = served.admin.post("/api/admin/experiments", json=body)
    assert created.status_code == 201
    assert created.json()["rounds"][0]["state"] == "collecting"
    assert reason(served.admin.post("/api/admin/experiments", json=body), 409) == "stale_state"
    wrong = {"config": {"name": "third", "env_id": "CartPole-v1", "round": 3}}
    answer = served.admin.post("/api/admin/experiments", json=wrong)
    assert reason(answer, 422) == "bad_config"
    assert "did you mean rounds" in answer.json()["detail"]
    unknown = {"config": {"name": "third", "env_id": "CartPole"}}
    answer = served.admin.post("/api/admin/experiments", json=unknown)
    assert reason(answer, 422) == "bad_config"
    assert "did you mean CartPole-v1?" in answer.json()["detail"]
    assert [one["name"] for one in served.ann.get("/api/experiments").json()] == ["second", "shapes"]
    assert reason(served.admin.post("/api/admin/experiments/second/retry"), 409) == "stale_state"
    assert reason(served.admin.post("/api/admin/experiments/second/explode"), 422) == "malformed"
    ended = served.admin.post("/api/admin/experiments/second/abandon", json={"reason": "a slip"}).json()
    assert (ended["state"], ended["reason"]) == ("abandoned", "a slip")
    assert reason(served.admin.post("/api/admin/experiments/second/resume"), 409) == "stale_state"
    assert served.admin.post("/api/admin/experiments/shapes/finish").json()["state"] == "finished"


def test_the_report_and_the_events_of_a_failed_round(served: Served) -> None:
    scene = served.scene
    with httpx.Client(base_url=served.url) as teacher:
        join(teacher, "oracle", **served.teacher_header)
        scene.label_all(teacher)
    attempt_id = scene.claim()
    with scene.database.write() as session:
        rounds.fail(session, attempt_id, "RuntimeError: <b>the weights are gone</b>", 1)
    data = served.admin.get("/api/admin/experiments/shapes").json()
    first = data["rounds"][0]
    assert (first["state"], first["failed_stage"]) == ("failed", "training_reward")
    assert [one["state"] for one in first["attempts"]] == ["succeeded", "failed"]
    assert set(first["seconds"]) == {"collecting", "labeling", "training_reward"}
    assert first["labels"] == {"given": 6, "wanted": 6, "withdrawn": 0}
    assert data["labelers"] == [{"name": "oracle", "kind": "teacher", "labels": 6}]
    page = served.admin.get("/admin/shapes").text
    assert "&lt;b&gt;the weights are gone" in page
    assert 'data-admin="retry"' in page
    retried = served.admin.post("/api/admin/experiments/shapes/retry").json()
    assert retried["rounds"][0]["state"] == "training_reward"
    events = served.admin.get("/api/admin/experiments/shapes/events").json()
    names = [one["event"] for one in events]
    for event in ("created", "begun", "collected", "labeled", "gave_up", "retried"):
        assert event in names
    later = served.admin.get(f"/api/admin/experiments/shapes/events?after={events[-2]['id']}").json()
    assert later == events[-1:]


def test_the_pages_answer_and_load_nothing_from_elsewhere(served: Served) -> None:
    assert served.ann.get("/").headers["location"] == "/label/shapes"
    for path in ("/?all", "/label/shapes", "/agents/shapes", "/admin", "/admin/shapes", "/docs"):
        page = served.ann.get(path)
        assert page.status_code == 200
        assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page.text)
        for address in re.findall(r'(?:src|href)="(/static/[^"]+)"', page.text):
            file = served.ann.get(address)
            assert file.status_code == 200
            assert "immutable" in file.headers["cache-control"]
    missing = served.ann.get("/label/nothing", headers={"Accept": "text/html"})
    assert (missing.status_code, missing.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "there is no experiment named nothing" in missing.text


def test_a_database_without_tables_is_not_ready(tmp_path: Path, empty_database_url: str) -> None:
    settings = scenes.settings_for(tmp_path, empty_database_url, port=0, log_level="ERROR")
    with scenes.serve(settings) as url:
        assert httpx.get(f"{url}/healthz").json() == {"status": "ok"}
        assert reason(httpx.get(f"{url}/readyz"), 503) == "no_tables"
        assert reason(httpx.get(f"{url}/api/experiments"), 503) == "database"


def test_ready_is_who_reaches_database_broker_and_store(
    tmp_path: Path, postgres_url: str, postgres_template: str, redis_url: str, s3: S3
) -> None:
    with ExitStack() as stack:
        database_url = stack.enter_context(fresh_postgres(postgres_url, postgres_template))
        routes = {"database": database_url, "broker": redis_url, "store": s3.endpoint}
        cables = {}
        for name, url in routes.items():
            port = urlsplit(url).port
            cables[name] = stack.enter_context(parts.cable(port))
            routes[name] = url.replace(f":{port}", f":{cables[name].port}")
        settings = scenes.settings_for(
            tmp_path, routes["database"], broker_url=routes["broker"], store_url="s3://ready/x",
            s3_endpoint=routes["store"], s3_access_key=s3.access_key, s3_secret_key=s3.secret_key,
            port=0, log_level="ERROR",
        )  # fmt: skip
        url = stack.enter_context(scenes.serve(settings))

        def ready() -> httpx.Response:
            return httpx.get(f"{url}/readyz", timeout=60)

        assert ready().json() == {"status": "ok"}
        for name, cable in cables.items():
            cable.cut.set()
            assert reason(ready(), 503) == name
            assert httpx.get(f"{url}/healthz").status_code == 200
            cable.cut.clear()
            assert ready().json() == {"status": "ok"}

        cables["store"].stalled.set()
        with ThreadPoolExecutor() as pool:
            first = pool.submit(ready)
            time.sleep(0.5)
            assert reason(ready(), 503) == "slow"
            cables["store"].stalled.clear()
            assert first.result().json() == {"status": "ok"}


def test_an_embedded_system_whose_folders_are_gone_is_not_ready(tmp_path: Path) -> None:
    settings = scenes.settings_for(tmp_path, f"sqlite:///{tmp_path / 'x.db'}", port=0, log_level="ERROR")
    migrate(settings.database_url)
    data = settings.data_dir
    with scenes.serve(settings) as url:
        assert httpx.get(f"{url}/readyz").json() == {"status": "ok"}
        for name in ("broker", "store"):
            (data / name).rename(data / "elsewhere")
            (data / name).write_text("in its place")
            assert reason(httpx.get(f"{url}/readyz"), 503) == name
            (data / name).unlink()
            (data / "elsewhere").rename(data / name)
        assert httpx.get(f"{url}/readyz").json() == {"status": "ok"}
