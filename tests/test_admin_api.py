"""What the admin page is made of: timeline, charts, comparisons. Against a real server, on both databases."""

import re
from dataclasses import replace
from typing import Any

import httpx
import plotly.graph_objects as go
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from services.labeler import learning_charts
from services.labeler.answers import in_order
from services.teachers import Lesson, Teacher, teach
from shared import rounds
from shared.database import now
from shared.models import Round, StoredArtifact
from shared.states import RoundState
from shared.storage import MissingArtifact
from shared.supervision import LOG_END
from tests import scenes
from tests.admin_scene import PAST, live_through
from tests.served import Served, reason


def client(served: Served) -> httpx.Client:
    return httpx.Client(base_url=served.url)


def charts(served: Served) -> dict[str, dict[str, Any]]:
    answer = served.admin.get("/api/admin/experiments/shapes/charts")
    answer.raise_for_status()
    return {one["id"]: one for one in answer.json()}


def test_only_an_admin_may_look(served: Served) -> None:
    paths = [
        "/api/admin/experiments/shapes/charts", "/api/admin/experiments/shapes/rounds/1/comparisons",
        "/api/admin/clips/1.mp4", "/api/admin/plotly.min.js",
    ]  # fmt: skip
    for path in paths:
        assert reason(served.ann.get(path), 401) == "no_admin"
        assert served.admin.get(path).status_code == 200
    assert served.admin.get(paths[3]).headers["content-type"].startswith("text/javascript")
    assert reason(served.admin.get("/api/admin/clips/99999.mp4"), 404) == "unknown"


def test_the_charts_of_an_experiment_without_an_answer_are_empty(served: Served) -> None:
    found = charts(served)
    assert found["pace"]["rows"] == found["agreement"]["rows"] == found["answers"]["rows"] == []
    assert found["returns"]["rows"] == [[1, None, None]]
    assert all(one["warning"] is None for one in found.values())


def test_the_charts_tell_what_was_answered_and_learned(served: Served) -> None:
    scene = served.scene
    given: list[list[int] | None] = [[0, 1], [0, 1], [0, 1], [1, 0], [0, 0], None]
    for one, ranks in zip(scene.claims(served.ann)["comparisons"], given, strict=True):
        scenes.put_answer(served.ann, one["id"], ranks).raise_for_status()
    found = charts(served)
    assert found["answers"]["columns"] == ["round", "left", "right", "tie", "incomparable"]
    assert found["answers"]["rows"] == [[1, 3, 1, 1, 1]]
    assert "3 of 4 decided answers (75%)" in found["answers"]["says"][0]
    assert "probability 0.625" in found["answers"]["says"][0]  # 2 · (1 + 4) / 16
    assert found["agreement"]["rows"] == [["ann", 6, 0, None, 0.75, pytest.approx(0.625)]]
    assert sum(row[1] for row in found["pace"]["rows"]) == 6
    assert "less than 1.5 s" in found["pace"]["says"][0]


def test_each_figure_draws_its_table(served: Served) -> None:
    with scenes.Scene(served.scene.settings, name="long", rounds=9) as scene:
        scene.collect()
        live_through(scene, lambda: client(served))
    answer = served.admin.get("/api/admin/experiments/long/charts").json()
    for chart in answer:
        traces = chart["figure"]["data"]
        go.Figure(chart["figure"])  # ValueError for what Plotly does not know
        assert [trace["name"] for trace in traces] == chart["drawn"]
        for trace in traces:
            column = chart["columns"].index(trace["name"])
            assert list(trace["y"]) == [row[column] for row in chart["rows"]]
            assert len(trace["x"]) == len(chart["rows"])
    found = {one["id"]: one for one in answer}
    assert found["returns"]["rows"][:4] == [[n, p, t] for n, (_, _, p, t) in enumerate(PAST, start=1)]
    assert "In round 4 the predicted return rose (14.0 to 21.0)" in found["returns"]["warning"]
    assert "correlation over the rounds is 0.69" in found["returns"]["says"][0]
    assert found["reward_loss"]["rows"][0] == [1, pytest.approx(0.58), 0.66]
    assert found["reward_accuracy"]["rows"][1][2] == 0.7
    assert found["agent"]["rows"][1][2] == 0.2


