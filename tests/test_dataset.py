"""An export as a data set: its tables say what the database says, and the card how to load them."""

from pathlib import Path

import httpx
import pyarrow.parquet as parquet
import yaml

from shared import dataset
from shared.export import clip_rows, export, preference_lines, round_rows
from shared.models import Experiment
from tests import scenes
from tests.admin_scene import live_through


def test_the_tables_hold_every_answer_clip_and_round(tmp_path: Path, database_url: str) -> None:
    settings = scenes.settings_for(tmp_path, database_url, port=0, log_level="WARNING")
    with scenes.Scene(settings, labels={"labels_per_comparison": 2}) as scene:
        scene.collect()
        with scenes.serve(settings) as url:
            live_through(scene, lambda: httpx.Client(base_url=url), 2)
        with scene.database.read() as session:
            folder = export(session, scene.store, "shapes", tmp_path / "out", add=dataset.adder("cc-by-4.0"))
            answers = preference_lines(session, scene.id)
            clips, rounds = clip_rows(session, scene.id), round_rows(session, scene.id)
            instructions = session.get_one(Experiment, scene.id).config["labels"]["instructions"]
    told = parquet.read_table(folder / "preferences.parquet").to_pylist()
    assert len(told) == 24
    for row in told:
        row["answered_at"] = row["answered_at"].isoformat()
    assert told == answers
    assert any(row["ranks"] is None and row["incomparable"] for row in told)
    assert parquet.read_table(folder / "clips.parquet").to_pylist() == clips
    assert parquet.read_table(folder / "rounds.parquet").to_pylist() == rounds
    assert [rounds[0][name] for name in ("held_out_accuracy", "predicted_return", "true_return")] == [
        0.55, 3.0, 22.0,
    ]  # fmt: skip
    for clip in clips:
        assert (folder / clip["mp4"]).read_bytes()[4:8] == b"ftyp"
        assert (folder / clip["npz"]).exists()
    card = (folder / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["license"] == "cc-by-4.0"
    assert {one["config_name"] for one in header["configs"]} == {"preferences", "clips", "rounds"}
    assert all((folder / one["data_files"]).exists() for one in header["configs"])
    assert "24 answers of 2 labelers" in card
    assert instructions in card
