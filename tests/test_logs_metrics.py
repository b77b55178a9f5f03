"""What operators see: structured logs and Prometheus's metrics."""

import json
import logging
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from shared import logs, rounds
from shared.database import Database
from shared.settings import load_settings, secrets
from shared.transitions import StaleState
from tests import core, scenes
from tests.served import Served, reason


def values(body: str) -> dict[tuple[str, ...], float]:
    """Return every sample by its name and the values of its labels."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def test_metrics_tell_what_the_database_says(served: Served) -> None:
    answer = httpx.get(f"{served.url}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    found = values(answer.text)
    assert found["lockstep_round_state", "shapes", "running", "labeling"] == 1
    assert found["lockstep_round", "shapes"] == 1
    assert 0 <= found["lockstep_round_state_age_seconds", "shapes"] < 100
    assert found["lockstep_labels_given", "shapes"] == 0
    assert found["lockstep_queue_depth", "reward_trainer"] == 0
    assert found["lockstep_attempts", "collecting", "succeeded"] == 1
    assert found["lockstep_trainer_steps_per_second", "shapes", "collecting"] > 0


def test_metrics_count_answers_and_how_long_they_took(database: Database, tmp_path: Path) -> None:
    experiment_id, _ = core.to_labeling(database)
    labeler = core.create_labeler(database, "ada", "person")
    core.label_everything(database, experiment_id, labeler)
    with database.write() as session:
        session.execute(text("UPDATE preferences SET seconds = 3.5"))
    with scenes.serve(scenes.settings_for(tmp_path, database.url, port=0)) as url:
        found = values(httpx.get(f"{url}/metrics").text)
    assert found["lockstep_labels_given", "cartpole"] == found["lockstep_labels_wanted", "cartpole"] == 3
    assert found["lockstep_label_seconds_bucket", "2.0"] == 0
    assert found["lockstep_label_seconds_bucket", "5.0"] == 3
    assert found["lockstep_label_seconds_count",] == 3
    assert found["lockstep_label_seconds_sum",] == pytest.approx(10.5)


def test_metrics_need_the_admin_where_others_can_come(database: Database, tmp_path: Path) -> None:
    settings = scenes.settings_for(tmp_path, database.url, port=0, allowed_hosts="label.example.org")
    with scenes.serve(settings) as url:
        assert reason(httpx.get(f"{url}/metrics"), 401) == "no_admin"
        token = secrets(settings).admin_token
        assert httpx.get(f"{url}/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def pause_twice(database: Database, experiment_id: int) -> None:
    with database.write() as session:
        rounds.pause(session, experiment_id, "a test")
        rounds.pause(session, experiment_id, "a test")


def test_every_change_of_state_is_one_line_of_json(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    experiment_id, attempt_id = core.create(database)
    assert core.claim(database, attempt_id)
    with pytest.raises(StaleState):  # what is not committed is not said
        pause_twice(database, experiment_id)
    round_id = core.newest_round(database, experiment_id).id
    lines = [logs.JsonFormatter().format(record) for record in caplog.records]
    said = [line for line in map(json.loads, lines) if "event" in line]
    assert [line["event"] for line in said] == ["created", "begun", "offered", "claimed"]
    claimed = said[-1]
    ids = {"experiment": experiment_id, "round": round_id, "attempt": attempt_id}
    assert {name: claimed[name] for name in ids} == ids
    assert (claimed["source"], claimed["target"], claimed["level"]) == ("offered", "running", "INFO")


def test_lines_carry_the_ids_of_the_blocks_around_them(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    root.handlers = []
    try:
        logs.set_up(load_settings(data_dir=tmp_path, log_format="json"))
        log = logging.getLogger("test")
        with logs.about(round=3), logs.about(attempt=7):
            try:
                raise ValueError("one\ntwo")
            except ValueError:
                log.exception("it %s", "broke")
        log.warning("outside")
    finally:
        root.handlers, root.level = kept, level
    inside, outside = map(json.loads, capsys.readouterr().err.splitlines())
    assert (inside["round"], inside["attempt"], inside["message"]) == (3, 7, "it broke")
    assert "ValueError: one\ntwo" in inside["traceback"]
    assert "round" not in outside
