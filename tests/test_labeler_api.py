"""The labeler's API against a real server, on both databases: labelers, comparisons, answers."""

import hashlib
import re
import time
import uuid
from collections.abc import Iterator

import httpx
import pytest

from shared.models import Labeler
from tests import scenes
from tests.scenes import join, put_answer
from tests.served import Served, reason

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
