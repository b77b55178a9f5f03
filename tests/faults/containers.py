"""The whole system in the containers of `docker compose`, and what takes hold of them."""

import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from shared.database import Database
from shared.settings import Settings, load_settings
from tests.compose import stack as compose
from tests.faults.plant import BEAT_S, LEASE_S, SWEEP_S

PROJECT = "lockstep-faults"
FILES = ("docker-compose.yml", "tests/compose/faults.yml")
SERVICES = (
    "agent_trainer",
    "reward_trainer",
    "coordinator",
    "labeler",
    "redis",
    "postgres",
    "minio",
    "killer",
)
TRAINER = re.compile(r"services\.\w+\.trainer\b")  # the module of the process that holds torch
UP_S = 60.0  # a container that ended runs again within this


@dataclass
class Plant:
    """Everything that runs."""

    settings: Settings
    database: Database  # our own way in, which no fault touches but the server's own end
    containers: dict[str, list[str]]  # ids by service: they outlast every kill, stop and start
    striker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    @property
    def url(self) -> str:
        """Where the labeler answers."""
        return f"http://127.0.0.1:{self.settings.port}"

    def kill(self, pids: list[int]) -> None:
        """Kill -9 of processes, by their ids where the engine runs."""
        docker("exec", self.containers["killer"][0], "sh", "-c", f"kill -9 {' '.join(map(str, pids))}")

    def kill_container(self, container: str) -> None:
        """Kill a container's first process, and so all; wait until its restart policy brought it back."""
        first = pid_of(container)
        self.kill([first])
        deadline = time.monotonic() + UP_S
        while pid_of(container) in (0, first):
            if time.monotonic() > deadline:
                raise AssertionError(f"container {container[:12]} was not started again")
            time.sleep(0.05)


@contextmanager
def running(folder: Path) -> Iterator[Plant]:
    """Run it all until the block is left; what the containers said is in `folder` then."""
    postgres, s3 = compose.free_port(), compose.free_port()
    told = {"LEASE_S": LEASE_S, "BEAT_S": BEAT_S, "SWEEP_S": SWEEP_S}
    env = {f"LOCKSTEP_{name}": str(value) for name, value in told.items()}
    env |= {"FAULTS_POSTGRES_PORT": str(postgres), "FAULTS_S3_PORT": str(s3)}
    compose.Stack(PROJECT, FILES, env).compose("build", "--quiet", timeout=3600)
    with compose.running(PROJECT, *FILES, **env) as stack:

        def secret(name: str) -> str:
            return stack.compose("exec", "-T", "labeler", "cat", f"/run/secrets/lockstep_{name}").strip()

        settings = load_settings(
            data_dir=folder / "data",
            database_url=secret("database_url").replace("@postgres:5432", f"@127.0.0.1:{postgres}"),
            store_url="s3://lockstep/artifacts", s3_endpoint=f"http://127.0.0.1:{s3}",
            s3_access_key=secret("s3_access_key"), s3_secret_key=secret("s3_secret_key"),
            admin_token=secret("admin_token"), teacher_token=secret("teacher_token"), port=stack.port,
            lease_s=LEASE_S, beat_s=BEAT_S, sweep_s=SWEEP_S,
        )  # fmt: skip
        containers = {service: stack.containers(service) for service in SERVICES}
        plant = Plant(settings, Database(settings.database_url), containers)
        try:
            yield plant
        finally:
            plant.striker.shutdown()
            plant.database.close()
            said = stack.compose("logs", "--no-color", "--timestamps", check=False)
            (folder / "containers.log").write_text(said)


def docker(*arguments: str) -> str:
    """Run `docker` and return what it prints; RuntimeError with its errors if it fails."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def pid_of(container: str) -> int:
    """Return the id of a container's first process where the engine runs, 0 if the container is down."""
    return int(docker("inspect", "--format", "{{.State.Pid}}", container))


def trainers_of(container: str) -> list[int]:
    """Return the ids of the processes of a container that hold torch."""
    lines = docker("top", container, "-eo", "pid,args").splitlines()[1:]
    return [int(line.split()[0]) for line in lines if TRAINER.search(line)]
