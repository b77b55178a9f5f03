"""Trainer processes: what they say arrives whole, and none outlives its worker, whatever happens."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from shared import supervision
from shared.jobs import CollectJob
from shared.settings import Settings, load_settings
from shared.supervision import Report, TrainerProcess

from . import services
from .parts import until


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path)


@contextmanager
def trainer(settings: Settings) -> Iterator[TrainerProcess]:
    process = TrainerProcess("tests.odd_trainer", settings)
    try:
        yield process
    finally:
        process.end()


def job(what: str, attempt_id: int = 1) -> CollectJob:
    return CollectJob(attempt_id, 1, 7, f"x/{attempt_id}/", {"env_id": what}, None, None, None)


def reports(process: TrainerProcess, last: str) -> list[Report]:
    """Listen until a report of kind `last`, and return all of them."""
    heard = []
    deadline = time.monotonic() + 30
    while not heard or heard[-1].kind != last:
        report = process.listen(1.0)
        heard += [report] if report else []
        assert time.monotonic() < deadline, heard
    return heard


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def test_what_libraries_print_never_reaches_the_reports(settings: Settings) -> None:
    with trainer(settings) as process:
        process.begin("collecting", job("noise"))
        heard = reports(process, "result")
        assert [report.kind for report in heard] == ["hello", "progress", "result"]
        assert process.hello["device"] == "none"
        assert process.hello["trainer_pid"] == process.process.pid
        assert len(heard[-1].values["result"]["clips"]) == 2
        assert heard[-1].values["result"]["metrics"] == {"seed": 7}
        until(lambda: "on both" in process.tail)
        assert "a child speaks" in process.tail
        assert any("no text" in line for line in process.tail)


def test_a_warm_process_does_one_job_after_another(settings: Settings) -> None:
    with trainer(settings) as process:
        for attempt_id in (1, 2):
            process.begin("collecting", job("slow:1", attempt_id))
            last = reports(process, "result")[-1]
            assert last.values["attempt"] == attempt_id
            assert last.values["result"]["clips"][0]["npz"]["key"] == f"x/{attempt_id}/0.npz"


def test_a_stop_ends_the_job_and_not_the_process(settings: Settings) -> None:
    with trainer(settings) as process:
        process.begin("collecting", job("slow:1000"))
        reports(process, "progress")
        process.ask_to_stop()
        assert reports(process, "stopped")[-1].values["attempt"] == 1
        process.begin("collecting", job("slow:2", attempt_id=2))
        assert reports(process, "result")[-1].values["attempt"] == 2


def test_a_store_that_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From before the process started: nothing fails, and a request to stop is heard meanwhile."""
    with services.folder_of("s3") as folder:
        launch, account = services.s3_in(folder)
        monkeypatch.setenv("LOCKSTEP_S3_ENDPOINT", account.endpoint)
        keys = {"s3_access_key": account.access_key, "s3_secret_key": account.secret_key}
        settings = load_settings(data_dir=tmp_path, store_url="s3://waited/for", **keys)
        with trainer(settings) as process:
            process.begin("collecting", job("work", 1))
            until(lambda: any("waiting for the store" in line for line in process.tail))
            process.ask_to_stop()
            assert reports(process, "stopped")
            process.begin("collecting", job("work", 2))
            until(lambda: sum("waiting for the store" in line for line in process.tail) > 5)
            with services.running(launch):
                heard = reports(process, "result")
        assert not [report for report in heard if report.kind in ("error", "gone")]


def test_a_killed_process_is_reported_with_its_last_lines(settings: Settings) -> None:
    with trainer(settings) as process:
        process.begin("collecting", job(f"die:{signal.SIGKILL.value}"))
        assert reports(process, "gone")
        assert not process.alive
        fate = process.fate()
        assert "killed by SIGKILL" in fate
        assert "memory" in fate
        assert "the stage is to die" in fate


