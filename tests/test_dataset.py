"""An export as a data set: its tables say what the database says, and the card how to load them."""

import os
import re
import subprocess
import venv
from pathlib import Path
from typing import Any

import httpx
import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest
import torch
import yaml

from docs import generate
from services import weights
from services.agent_trainer import ppo
from services.reward_trainer import reward_model
from shared import dataset
from shared.database import migrate
from shared.export import ExportError, clip_rows, export, preference_lines, round_rows
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
    assert [one["config_name"] for one in header["configs"] if one.get("default")] == ["preferences"]
    for one in header["configs"]:  # what `datasets` asks of a folder: a file each, with no column of nulls
        assert (folder / one["data_files"]).exists()
        schema = parquet.read_schema(folder / one["data_files"])
        assert not any(arrow.types.is_null(column.type) for column in schema)
        assert len(set(schema.names)) == len(schema.names)
    assert "24 answers of 2 labelers" in card
    assert instructions in card


def recipes() -> list[str]:
    """Return the Python that docs/data.md shows, in order: pandas, datasets, weights with us and without."""
    text = (generate.ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_documented_lines_load_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, agent = reward_model.RewardModel([4], reward_model.Args(members=2)), ppo.Agent([4], 2, seed=3)
    for folder, data in (
        ("reward_models", weights.save_reward_model(model)),
        ("agents", weights.save_agent(agent)),
    ):
        place = tmp_path / "exported" / "cartpole" / folder
        place.mkdir(parents=True)
        (place / "round-0001.safetensors").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    ours, plain = recipes()[2:]
    found: dict[str, Any] = {}
    exec(ours, found)
    assert len(ours.strip().splitlines()) <= 9  # imports, a blank line, and five lines
    zero = torch.zeros(1, 4)
    assert found["model"].reward(zero, zero, zero) == model.reward(zero, zero, zero)
    assert found["agent"].log_policy(zero).equal(agent.log_policy(zero))
    exec(plain, found)
    assert found["configuration"] == agent.sizes
    assert all(found["tensors"][name].equal(value) for name, value in agent.state_dict().items())


@pytest.mark.parametrize("licence", ["mit\nevil: yes", "", "CC BY 4.0", "a: b"])
def test_a_licence_is_an_identifier(licence: str) -> None:
    with pytest.raises(ExportError, match=r"identifier in lower case, cc-by-4\.0"):
        dataset.adder(licence)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pandas_and_datasets_open_it_as_documented(tmp_path: Path) -> None:
    """With both libraries themselves, in an environment of their own."""
    url = f"sqlite:///{tmp_path / 'lockstep.db'}"
    migrate(url)
    with scenes.Scene(scenes.settings_for(tmp_path, url, port=0, log_level="WARNING")) as scene:
        scene.collect()
        with scenes.serve(scene.settings) as address, httpx.Client(base_url=address) as ann:
            scenes.join(ann, "ann")
            scene.label_all(ann)
        folder = tmp_path / "exported" / "cartpole"
        with scene.database.read() as session:
            export(session, scene.store, "shapes", folder, add=dataset.adder("mit"))
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "pandas", "datasets"], check=True, timeout=800)
    card = re.search(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert card
    of_pandas, of_datasets = recipes()[:2]
    program = (
        f"{of_pandas}\nassert len(seen) == 12\n{of_datasets}\nassert len(answers) == 6 and len(clips) == 12\n"
        "import os\nassert all(os.path.isfile(row['video']['path']) for row in clips)\n"
        f"os.chdir('exported/cartpole')\n{card[1]}\nassert len(answers) == 6 and len(clips) == 12\n"
        "assert all(os.path.isfile(row['video']['path']) for row in clips)\n"
        "assert len(load_dataset(str(folder), 'rounds', split='train')) == 1\n"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"}
    subprocess.run([python, "-c", program], cwd=tmp_path, env=environment, check=True, timeout=100)