def test_two_labelers_of_the_same_comparisons_are_compared(served: Served) -> None:
    labels = {"labels_per_comparison": 2}
    with scenes.Scene(served.scene.settings, name="two", labels=labels) as scene:
        scene.collect()
        better: dict[int, int] = {}
        for index, one in enumerate(scene.claims(served.ann)["comparisons"]):
            clips = [clip["id"] for clip in one["clips"]]
            better[one["id"]] = min(clips)
            ranks = [int(clip != better[one["id"]]) for clip in clips]
            scenes.put_answer(served.ann, one["id"], ranks if index else [0, 0]).raise_for_status()
        for one in scene.claims(served.bob)["comparisons"]:
            ranks = [int(clip["id"] != better[one["id"]]) for clip in one["clips"]]
            scenes.put_answer(served.bob, one["id"], ranks).raise_for_status()
    found = {one["id"]: one for one in served.admin.get("/api/admin/experiments/two/charts").json()}
    chart = found["agreement"]
    assert [(row[0], row[2], row[3]) for row in chart["rows"]] == [
        ("ann", 6, pytest.approx(5 / 6)), ("bob", 6, pytest.approx(5 / 6)),
    ]  # fmt: skip
    assert "the same answer in 5 of 6 cases" in chart["says"][0]
    assert "Krippendorff's alpha" in chart["says"][1]


def test_the_comparisons_of_a_round_come_in_pages(served: Served) -> None:
    scene = served.scene
    one = scene.claims(served.ann, 1)["comparisons"][0]
    scenes.put_answer(served.ann, one["id"], [0, 1]).raise_for_status()
    path = "/api/admin/experiments/shapes/rounds/1/comparisons"
    first = served.admin.get(f"{path}?limit=4").json()
    assert (first["total"], first["next_after"]) == (6, 4)
    rest = served.admin.get(f"{path}?limit=4&after=4").json()
    assert rest["next_after"] is None
    both = first["comparisons"] + rest["comparisons"]
    assert [each["number"] for each in both] == [1, 2, 3, 4, 5, 6]
    answered = next(each for each in both if each["id"] == one["id"])
    (answer,) = answered["answers"]
    assert (answer["labeler"], answer["said"], answer["seconds"]) == ("ann", "left", 1.5)
    best = answered["clips"][answer["ranks"].index(0)]
    assert best["id"] == one["clips"][0]["id"]
    assert best["best"] is None
    assert served.admin.get(best["url"]).content[4:8] == b"ftyp"
    assert reason(served.admin.get(path.replace("rounds/1", "rounds/2")), 404) == "unknown"
    assert reason(served.admin.get(f"{path}?limit=0"), 422) == "malformed"


def test_predictions_stand_beside_the_clips_once_there_are_some(served: Served) -> None:
    with scenes.Scene(served.scene.settings, name="long") as scene:
        scene.collect()
        live_through(scene, lambda: client(served), 1)
        path = "/api/admin/experiments/long/rounds/1/comparisons"
        for one in served.admin.get(path).json()["comparisons"]:
            assert [clip["best"] for clip in one["clips"]] == [0.75, 0.25]
            assert all(len(clip["rewards"]) == scenes.STEPS for clip in one["clips"])
        assert "polyline" in served.admin.get("/admin/long/rounds/1").text
        (held_out,) = [one for one in served.admin.get(path).json()["comparisons"] if one["held_out"]]
        won = [{(0, 1): 1.0, (1, 0): 0.0, (0, 0): 0.5}[tuple(one["ranks"])] for one in held_out["answers"]]
        sure = {one["id"]: one for one in served.admin.get("/api/admin/experiments/long/charts").json()}
        assert sure["calibration"]["rows"] == [[0.75, sum(won) / len(won), len(won)]]
        with scene.database.read() as session:
            round_id = session.query(Round.id).filter(Round.experiment_id == scene.id, Round.number == 1)
            key = session.query(StoredArtifact.key).filter_by(round_id=round_id.scalar()).all()
        (told,) = [one for (one,) in key if one.endswith(".json")]
        scene.store.delete(told)
        with pytest.raises(MissingArtifact):
            scene.store.get(told)
        clips = served.admin.get(path).json()["comparisons"][0]["clips"]
        assert [clip["best"] for clip in clips] == [None, None]


