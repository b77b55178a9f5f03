"""Metrics to Trackio and Weights & Biases: TensorBoard's own, each step once, and never in a stage's way."""

import json
import logging
import os
import sqlite3
import subprocess
import sys
import time
import venv
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from services import tracking
from services.agent_trainer.stages import collect, train_agent
from services.reward_trainer.stages import train_reward
from services.tracker_process import Run
from shared.jobs import CollectJob, StageStopped, TrainAgentJob, TrainRewardJob
from shared.settings import Settings, SettingsError, check_tracker
from tests.test_stages import SMALL, Memory, go_on, labels_of, silent

ROOT = Path(__file__).parent.parent
Row = tuple[str, int, float]  # a metric, its step in TensorBoard, its value


class Book:
    """Stands at a library's place and writes down what it is told."""

    def __init__(self, has: int = 0) -> None:
        self.has = has
        self.rows: list[tuple[int, dict[str, float]]] = []

    def open(self, about: dict[str, Any], say: Any) -> int:
        return self.has

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.rows.append((step, dict(metrics)))

    def close(self) -> None: ...


class Straight(tracking.Tracker):
    """Passes on what goes to the tracker's process to a run in this one."""

    def __init__(self, folder: Path, book: Book) -> None:
        self.folder, self.book = folder, book
        self.run: Run | None = None

    def open(self, job: Any) -> None:
        self.run = Run(self.book, {"run": job.run}, self.folder, print)

    def _put(self, message: dict[str, Any]) -> None:
        assert self.run
        self.run.log(message["log"], message["step"])

    def close(self) -> None:
        assert self.run
        self.run.close()


def tensorboard(folder: Path, first: int) -> set[Row]:
    reader = EventAccumulator(str(folder), {"scalars": 0})
    reader.Reload()
    names = reader.Tags()["scalars"]
    return {(n, first + one.step, one.value) for n in names for one in reader.Scalars(n)}


def told(rows: list[tuple[int, dict[str, float]]], axis: str) -> list[Row]:
    return [
        (name, int(row[axis]), float(np.float32(value)))  # as TensorBoard keeps it
        for _, row in rows
        if axis in row
        for name, value in row.items()
        if name not in (axis, "round")
    ]


def test_a_tracker_is_told_what_tensorboard_is_told(tmp_path: Path) -> None:
    store, book, begun = Memory(), Book(), 0
    tracker = Straight(tmp_path, book)
    reward = tracking._told_to(tracker, "training_reward", train_reward)
    agent = tracking._told_to(tracker, "training_agent", train_agent)
    about: dict[str, Any] = {"attempt_id": 1, "seed": 1, "config": SMALL, "run": "small-1"}
    for number in (1, 2):
        now = about | {"round_number": number, "prefix": f"{number}/", "log_dir": None}
        first = collect(CollectJob(**now, agent=None, reward_model=None), store, silent, go_on, None)
        now["log_dir"] = str(tmp_path / f"reward-{number}")
        labels = labels_of(first, number)
        job = TrainRewardJob(**now, labels=labels, reward_model=None, agent=None)
        model = reward(job, store, silent, go_on, keep_checkpoint=None).reward_model  # type: ignore[union-attr]
        now["log_dir"] = str(tmp_path / f"agent-{number}")
        job = TrainAgentJob(**now, reward_model=model, agent=None)
        agent(job, store, silent, go_on, keep_checkpoint=lambda artifact: None)  # as a trainer calls it
        rows, begun = book.rows[begun:], len(book.rows)
        for axis, stage, passed in (
            ("reward_epoch", "reward", 15 * (number - 1)),
            ("global_step", "agent", 0),
        ):
            found, known = told(rows, axis), tensorboard(tmp_path / f"{stage}-{number}", passed)
            assert len(found) == len(known) > 5
            assert set(found) == known
    steps = [step for step, _ in book.rows]
    assert steps == sorted(set(steps))
    assert {row["round"] for _, row in book.rows} == {1, 2}
    # The same stage once more, as another attempt makes it: the run has all of it already.
    again = TrainAgentJob(**now | {"prefix": "again/"}, reward_model=model, agent=None)
    agent(again, store, silent, go_on)
    assert [step for step, _ in book.rows] == steps


def test_an_attempt_goes_on_where_the_one_before_was_killed(tmp_path: Path) -> None:
    def attempt(book: Book, run: str, steps: range) -> list[int]:
        one = Run(book, {"run": run}, tmp_path, print)
        for step in steps:
            one.log({"a": step}, step)
            one.log({"b": step}, step)
        one.close()
        return [step for step, _ in book.rows]

    assert attempt(Book(), "x", range(3)) == [0, 1, 2]
    assert attempt(Book(), "x", range(5)) == [3, 4]
    assert attempt(Book(has=4), "y", range(6)) == [4, 5]  # what the server says that it has
    (tmp_path / "z.json").write_text("half a li")
    assert attempt(Book(), "z", range(1)) == [0]


needs_absence = pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed here")


