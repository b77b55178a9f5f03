"""What labelers wait for, and what they are not told: the API against a real server, on both databases."""

import json
from datetime import timedelta
from typing import Any

import httpx

from shared.models import Attempt, Labeler
from tests.scenes import join, put_answer
from tests.served import Served, reason


def test_nothing_that_a_labeler_is_sent_before_the_answer_speaks_of_rounds(served: Served) -> None:
    scene = served.scene

    def marks() -> tuple[str, str]:
        """Return the batch's mark as the status and as the comparisons have it; no round is in any of it."""
        claims = scene.claims(served.ann)
        status = served.ann.get("/api/experiments/shapes").json()
        own = served.ann.get("/api/experiments/shapes/preferences").json()
        with served.ann.stream("GET", "/api/experiments/shapes/events") as stream:
            news = json.loads(next(line for line in stream.iter_lines() if line.startswith("data:"))[5:])
        (listed,) = served.ann.get("/api/experiments").json()
        for told in (status, news, listed):
            assert (told.pop("round"), told.pop("of"), told.pop("rounds")) == (None, None, [])
            assert told.pop("round_state") == "labeling"
        assert "round" not in json.dumps([claims, status, own, news, listed])
        assert "ound" not in served.ann.get("/?all").text.partition("<main")[2]
        (batch,) = {one["batch"] for one in claims["comparisons"]}
        assert {news["batch"], listed["batch"]} == {status["batch"]}
        return status["batch"], batch

    first = marks()
    assert first[0] == first[1]
    comparison = scene.claims(served.ann)["comparisons"][0]["id"]
    undone = served.ann.delete(put_answer(served.ann, comparison, [0, 1]).request.url.path).json()
    assert undone["batch"] == first[0]
    teachers_door = f"/api/teacher/comparisons/{comparison}"
    assert reason(served.ann.get(teachers_door), 401) == "no_teacher"
    assert served.ann.get(teachers_door, headers=served.teacher_header).json() == {"round": 1}
    unknown = served.ann.get("/api/teacher/comparisons/9999", headers=served.teacher_header)
    assert reason(unknown, 404) == "unknown"
    with served.scene.database.write() as session:  # no grace for people to wait for
        session.query(Labeler).update({"kind": "teacher"})
    scene.label_all(served.ann)
    scene.train_reward()
    status = served.ann.get("/api/experiments/shapes").json()
    assert (status["round"], status["of"], len(status["rounds"])) == (1, 4, 1)  # nothing is answered now
    scene.train_agent()
    scene.collect()
    second = marks()
    assert second[0] == second[1] != first[0]
    path = "/api/experiments/shapes/rounds"
    for client, header in ((served.ann, {}), (served.ann, served.teacher_header)):
        refused = client.get(path, headers=header)
        assert reason(refused, 409) == "labeling"
        assert "video" not in refused.text
    agents = served.admin.get(path).json()
    assert (agents["round"], [one["video"] is None for one in agents["rounds"]]) == (2, [False, True])
    served.admin.post("/api/admin/experiments/shapes/pause").raise_for_status()
    assert reason(served.ann.get(path), 409) == "labeling"  # people go on answering later
    served.admin.post("/api/admin/experiments/shapes/abandon", json={"reason": "enough"}).raise_for_status()
    assert served.ann.get(path).json() == agents


def test_the_time_to_the_next_batch_is_estimated_from_this_pace_and_earlier_rounds(served: Served) -> None:
    scene = served.scene

    def status() -> dict[str, Any]:
        answer: dict[str, Any] = served.ann.get("/api/experiments/shapes").json()
        return answer

    def took(stage: str, seconds: float) -> None:
        """Let the stage's success have taken so long."""
        with scene.database.write() as session:
            query = session.query(Attempt).filter_by(stage=stage, state="succeeded")
            attempt = query.order_by(Attempt.id.desc()).first()
            assert attempt is not None
            assert attempt.ended_at is not None
            attempt.claimed_at = attempt.ended_at - timedelta(seconds=seconds)

    with httpx.Client(base_url=served.url) as teacher:
        join(teacher, "oracle", **served.teacher_header)
        assert status()["wait"] is None  # people are asked: nothing is waited for
        scene.label_all(teacher)
        took("collecting", 30.0)
        # In the first round nobody knows how long training takes, but collecting was done before.
        first = status()
        assert (first["round"], first["wait"]["left_s"], first["wait"]["is_last"]) == (1, None, False)
        left = [(one["stage"], one["left_s"]) for one in first["wait"]["stages"]]
        assert left == [("training_reward", None), ("training_agent", None), ("collecting", 30.0)]
        scene.train_reward()
        took("training_reward", 10.0)
        scene.train_agent()
        took("training_agent", 100.0)
        assert status()["wait"]["left_s"] == 30.0
        scene.collect()
        took("collecting", 50.0)
        scene.label_all(teacher)
    # Twice as many labels by now: 20 s; then 100 s; then the median of 30 s and 50 s.
    assert [one["left_s"] for one in status()["wait"]["stages"]] == [20.0, 100.0, 40.0]
    assert status()["wait"]["left_s"] == 160.0
    attempt_id = scene.claim()
    scene.beat(attempt_id, 0.0)
    assert (
        155.0 < status()["wait"]["left_s"] <= 160.0
    )  # no pace yet: what it usually takes, less what it took
    with scene.database.write() as session:
        attempt = session.get_one(Attempt, attempt_id)
        assert attempt.first_step_at is not None
        attempt.first_step_at -= timedelta(seconds=30)
    scene.beat(attempt_id, 0.5)
    left_s = status()["wait"]["stages"][0]["left_s"]
    assert 25.0 < left_s <= 30.1  # half of it took 30 s: its own pace counts more than earlier rounds
    with (
        scene.database.write() as session
    ):  # no pace, and longer under way than usual: say that it is not known
        attempt = session.get_one(Attempt, attempt_id)
        attempt.progress, attempt.claimed_at = 0.01, attempt.first_step_at
    assert status()["wait"]["left_s"] is None