def test_the_curves_of_training_grow_with_its_heartbeats(served: Served) -> None:
    scene = served.scene
    with client(served) as teacher:
        scenes.join(teacher, "oracle", **served.teacher_header)
        scene.label_all(teacher)
    attempt_id = scene.claim()
    for progress, loss in ((0.25, 0.7), (0.251, 0.69), (0.5, 0.6)):
        scene.beat(attempt_id, progress, **{"losses/reward_loss": loss})
    chart = charts(served)["reward_curve"]
    assert chart["rows"] == [[0.25, 0.7], [0.5, 0.6]]  # the second was nearly at the same place
    assert chart["figure"]["data"][0]["y"] == [0.7, 0.6]
    assert charts(served)["ppo"]["says"] == ["The curves begin with the first training of the agent."]


def test_rankings_of_three_are_shown_and_counted(served: Served) -> None:
    labels = {"clips_per_comparison": 3, "labels_per_comparison": 2, "comparisons_per_round": 12}
    with scenes.Scene(served.scene.settings, name="three", labels=labels) as scene:
        scene.collect()
        one, *others = scene.claims(served.ann)["comparisons"]
        assert [len(each["clips"]) for each in (one, *others)] == [3] * 10
        for wrong in ([0, 1], [0, 1, 2, 3], [0, -1, 1]):
            assert reason(scenes.put_answer(served.ann, one["id"], wrong), 422) == "malformed"
        scenes.put_answer(served.ann, one["id"], [1, 0, 1]).raise_for_status()
        (mine,) = served.ann.get("/api/experiments/three/preferences").json()["answers"]
        assert (mine["ranks"], mine["comparison"]["clips"]) == ([1, 0, 1], one["clips"])
        for each in others:
            scenes.put_answer(served.ann, each["id"], [1, 0, 2]).raise_for_status()
        lesson = Lesson(served.url, "three", Teacher("oracle"), served.teacher_header["X-Teacher-Token"])
        assert teach(replace(lesson, most_labels=12)) == 12  # every clip here is worth the same: all ties

        found = {each["id"]: each for each in served.admin.get("/api/admin/experiments/three/charts").json()}
        assert found["answers"]["columns"] == ["round", "first", "second", "third", "tie", "incomparable"]
        assert found["answers"]["rows"] == [[1, 0, 10, 0, 12, 0]]
        assert "prefer the second place" in found["answers"]["warning"]
        assert [(row[0], row[2]) for row in found["agreement"]["rows"]] == [("oracle-1", 30), ("ann", 30)]
        assert "the same answer in 1 of 30 cases" in found["agreement"]["says"][1]
        assert "worse, tie, better" in found["agreement"]["says"][2]
        assert "loss is 1.79" in learning_charts.reward_model([], 3).says[0]  # log 3!

        page = served.admin.get("/api/admin/experiments/three/rounds/1/comparisons").json()
        seen = next(each for each in page["comparisons"] if each["id"] == one["id"])
        by_ann = next(answer for answer in seen["answers"] if answer["labeler"] == "ann")
        assert by_ann["said"] == "2 > 1 = 3"
        best = seen["clips"][by_ann["ranks"].index(0)]
        assert best["id"] == one["clips"][1]["id"]
        shown = served.admin.get("/admin/three/rounds/1").text
        assert shown.count("<video") == 30
        assert in_order(by_ann["ranks"]).replace(">", "&gt;") in shown


