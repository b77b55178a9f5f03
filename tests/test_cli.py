"""The `lockstep` command, as a person runs it."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from services import cli, cli_admin
from services.client import Admin
from shared.config import ConfigError, parse_overrides
from shared.settings import load_settings, secrets

from .parts import environment, until
from .services import free_ports

TINY = [
    "rounds=2", "segments.length=5", "segments.collect_steps=64", "segments.collect_envs=4",
    "labels.comparisons_per_round=3", "labels.comparisons_first_round=3",
    "reward_model.epochs=20", "reward_model.hidden=8",
    "agent.num_envs=4", "agent.num_steps=32", "agent.minibatch_size=64", "agent.total_steps=128",
    "agent.final_steps=128", "evaluation.episodes=3",
]  # fmt: skip
SETS = [part for pair in TINY for part in ("--set", pair)]


def command(folder: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    known = environment(load_settings(data_dir=folder))
    for name in ("LOCKSTEP_DATABASE_URL", "LOCKSTEP_BROKER_URL", "LOCKSTEP_STORE_URL"):
        del known[name]  # the command works them out from the folder
    return [sys.executable, "-m", "services", *arguments], known | {"COLUMNS": "160"}


def lockstep(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    line, known = command(folder, *arguments)
    return subprocess.run(line, env=known, capture_output=True, text=True, timeout=110)


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    line, known = command(folder, *arguments)
    with subprocess.Popen(
        line, env=known, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def descendants(pid: int) -> set[int]:
    """Return the ids of all processes below `pid`."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    found: set[int] = set()
    while new := {child for child, parent in pairs if parent in found | {pid}} - found:
        found |= new
    return found


def running(pids: set[int]) -> list[str]:
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=,args=", "-p", ",".join(map(str, pids))], capture_output=True, text=True
    )
    return [line for line in listed.stdout.splitlines() if line.split()[1][0] != "Z"]


def test_the_demo_ends_by_itself_with_a_table_and_videos(tmp_path: Path) -> None:
    solved = lockstep(
        tmp_path, "demo", "--data-dir", str(tmp_path), "--seed", "3", *SETS, "--set",
        "evaluation.solved_return=1",
    )  # fmt: skip
    assert solved.returncode == 0, solved.stdout + solved.stderr
    assert "held-out" in solved.stdout
    assert "solved: mean true return" in solved.stdout
    assert "(3 labels" in solved.stdout  # the first round reached it
    videos = re.findall(r"video: (\S+)", solved.stdout)
    assert videos == [str(tmp_path / "demo-1" / "videos" / "round-01.mp4")]
    assert Path(videos[0]).read_bytes()[4:8] == b"ftyp"
    spent = lockstep(
        tmp_path, "demo", "--data-dir", str(tmp_path), *SETS, "--set", "rounds=1", "--teacher", "coin",
        "--set", "labels.clips_per_comparison=3",
    )  # fmt: skip
    assert spent.returncode == 1, spent.stdout + spent.stderr
    assert "the budget is spent" in spent.stdout
    assert (tmp_path / "demo-2" / "videos" / "round-01.mp4").exists()