def test_a_process_that_ends_by_itself_is_reported_with_its_status(settings: Settings) -> None:
    with trainer(settings) as process:
        process.begin("collecting", job("exit:3"))
        reports(process, "gone")
        assert "ended by itself with status 3" in process.fate()


def test_an_error_comes_with_its_kinds_and_the_process_stays(settings: Settings) -> None:
    with trainer(settings) as process:
        process.begin("collecting", job("fail:full"))
        last = reports(process, "error")[-1]
        assert last.values["message"] == "oh no"
        assert last.values["kinds"][:2] == ["StoreFull", "StoreError"]
        until(lambda: any("Traceback" in line for line in process.tail))
        assert process.alive
        process.begin("collecting", job("noise", attempt_id=2))
        reports(process, "result")
        until(lambda: any("to noise" in line for line in process.tail))
        assert "Traceback" not in process.last_lines()  # that was the job before


def test_a_deaf_process_and_its_children_are_ended_by_force(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "TERM_S", 0.3)
    with trainer(settings) as process:
        process.begin("collecting", job("deaf"))
        heard: list[Report] = []
        until(lambda: heard.extend(filter(None, [process.listen(0.1)])) or
              [one for one in heard if "child" in one.values.get("metrics", {})])  # fmt: skip
        child = heard[-1].values["metrics"]["child"]
        assert is_alive(child)
        os.kill(process.process.pid, signal.SIGSTOP)  # from then on nothing but SIGKILL reaches it
        until(lambda: "\nState:\tT" in Path(f"/proc/{process.process.pid}/status").read_text())
        process.end()
        assert process.process.returncode == -signal.SIGKILL
        until(lambda: not is_alive(child), 5)


def test_a_process_dies_with_its_worker(settings: Settings) -> None:
    program = (
        "import sys, time\n"
        "from shared.settings import load_settings\n"
        "from shared.supervision import TrainerProcess\n"
        f"trainer = TrainerProcess('tests.odd_trainer', load_settings(data_dir={str(settings.data_dir)!r}))\n"
        "trainer.listen(30)\n"
        "print(trainer.process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    worker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    try:
        pid = int(worker.stdout.readline())
        assert is_alive(pid)
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()
    until(lambda: not is_alive(pid), 5)


def test_a_trainer_is_told_no_secret_and_no_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKSTEP_DATABASE_URL", "postgresql+psycopg://me:secret@127.0.0.1/x")
    monkeypatch.setenv("LOCKSTEP_TEACHER_TOKEN", "a" * 30)
    monkeypatch.setenv("LOCKSTEP_ADMIN_TOKEN", "b" * 30)
    monkeypatch.setenv("LOCKSTEP_BROKER_URL", "redis://:secret@127.0.0.1/0")
    with trainer(load_settings(data_dir=tmp_path)) as process:
        process.begin("collecting", job("environment"))
        heard = [report.values.get("metrics", {}) for report in reports(process, "result")]
        told = [name for metrics in heard for name in metrics.get("names", [])]
        assert "LOCKSTEP_STORE_URL" in told
        for name in ("DATABASE_URL", "TEACHER_TOKEN", "ADMIN_TOKEN", "BROKER_URL"):
            assert f"LOCKSTEP_{name}" not in told


@pytest.mark.parametrize(
    ("module", "never"),
    [
        ("services.agent_trainer.worker", ("torch", "numpy", "gymnasium")),
        ("services.reward_trainer.worker", ("torch", "numpy", "gymnasium")),
        ("services.coordinator.loop", ("torch", "numpy")),
        ("services.cli", ("torch", "numpy")),
        ("services.agent_trainer.trainer", ("sqlalchemy", "celery", "kombu", "fastapi")),
        ("services.reward_trainer.trainer", ("sqlalchemy", "celery", "kombu", "fastapi")),
    ],
)
def test_who_never_imports_what(module: str, never: tuple[str, ...]) -> None:
    program = f"import sys, {module}; print(sorted(set({never!r}) & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert answer.stdout.strip() == "[]", answer.stderr