def test_the_timeline_says_why_a_round_waits(served: Served) -> None:
    scene = served.scene

    def newest() -> dict[str, Any]:
        report = served.admin.get("/api/admin/experiments/shapes").json()
        span: dict[str, Any] = report["rounds"][-1]["timeline"][-1]
        return span

    assert newest()["says"] == "waits for 6 of 6 labels"
    served.admin.post("/api/admin/experiments/shapes/pause")
    assert newest()["says"] == "the experiment is paused; waits for 6 of 6 labels"
    served.admin.post("/api/admin/experiments/shapes/resume")
    with client(served) as teacher:
        scenes.join(teacher, "oracle", **served.teacher_header)
        scene.label_all(teacher)
    assert newest()["says"] == "waits for a free reward trainer"
    attempt_id = scene.claim()
    assert newest()["says"] == "a worker has it and is getting ready"
    scene.beat(attempt_id, 0.4)
    assert newest()["says"] == "40% done"
    with scene.database.write() as session:
        rounds.fail(session, attempt_id, "Traceback\nValueError: no such thing", 3)
    assert newest()["says"] == "waits for a free reward trainer, after try 1 ended: ValueError: no such thing"
    attempt_id = scene.claim()
    with scene.database.write() as session:
        rounds.fail(session, attempt_id, f"Traceback\nValueError: again{LOG_END}step 12", 3)
    assert newest()["says"] == "tries again in 1 s, after try 2 ended: ValueError: again"
    assert '<summary class="problem">ValueError: again</summary>' in served.admin.get("/admin/shapes").text
    assert len(newest()["attempts"]) == 3


def test_a_failed_and_retried_stage_stands_twice_in_the_timeline(served: Served) -> None:
    scene = served.scene
    with client(served) as teacher:
        scenes.join(teacher, "oracle", **served.teacher_header)
        scene.label_all(teacher)
    attempt_id = scene.claim()
    with scene.database.write() as session:
        rounds.fail(session, attempt_id, "out of memory", 1)
    spans = served.admin.get("/api/admin/experiments/shapes").json()["rounds"][0]["timeline"]
    assert spans[-1]["says"] == "gave up training reward: out of memory; mend it, then retry"
    retried = served.admin.post("/api/admin/experiments/shapes/retry").json()
    spans = retried["rounds"][0]["timeline"]
    stages = [one["stage"] for one in spans]
    assert stages == ["collecting", "labeling", "training_reward", "failed", "training_reward"]
    assert [len(one["attempts"]) for one in spans] == [1, 0, 1, 0, 1]
    assert spans[2]["attempts"] == [attempt_id]
    assert [one["event"] for one in retried["history"]] == ["created", "gave_up", "retried"]
    assert retried["history"][-1]["actor"] == "admin"


def test_presets_pages_and_errors_by_field(served: Served) -> None:
    preset = served.admin.get("/api/admin/presets").json()["cartpole"]
    assert preset["env_id"] == "CartPole-v1"
    words = preset | {"name": "second", "rounds": "7"}  # as a form sends them
    made = served.admin.post(
        "/api/admin/experiments", json={"config": words, "origin": "the preset cartpole"}
    )
    assert made.json()["config"] == preset | {"name": "second", "rounds": 7}
    assert made.json()["history"][0]["detail"] == {"origin": "the preset cartpole"}
    listed = served.admin.get("/api/admin/experiments?limit=1").json()
    assert [one["name"] for one in listed] == ["second"]
    (following,) = served.admin.get("/api/admin/experiments?limit=1").links.values()
    rest = served.admin.get(following["url"]).json()
    assert [one["name"] for one in rest] == ["shapes"]
    before = httpx.URL(following["url"]).params["before"]
    assert "second" not in served.admin.get("/admin", params={"before": before}).text
    wrong = {"name": "Third!", "env_id": "CartPole-v1", "agent": {"gamma": 2, "minibatch_size": 10**6}}
    answer = served.admin.post("/api/admin/experiments", json={"config": wrong})
    assert reason(answer, 422) == "bad_config"
    assert set(answer.json()["errors"]) == {"name", "agent.gamma"}
    wrong = {"name": "third", "env_id": "CartPole-v1", "agent": {"minibatch_size": 10**6}}
    (why,) = served.admin.post("/api/admin/experiments", json={"config": wrong}).json()["errors"].items()
    assert why[0] == ""
    assert "larger than a rollout" in why[1]
    for env_id in ("CartPol-v1", "nowhere:Env-v0"):
        unknown = {"config": {"name": "third", "env_id": env_id}}
        answer = served.admin.post("/api/admin/experiments", json=unknown)
        assert reason(answer, 422) == "bad_config"
        assert list(answer.json()["errors"]) == ["env_id"]