def test_a_run_stops_cleanly_and_goes_on_and_dies_whole(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    run = ["run", "--data-dir", str(tmp_path), "--port", str(port), "--no-browser", *SETS]
    url = f"http://127.0.0.1:{port}"

    def labeling() -> bool:
        try:
            answer = httpx.get(f"{url}/api/experiments/cartpole", timeout=5)
        except httpx.TransportError:
            return False
        return answer.is_success and answer.json()["round_state"] == "labeling"

    with started(tmp_path, *run) as first:
        until(labeling, 60)
        below = descendants(first.pid)
        assert len(below) >= 6  # four parts, two trainers
        second = lockstep(tmp_path, *run)
        assert second.returncode == 2
        assert f"in use by another lockstep (process {first.pid})" in second.stdout
        listed = lockstep(tmp_path, "status", "cartpole", "--data-dir", str(tmp_path), "--url", url)
        assert "cartpole: running, round 1/2, labeling 0/3" in listed.stdout
        invited = lockstep(tmp_path, "invite", "ada", "--data-dir", str(tmp_path), "--url", url)
        assert "good once, until 20" in invited.stdout
        link = invited.stdout.split()[-1]
        assert link.startswith(f"{url}/join#")
        with httpx.Client(base_url=url, trust_env=False) as ada:
            token = link.partition("#")[2]
            assert ada.post("/api/invitations/redeem", json={"token": token}).json()["name"] == "ada"
            assert ada.get("/api/me").json()["name"] == "ada"
        again = lockstep(tmp_path, "invite", "ada", "--data-dir", str(tmp_path), "--url", url)
        assert "ada's way back in" in again.stdout
        first.send_signal(signal.SIGINT)
        said, _ = first.communicate(timeout=30)
        assert first.returncode == 0
        assert said.splitlines()[:3] == [
            f"label here: {url}/label/cartpole",
            f"agents:     {url}/agents/cartpole",
            f"admin:      {url}/admin/cartpole",
        ]
        assert "go on from here" in said
        assert running(below) == []

    with started(tmp_path, *run, "--set", "agent.gamma=0.5") as again:
        until(labeling, 60)  # where it was: the comparisons are the stored ones
        below = descendants(again.pid)
        api = Admin(url, secrets(load_settings(data_dir=tmp_path)).admin_token)
        report = api.call("GET", "/experiments/cartpole")
        api.close()
        assert report["config"]["agent"]["gamma"] != 0.5
        assert len(report["rounds"][0]["attempts"]) == 1
        os.kill(again.pid, signal.SIGKILL)
        until(lambda: running(below) == [], 30, 0.2)


def test_a_taken_port_is_named_with_its_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = lockstep(tmp_path, "run", "--data-dir", str(tmp_path), "--port", str(port))
    assert answer.returncode == 2
    assert f"port {port}" in answer.stdout
    assert "LOCKSTEP_PORT" in answer.stdout
    assert "Traceback" not in answer.stdout + answer.stderr


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "lockstep.db").write_bytes(b"no database at all" * 100)
    for command, folder in (("run", tmp_path / "file"), ("demo", tmp_path / "file"), ("run", damaged)):
        answer = lockstep(tmp_path, command, "--data-dir", str(folder), "--port", "0")
        assert answer.returncode == 2
        assert str(folder) in answer.stdout
        assert "--data-dir" in answer.stdout
        assert "Traceback" not in answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--set", "agent.gama=0.9"], "did you mean gamma?"),
        (["demo", "--set", "rounds"], "key=value"),
        (["demo", "--set", "env_id=CartPol-v1"], "did you mean CartPole-v1?"),
        (["run", "nowhere.toml"], "there is no configuration nowhere.toml"),
        (["demo", "--teacher", "owl"], "there is no teacher 'owl'"),
        (["pause", "cartpole"], "start the system with `lockstep run`"),
        (["export", "nothing", "somewhere"], "there is no experiment nothing"),
        (["export", "nothing", "somewhere", "--licence", "mit"], "which only --format dataset writes"),
    ],
)
def test_mistakes_get_an_answer_that_helps(tmp_path: Path, arguments: list[str], words: str) -> None:
    (port,) = free_ports(1)
    if arguments[0] == "export":
        answer = subprocess.run(
            [*command(tmp_path, *arguments[:3])[0], "--data-dir", str(tmp_path)],
            capture_output=True,
            text=True,
        )
        assert answer.returncode == 2
        assert "there is no Lockstep in" in answer.stdout
        assert lockstep(tmp_path, "migrate", "--data-dir", str(tmp_path)).returncode == 0
    line, known = command(tmp_path, *arguments)
    answer = subprocess.run(
        [*line, "--data-dir", str(tmp_path)], env=known | {"LOCKSTEP_PORT": str(port)}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert answer.returncode == 2
    assert words in answer.stdout
    assert "Traceback" not in answer.stdout + answer.stderr


def test_every_command_says_what_it_does_with_an_example() -> None:
    for one in (*cli.app.registered_commands, *cli_admin.app.registered_commands):
        assert one.callback is not None
        name = one.name or one.callback.__name__
        assert f"lockstep {name}" in (one.callback.__doc__ or ""), name


def test_overrides_are_read_as_toml() -> None:
    given = parse_overrides(["a=1", "b=0.5", "c=true", "d=text", 'e="1"', "f=[1, 2]"])
    assert given == {"a": 1, "b": 0.5, "c": True, "d": "text", "e": "1", "f": [1, 2]}
    with pytest.raises(ConfigError, match="key=value"):
        parse_overrides(["=1"])


def test_a_part_that_dies_is_started_again(tmp_path: Path) -> None:
    from services.embedded import running as run_system

    with run_system(load_settings(data_dir=tmp_path, port=0)) as system:
        part = next(one for one in system.parts if one.name == "coordinator")
        until(lambda: system.look_after() == [] and part.process)
        assert part.process
        first = part.process.pid
        os.kill(first, signal.SIGKILL)
        said: list[str] = []
        deadline = time.monotonic() + 20
        while not (part.process and part.process.pid != first):
            said += system.look_after()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert any("coordinator ended with signal 9" in line for line in said)
        assert said[-1] == "coordinator was started again"
