"""The labeler's API against a real server, on both databases: what it gives, and what it refuses."""

import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from shared import rounds
from shared.models import Clip, Labeler, StoredArtifact
from shared.settings import SettingsError, secrets
from tests import scenes
from tests.scenes import Scene, join, put_answer


@dataclass
class Served:
    """A running service, its experiment, and two people."""

    scene: Scene
    url: str
    ann: httpx.Client
    bob: httpx.Client
    admin: httpx.Client
    teacher_header: dict[str, str]


@pytest.fixture
def served(tmp_path: Path, database_url: str) -> Iterator[Served]:
    settings = scenes.settings_for(tmp_path, database_url, port=0, log_level="WARNING")
    scene = Scene(settings)
    scene.collect()
    kept = secrets(settings)
    with (
        scenes.serve(settings) as url,
        httpx.Client(base_url=url) as ann,
        httpx.Client(base_url=url) as bob,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {kept.admin_token}"}) as admin,
    ):
        join(ann, "ann")
        join(bob, "bob")
        yield Served(scene, url, ann, bob, admin, {"X-Teacher-Token": kept.teacher_token})
    scene.close()


def reason(answer: httpx.Response, status: int) -> str:
    """Check that `answer` is a problem document with `status`; return its reason."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    return str(body["reason"])


# ------------------------------------------------------------------------------ who labels


def test_joining_gives_a_token_of_which_only_the_sum_is_stored(served: Served) -> None:
    with httpx.Client(base_url=served.url) as client:
        answer = client.post("/api/labelers", json={"name": "cleo", "kind": "person"})
        assert answer.status_code == 201
        cookie = answer.headers["set-cookie"]
        assert all(word in cookie for word in ("lockstep_labeler=", "HttpOnly", "SameSite=strict"))
        assert client.get("/api/me").json() | {"id": 0} == {
            "id": 0,
            "name": "cleo",
            "kind": "person",
            "labels": 0,
        }
    token = answer.json()["token"]
    with served.scene.database.read() as session:
        stored = session.query(Labeler).filter_by(name="cleo").one().token_sha256
    assert stored == hashlib.sha256(token.encode()).hexdigest()


def test_a_visitor_without_a_name_gets_a_friendly_one(served: Served) -> None:
    names = {httpx.post(f"{served.url}/api/labelers", json={}).json()["name"] for _ in range(5)}
    assert len(names) == 5
    assert all(re.fullmatch(r"[a-z]+ [a-z]+( \d+)?", name) for name in names)


def test_a_name_can_change_until_the_first_answer(served: Served) -> None:
    assert served.ann.patch("/api/me", json={"name": "  anna "}).json()["name"] == "anna"
    assert reason(served.ann.patch("/api/me", json={"name": "bob"}), 409) == "taken"
    assert reason(served.ann.patch("/api/me", json={"name": "\n"}), 422) == "malformed"
    put_answer(served.ann, served.scene.claims(served.ann)["comparisons"][0]["id"], [0, 1])
    assert reason(served.ann.patch("/api/me", json={"name": "annette"}), 409) == "named"


def test_a_name_is_taken_once_but_a_teacher_may_come_back(served: Served) -> None:
    taken = httpx.post(f"{served.url}/api/labelers", json={"name": "ann", "kind": "person"})
    assert reason(taken, 409) == "taken"
    with httpx.Client(base_url=served.url) as first, httpx.Client(base_url=served.url) as second:
        join(first, "oracle", **served.teacher_header)
        join(second, "oracle", **served.teacher_header)
        assert reason(first.get("/api/me"), 401) == "no_labeler"
        assert second.get("/api/me").json()["kind"] == "teacher"
    refused = httpx.post(
        f"{served.url}/api/labelers",
        json={"name": "ann", "kind": "teacher"},
        headers=served.teacher_header,
    )
    assert reason(refused, 409) == "taken"


@pytest.mark.parametrize("token", [None, "wrong"])
def test_a_teacher_needs_the_teachers_token(served: Served, token: str | None) -> None:
    headers = {"X-Teacher-Token": token} if token else {}
    body = {"name": "oracle", "kind": "teacher"}
    answer = httpx.post(f"{served.url}/api/labelers", json=body, headers=headers)
    assert reason(answer, 401) == "no_teacher"


# ------------------------------------------------------------------- comparisons and answers


def test_two_labelers_never_hold_the_same_comparison(served: Served) -> None:
    anns = served.scene.claims(served.ann, 4)
    bobs = served.scene.claims(served.bob, 10)
    assert len(anns["comparisons"]) == 4
    assert len(bobs["comparisons"]) == 2
    assert not {one["id"] for one in anns["comparisons"]} & {one["id"] for one in bobs["comparisons"]}
    assert (anns["state"], anns["experiment_state"], anns["given"], anns["wanted"]) == (
        "labeling",
        "running",
        0,
        6,
    )
    again = served.scene.claims(served.ann, 4)["comparisons"]
    assert [one["id"] for one in again] == [one["id"] for one in anns["comparisons"]]
    clip = again[0]["clips"][0]
    assert (clip["steps"], clip["fps"]) == (scenes.STEPS, scenes.FPS)


def test_an_answer_sent_twice_counts_once(served: Served) -> None:
    comparison = served.scene.claims(served.ann)["comparisons"][0]["id"]
    key = str(uuid.uuid4())
    assert put_answer(served.ann, comparison, [0, 1], key).json() == {"given": 1, "wanted": 6}
    assert put_answer(served.ann, comparison, [0, 1], key).json() == {"given": 1, "wanted": 6}
    assert reason(put_answer(served.ann, comparison, [1, 0], key), 409) == "conflict"
    assert reason(put_answer(served.ann, comparison, [1, 0]), 409) == "answered"
    assert reason(put_answer(served.bob, comparison, [0, 1], key), 409) == "conflict"
    assert served.ann.get("/api/me").json()["labels"] == 1


@pytest.mark.parametrize("ranks", [[0, 1], [1, 0], [0, 0], None])
def test_every_kind_of_answer_is_taken(served: Served, ranks: list[int] | None) -> None:
    comparison = served.scene.claims(served.ann)["comparisons"][0]["id"]
    assert put_answer(served.ann, comparison, ranks).json()["given"] == 1


def test_undo_gives_the_comparison_back_the_same_way_round(served: Served) -> None:
    comparison = served.scene.claims(served.ann)["comparisons"][0]
    key = str(uuid.uuid4())
    put_answer(served.ann, comparison["id"], [0, 1], key)
    undone = served.ann.delete(f"/api/preferences/{key}").json()
    assert undone | {"expires_at": ""} == comparison | {"expires_at": ""}
    assert served.ann.delete(f"/api/preferences/{key}").status_code == 200
    assert put_answer(served.ann, comparison["id"], [1, 0]).json()["given"] == 1
    assert reason(served.ann.delete(f"/api/preferences/{uuid.uuid4()}"), 404) == "unknown"


def test_somebody_elses_comparison_is_refused(served: Served) -> None:
    comparison = served.scene.claims(served.ann)["comparisons"][0]["id"]
    key = str(uuid.uuid4())
    assert reason(put_answer(served.bob, comparison, [0, 1]), 403) == "not_yours"
    assert reason(served.bob.post(f"/api/comparisons/{comparison}/renew"), 403) == "not_yours"
    assert reason(served.bob.post(f"/api/comparisons/{comparison}/skip"), 403) == "not_yours"
    put_answer(served.ann, comparison, [0, 1], key)
    assert reason(served.bob.delete(f"/api/preferences/{key}"), 404) == "unknown"
    assert reason(put_answer(served.ann, 99_999, [0, 1]), 404) == "unknown"


def test_skip_gives_the_comparison_to_others(served: Served) -> None:
    held = served.scene.claims(served.ann, 10)["comparisons"]
    assert served.scene.claims(served.bob)["comparisons"] == []
    assert served.ann.post(f"/api/comparisons/{held[0]['id']}/skip").status_code == 204
    assert [one["id"] for one in served.scene.claims(served.bob)["comparisons"]] == [held[0]["id"]]
    assert reason(served.ann.post(f"/api/comparisons/{held[0]['id']}/skip"), 403) == "not_yours"


def test_renewing_moves_the_end_of_the_lease(served: Served) -> None:
    held = served.scene.claims(served.ann, 1)["comparisons"][0]
    renewed = served.ann.post(f"/api/comparisons/{held['id']}/renew").json()["expires_at"]
    assert renewed > held["expires_at"]


def test_late_answers_and_undos_are_refused_once_the_set_is_frozen(served: Served) -> None:
    with httpx.Client(base_url=served.url) as teacher:
        join(teacher, "oracle", **served.teacher_header)
        held = served.scene.claims(teacher)["comparisons"]
        key = str(uuid.uuid4())
        put_answer(teacher, held[0]["id"], [0, 1], key)
        for one in held[1:]:
            last = put_answer(teacher, one["id"], [0, 1])
        assert last.json() == {"given": 6, "wanted": 6}
        # A teacher needs no grace: the service itself has closed the round and offered the next stage.
        status = teacher.get("/api/experiments/shapes").json()
        assert status["round_state"] == "training_reward"
        assert status["attempt"]["state"] == "offered"
        broker, deadline = served.scene.settings.data_dir / "broker", time.monotonic() + 10
        while not list(broker.glob("*.reward_trainer.msg")):  # the hint leaves after the answer
            assert time.monotonic() < deadline, "no hint was sent"
            time.sleep(0.02)
        assert reason(teacher.delete(f"/api/preferences/{key}"), 409) == "frozen"
        assert reason(put_answer(teacher, held[0]["id"], [0, 1]), 409) == "answered"
        assert put_answer(teacher, held[0]["id"], [0, 1], key).status_code == 200
        assert served.scene.claims(teacher)["comparisons"] == []
        assert served.scene.claims(teacher)["state"] == "training_reward"


def test_a_pause_stops_handing_out_at_once(served: Served) -> None:
    assert served.admin.post("/api/admin/experiments/shapes/pause").json()["state"] == "paused"
    claims = served.scene.claims(served.ann)
    assert (claims["comparisons"], claims["experiment_state"]) == ([], "paused")
    assert served.admin.post("/api/admin/experiments/shapes/resume").json()["state"] == "running"
    assert len(served.scene.claims(served.ann)["comparisons"]) == 6


BAD_ANSWERS = [
    {},
    [],
    {"comparison": 1},
    {"comparison": 1, "ranks": "left"},
    {"comparison": 1, "ranks": [0]},
    {"comparison": 1, "ranks": [0, -1]},
    {"comparison": 1, "ranks": [0, 1.5]},
    {"comparison": "x", "ranks": [0, 1]},
    {"comparison": 2**40, "ranks": [0, 1]},
    {"comparison": 1, "ranks": [0, 1], "seconds": -1},
    {"comparison": 1, "ranks": [0, 1], "seconds": "NaN"},
    {"comparison": 1, "ranks": [0, 1], "surprise": 1},
]


def test_malformed_requests_are_refused_and_nothing_is_stored(served: Served) -> None:
    held = served.scene.claims(served.ann)["comparisons"][0]["id"]
    for body in BAD_ANSWERS:
        answer = served.ann.put(f"/api/preferences/{uuid.uuid4()}", json=body)
        assert reason(answer, 422) == "malformed"
    for raw in (b"", b"{", b"\xff\xfe", b'{"comparison": 1, "ranks": [0, 1], "seconds": NaN}'):
        headers = {"Content-Type": "application/json"}
        answer = served.ann.put(f"/api/preferences/{uuid.uuid4()}", content=raw, headers=headers)
        assert reason(answer, 422) == "malformed"
    assert reason(put_answer(served.ann, held, [0, 1, 2]), 422) == "malformed"
    assert reason(put_answer(served.ann, held, [0, 1], "not-a-uuid"), 422) == "malformed"
    for count in (0, 11, "many", None):
        answer = served.ann.post("/api/experiments/shapes/claims", json={"count": count})
        assert reason(answer, 422) == "malformed"
    too_large = served.ann.post("/api/experiments/shapes/claims", content=b"x" * 70_000)
    assert reason(too_large, 413) == "too_large"
    assert reason(served.ann.get("/api/experiments/nothing"), 404) == "unknown"
    assert reason(served.ann.get("/api/experiments/NO%2FWAY"), 404) == "not_found"
    assert reason(served.ann.get("/api/nowhere"), 404) == "not_found"
    assert reason(served.ann.delete("/api/me"), 405) == "method_not_allowed"
    assert served.ann.get("/api/me").json()["labels"] == 0


def test_a_body_of_unsaid_length_cannot_fill_the_memory(served: Served) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 4096

    answer = served.ann.post(
        "/api/experiments/shapes/claims", content=endless(), headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 413)
    assert served.ann.get("/healthz").status_code == 200


# ---------------------------------------------------------------------------- who may come in


def test_without_a_token_nothing_is_handed_out(served: Served) -> None:
    with httpx.Client(base_url=served.url) as nobody:
        assert reason(nobody.get("/api/me"), 401) == "no_labeler"
        assert reason(nobody.post("/api/experiments/shapes/claims", json={"count": 1}), 401) == "no_labeler"
        assert reason(put_answer(nobody, 1, [0, 1]), 401) == "no_labeler"
        assert reason(nobody.get("/api/clips/1.mp4"), 401) == "no_labeler"
        nobody.headers["Authorization"] = "Bearer guess"
        assert reason(nobody.get("/api/me"), 401) == "no_labeler"


def test_admin_and_teacher_endpoints_know_their_own(served: Served) -> None:
    held = served.scene.claims(served.ann)["comparisons"][0]["id"]
    paths = [
        ("GET", "/api/admin/experiments"),
        ("GET", "/api/admin/experiments/shapes"),
        ("GET", "/api/admin/experiments/shapes/events"),
        ("POST", "/api/admin/experiments/shapes/pause"),
        ("POST", "/api/admin/experiments"),
    ]
    for method, path in paths:
        assert reason(served.ann.request(method, path), 401) == "no_admin"
    assert reason(served.ann.get(f"/api/teacher/comparisons/{held}"), 401) == "no_teacher"
    assert reason(served.admin.get(f"/api/teacher/comparisons/{held}"), 401) == "no_teacher"
    view = served.ann.get(f"/api/teacher/comparisons/{held}", headers=served.teacher_header).json()
    assert [clip["judgement"] for clip in view["clips"]] == [[scenes.SECRET_JUDGEMENT] * scenes.STEPS] * 2
    whole_round = "/api/teacher/experiments/shapes/rounds/1"
    assert reason(served.ann.get(whole_round), 401) == "no_teacher"
    clips = served.ann.get(whole_round, headers=served.teacher_header).json()["clips"]
    assert len(clips) == 12
    assert {clip["id"] for clip in view["clips"]} <= {clip["id"] for clip in clips}
    for path in ("comparisons/999", "experiments/shapes/rounds/9", "experiments/none/rounds/1"):
        unknown = served.ann.get(f"/api/teacher/{path}", headers=served.teacher_header)
        assert reason(unknown, 404) == "unknown"


def test_foreign_hosts_and_other_sites_are_refused(served: Served) -> None:
    evil = served.ann.get("/api/me", headers={"Host": "evil.example"})
    assert reason(evil, 421) == "wrong_host"
    for host in ("localhost:8000", "127.0.0.1", "[::1]:80"):
        assert served.ann.get("/api/me", headers={"Host": host}).status_code == 200
    with httpx.Client(base_url=served.url) as browser:
        browser.post("/api/labelers", json={})
        body = {"count": 1}
        assert reason(browser.post("/api/experiments/shapes/claims", json=body), 403) == "cross_site"
        for origin in ("http://evil.example", "null", "http://127.0.0.1:1"):
            answer = browser.post("/api/experiments/shapes/claims", json=body, headers={"Origin": origin})
            assert reason(answer, 403) == "cross_site"
        own = browser.post("/api/experiments/shapes/claims", json=body, headers={"Origin": served.url})
        assert own.status_code == 200
    answer = httpx.post(f"{served.url}/api/labelers", json={}, headers={"Origin": "http://evil.example"})
    assert reason(answer, 403) == "cross_site"


def test_every_answer_has_the_security_headers(served: Served) -> None:
    for path in ("/", "/label/shapes", "/api/me", "/api/nowhere", "/healthz", "/docs"):
        headers = served.ann.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_off_loopback_everybody_needs_a_token(tmp_path: Path, database_url: str) -> None:
    weak = scenes.settings_for(tmp_path, database_url, host="0.0.0.0", port=0)
    with pytest.raises(SettingsError, match="refusing to serve"), scenes.serve(weak):
        pass
    tokens = {"admin_token": "k3Jx9-admin-Qw7Zr2Lm5v", "teacher_token": "p8Tn4-teach-Hs6Yb1Gc3d"}
    settings = scenes.settings_for(tmp_path, database_url, host="0.0.0.0", port=0, **tokens)
    scene = Scene(settings)
    with scenes.serve(settings) as url, httpx.Client(base_url=url) as nobody:
        assert reason(nobody.post("/api/labelers", json={}), 401) == "no_admin"
        assert reason(nobody.get("/api/experiments"), 401) == "no_labeler"
        for path in ("/", "/label/shapes", "/agents/shapes"):
            page = nobody.get(path).text
            assert "The token that the operator gave you" in page
            assert "data-experiment" not in page
        assert "The admin token" in nobody.get("/admin/shapes").text
        admin = {"Authorization": f"Bearer {tokens['admin_token']}"}
        dora = nobody.post("/api/labelers", json={"name": "dora"}, headers=admin)
        assert "set-cookie" not in dora.headers
        own = {"Origin": url}
        assert reason(nobody.post("/api/session", json={"token": "x"}, headers=own), 401) == "no_labeler"
        assert (
            nobody.post("/api/session", json={"token": dora.json()["token"]}, headers=own).status_code == 204
        )
        assert nobody.get("/api/me").json()["name"] == "dora"
        assert 'data-experiment="shapes"' in nobody.get("/label/shapes").text
        assert reason(nobody.post("/api/admin/session", json={"token": "x"}, headers=own), 401) == "no_admin"
        nobody.post("/api/admin/session", json={"token": tokens["admin_token"]}, headers=own)
        assert nobody.get("/api/admin/experiments/shapes").json()["name"] == "shapes"
    scene.close()


def test_labelers_cannot_read_a_judgement_a_metric_or_a_true_return(served: Served) -> None:
    """Run an experiment to its solved end and search everything a labeler can be sent for the secrets."""
    scene = served.scene
    comparisons = scene.claims(served.ann)["comparisons"]
    texts = [json.dumps(comparisons)]
    texts += [put_answer(served.ann, one["id"], [0, 1]).text for one in comparisons]
    with scene.database.write() as session:
        session.execute(Labeler.__table__.update().values(kind="teacher"))  # no grace to wait for
    assert scene.close_labeling()
    scene.train_reward()
    scene.train_agent()
    with scene.database.write() as session:
        rounds.finish(session, scene.id, "test", f"solved: mean true return {scenes.SECRET_RETURN}")
    paths = [
        "/", "/?all", "/label/shapes", "/agents/shapes", "/docs", "/openapi.json", "/api/me", "/healthz",
        "/readyz", "/api/experiments", "/api/experiments/shapes", "/admin-not", "/api/teacher/comparisons/1",
        "/api/admin/experiments/shapes", "/api/admin/experiments/shapes/events",
    ]  # fmt: skip
    texts += [served.ann.get(path, follow_redirects=True).text for path in paths]
    with served.ann.stream("GET", "/api/experiments/shapes/events") as stream:
        lines = stream.iter_lines()
        texts += [next(lines), next(lines)]
    everything = "\n".join(texts)
    assert '"round":1' in everything.replace(" ", "")
    hidden = (
        scenes.SECRET_RETURN,
        scenes.SECRET_RETURN - 300.0,
        scenes.SECRET_JUDGEMENT,
        scenes.SECRET_METRIC,
    )
    for secret in hidden:
        assert f"{secret:.2f}"[:-1] not in everything
    assert "true return" not in everything
    assert f"{scenes.SECRET_RETURN - 300.0:.1f}" in served.admin.get("/admin/shapes").text


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
    assert reason(served.ann.get(path), 404) == "unknown"
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