def test_a_fall_that_may_be_chance_is_no_warning() -> None:
    def round_(number: int, predicted: float, *true: float) -> dict[str, Any]:
        return {
            "number": number,
            "metrics": {"training_agent": {"charts/predicted_return": predicted}},
            "evaluation": {"mean": sum(true) / len(true), "true_returns": list(true)},
        }

    first = round_(1, 96.0, 300.0, 312.0, 324.0)
    assert learning_charts.returns([first, round_(2, 97.0, 299.9, 311.9, 323.9)]).warning is None
    assert learning_charts.returns([first, round_(2, 97.0, 270.0, 280.0, 290.0)]).warning


def test_a_thousand_rounds_come_a_page_at_a_time(served: Served) -> None:
    with served.scene.database.write() as session:
        moment = now(session)
        for number in range(2, 1001):
            past = Round(experiment_id=served.scene.id, number=number, created_at=moment, changed_at=moment)
            past.state = RoundState.DONE
            session.add(past)
    path, seen = "/admin/shapes", []
    while path:
        page = served.admin.get(path)
        assert page.status_code == 200
        assert len(page.content) < 100_000
        found = [int(number) for number in re.findall(r'id="round-(\d+)"', page.text)]
        assert len(found) <= 25
        seen += found
        earlier = re.search(r'href="\?before=(\d+)"', page.text)
        path = f"/admin/shapes?before={earlier[1]}" if earlier and len(seen) < 60 else ""
    assert seen == list(range(1000, 925, -1))
    last = served.admin.get("/admin/shapes?before=3").text
    assert "?before=" not in last
    assert "The last rounds" in last
    part = served.admin.get("/api/admin/experiments/shapes?before=500&limit=3").json()
    assert [one["number"] for one in part["rounds"]] == [497, 498, 499]


def test_whatever_the_admin_does_is_kept_with_who_when_and_why(served: Served) -> None:
    admin, path = served.admin, "/api/admin/experiments/shapes"
    ann = served.ann.get("/api/me").json()["id"]
    invitation = admin.post("/api/admin/invitations", json={"name": "Eve"}).json()["id"]
    steps = [
        admin.delete(f"/api/admin/invitations/{invitation}"),
        admin.delete(f"/api/admin/labelers/{ann}/sessions"),
        admin.post(f"{path}/pause"),
        admin.post(f"{path}/resume"),
        admin.post(f"{path}/abandon", json={"reason": "the clips are too dark"}),
    ]
    assert all(one.is_success for one in steps)
    assert reason(admin.post(f"{path}/resume"), 409) == "stale_state"  # refused: nothing to be kept
    acts = admin.get("/api/admin/actions").json()
    assert [(one["action"], one["about"], one["detail"]) for one in acts[::-1]] == [
        ("invited", "Eve", {"invitation": invitation, "days": 7}),
        ("revoked_invitation", "Eve", {"invitation": invitation}),
        ("ended_sessions", "ann", None),
        ("paused", "shapes", None),
        ("resumed", "shapes", None),
        ("abandoned", "shapes", {"reason": "the clips are too dark"}),
    ]
    assert {(one["actor"], one["address"]) for one in acts} == {("admin", "127.0.0.1")}
    older = admin.get(f"/api/admin/actions?limit=1&about=shapes&before={acts[0]['id']}").json()
    assert older == [acts[1]]
    assert "the clips are too dark" in admin.get("/actions?about=shapes").text
    for change in ("UPDATE admin_actions SET actor = 'nobody'", "DELETE FROM admin_actions"):
        with pytest.raises(DBAPIError, match="append-only"), served.scene.database.write() as session:
            session.execute(text(change))