@needs_absence
def test_a_missing_package_is_named_with_what_to_do(tmp_path: Path) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path, tracker="wandb")
    with pytest.raises(SettingsError, match=r"LOCKSTEP_TRACKER=wandb needs .*'lockstep\[wandb\]'"):
        check_tracker(settings)
    with pytest.raises(SettingsError, match=r"lockstep\[wandb\]"):
        tracking.tracked({}, settings)
    environment = os.environ | {"LOCKSTEP_TRACKER": "wandb", "LOCKSTEP_DATA_DIR": str(tmp_path)}
    line = [sys.executable, "-m", "services", "run", "--no-browser"]
    answer = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=60)
    assert answer.returncode == 2
    assert "pip install 'lockstep[wandb]'" in answer.stdout


@needs_absence
def test_a_tracker_that_fails_is_said_once_and_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Here its library cannot be imported in its process: what fails there is all the same to a stage."""
    settings = Settings(_env_file=None, data_dir=tmp_path, tracker="wandb")
    tracker = tracking.Tracker(settings)

    def stage(job: Any, store: Any, on_progress: Any, should_stop: Any) -> Any:
        on_progress(0.5, {"losses/policy_loss": 1.0})
        raise StageStopped

    run = tracking._told_to(tracker, "training_agent", stage)
    job = TrainAgentJob(1, 1, 1, "p", SMALL, None, None, None, "small-1")  # type: ignore[arg-type]
    began = time.monotonic()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with pytest.raises(StageStopped):  # what the stage says comes through
                run(job, Memory(), silent, go_on)
        died = tracker._process
        assert died
        assert died.stdin
        assert died.stdout
        died.kill()
        died.wait()
        with pytest.raises(StageStopped):
            run(job, Memory(), silent, go_on)
    assert time.monotonic() - began < tracking.CLOSE_S
    while not (died.stdin.closed and died.stdout.closed):  # its pipes are let go of, not left to chance
        assert time.monotonic() - began < 2 * tracking.CLOSE_S
        time.sleep(0.01)
    assert [one.message.partition(" (training")[0] for one in caplog.records] == [
        "tracker wandb: ModuleNotFoundError: No module named 'wandb'"
    ]


@pytest.fixture(scope="module")
def trackers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has both trackers besides what this one has."""
    folder = tmp_path_factory.mktemp("trackers")
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    here = next(path for path in sys.path if path.endswith("site-packages"))
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (folder / "lib" / version / "site-packages" / "also.pth").write_text(here)
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "trackio>=0.40", "wandb>=0.27"], check=True, timeout=600
    )
    return python


def tell(python: Path, tracker: str, folder: Path, steps: range, **more: str) -> list[dict[str, Any]]:
    """Play one attempt that logs `steps`; return the process's answers."""
    about = {"run": "small-1", "name": "small", "project": "lockstep", "config": {"seed": 1}}
    rows = [{"log": {"losses/entropy": 0.5 * n, "global_step": 8 * n}, "step": n} for n in steps]
    lines = [json.dumps(line) + "\n" for line in ({"open": about}, *rows, {"close": True})]
    folder.joinpath("tracker").mkdir(exist_ok=True)
    answer = subprocess.run(
        [python, "-m", "services.tracker_process", tracker, folder / "tracker"], input="".join(lines),
        env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(folder), **more}, text=True,
        stdout=subprocess.PIPE, timeout=110, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in answer.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_trackio_keeps_every_step_once(trackers: Path, tmp_path: Path) -> None:
    assert tell(trackers, "trackio", tmp_path, range(3)) == [{"closed": True}]
    away = {"TRACKIO_SERVER_URL": "http://127.0.0.1:9"}
    warning, closed = tell(trackers, "trackio", tmp_path, range(5), **away)
    assert "cannot be reached" in warning["warning"]
    assert closed == {"closed": True}
    with closing(sqlite3.connect(tmp_path / "trackio" / "lockstep.db")) as database:
        rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
    assert {name for name, _, _ in rows} == {"small-1"}
    found = [
        (step, row["losses/entropy"], row["global_step"])
        for _, step, text in rows
        for row in [json.loads(text)]
    ]
    assert found == [(n, 0.5 * n, 8 * n) for n in range(5)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_wandb_goes_offline_while_its_server_is_away(trackers: Path, tmp_path: Path) -> None:
    assert tell(trackers, "wandb", tmp_path, range(3), WANDB_MODE="offline") == [{"closed": True}]
    key = {"WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    warning, closed = tell(trackers, "wandb", tmp_path, range(5), **key)
    assert "`wandb sync` sends them" in warning["warning"]
    assert closed == {"closed": True}
    kept = sorted((tmp_path / "wandb").glob("offline-run-*-small-1/run-small-1.wandb"))
    assert len(kept) == 2
    first, second = (path.read_bytes() for path in kept)
    assert first.count(b"losses/entropy") > second.count(b"losses/entropy") >= 2  # 0 to 2, then 3 and 4
