"""A Lockstep brought up with docker compose, as a project of its own, for the checks in this folder."""

import http.client
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent.parent
COMBINATIONS = (
    ("docker-compose.yml",),
    ("docker-compose.yml", "docker-compose.gpu.yml"),
    ("docker-compose.yml", "docker-compose.remote.yml"),
    ("docker-compose.yml", "docker-compose.remote.yml", "docker-compose.gpu.yml"),
    ("docker-compose.worker.yml",),
    ("docker-compose.worker.yml", "docker-compose.gpu.yml"),
)
NEEDED = {
    "WORKERS_HOST": "lockstep.example.org",
    **{
        f"LOCKSTEP_{name}": "x"
        for name in (
            "DATABASE_URL",
            "BROKER_URL",
            "STORE_URL",
            "S3_ENDPOINT",
            "S3_ACCESS_KEY",
            "S3_SECRET_KEY",
        )
    },
}


@dataclass
class Stack:
    """One compose project."""

    project: str
    files: tuple[str, ...] = ("docker-compose.yml",)
    env: dict[str, str] = field(default_factory=dict)
    port: int = 0  # of the label page on this machine
    admin_token: str = field(default="", repr=False)

    def compose(self, *arguments: str, check: bool = True, timeout: float = 300) -> str:
        """Run `docker compose` and return what it prints; RuntimeError with its errors if it fails."""
        command = ["docker", "compose", "-p", self.project, *(part for f in self.files for part in ("-f", f))]
        done = subprocess.run(
            [*command, *arguments],
            cwd=ROOT,
            env={**os.environ, "LOCKSTEP_PORT": str(self.port), **self.env},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            logs = "" if arguments[0] == "logs" else self.compose("logs", "--tail", "30", check=False)
            raise RuntimeError(f"docker compose {' '.join(arguments)}: {done.stderr[-3000:]}\n{logs[-6000:]}")
        return done.stdout

    def containers(self, service: str) -> list[str]:
        """Return the ids of a service's containers."""
        return self.compose("ps", "-q", service).split()

    def wait_healthy(self, url: str = "", timeout: float = 120) -> None:
        """Wait until the labeler answers."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            try:
                if httpx.get((url or self.url) + "/healthz", trust_env=False).is_success:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        else:
            raise TimeoutError(self.compose("logs", "--tail", "30", check=False)[-6000:])
        if not self.admin_token:
            show = ("exec", "-T", "labeler", "cat", "/run/secrets/lockstep_admin_token")
            self.admin_token = self.compose(*show).strip()

    @property
    def url(self) -> str:
        """Where the labeler is reached."""
        return f"http://127.0.0.1:{self.port}"

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None, url: str = "") -> Any:
        """Ask the API as the admin."""
        headers = {"Authorization": f"Bearer {self.admin_token}"}
        address = (url or self.url) + path
        answer = httpx.request(method, address, json=body, headers=headers, timeout=30, trust_env=False)
        if answer.is_error:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def lockstep(self, *arguments: str, timeout: float = 600) -> str:
        """Run a command of Lockstep's in the labeler's container, as operators do."""
        return self.compose("exec", "-T", "labeler", "lockstep", *arguments, timeout=timeout)

    def report(self, name: str) -> Any:
        """Return everything about an experiment."""
        return self.admin("GET", f"/api/admin/experiments/{name}")

    def cpu_and_memory(self) -> dict[str, tuple[float, float]]:
        """Return for each service processor seconds so far and MiB in use, counted as `docker stats` does."""
        sums: dict[str, tuple[float, float]] = {}
        for line in self.compose("ps", "--format", "json").splitlines():
            one = json.loads(line)
            stats = engine(f"/containers/{one['ID']}/stats?stream=false&one-shot=true")
            memory = stats["memory_stats"]
            used = memory["usage"] - memory["stats"].get(
                "inactive_file", memory["stats"].get("total_inactive_file", 0)
            )
            sums[one["Service"]] = (stats["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9, used / 2**20)
        return sums

    def down(self) -> None:
        """Stop it and remove it with its volumes."""
        self.compose("down", "--volumes", "--timeout", "30", "--remove-orphans", check=False)


class _EngineConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect("/var/run/docker.sock")


def engine(path: str) -> Any:
    """Ask the Docker Engine itself."""
    connection = _EngineConnection("localhost")
    connection.request("GET", path)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_ports_in_a_row() -> int:
    """Return the first of two ports that nobody listens on."""
    while True:
        first = free_port()
        try:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", first + 1))
        except (OSError, OverflowError):
            continue
        return first


@contextmanager
def running(project: str, *files: str, **env: str) -> Iterator[Stack]:
    """Bring a fresh project up, and remove it afterwards, volumes included."""
    port = int(env.get("LOCKSTEP_PORT", "0").partition("-")[0]) or free_port()
    stack = Stack(project, files or ("docker-compose.yml",), env, port)
    stack.down()
    try:
        stack.compose("up", "--detach")
        stack.wait_healthy()
        yield stack
    finally:
        stack.down()


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def attempts(report: Any) -> list[Any]:
    """Return all attempts of an experiment, in order."""
    return [attempt for round_ in report["rounds"] for attempt in round_["attempts"]]


def times(attempt: Any) -> tuple[float, float]:
    """Return when an attempt was claimed and when it ended, in seconds."""
    begun, ended = (datetime.fromisoformat(attempt[name]) for name in ("claimed_at", "ended_at"))
    return begun.timestamp(), ended.timestamp()


def working(report: Any, stage: str) -> float:
    """Return how far the stage's running attempt is, 0 to 1."""
    running_now = [one for one in attempts(report) if one["stage"] == stage and one["state"] == "running"]
    return float(running_now[0]["progress"] or 0.0) if running_now else 0.0
