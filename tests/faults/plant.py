"""The whole system as processes over real servers, all of which can be killed, stopped and started again."""

import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import psycopg

from shared.database import Database, migrate
from shared.settings import Settings, load_settings
from tests import parts, services

LEASE_S, BEAT_S, SWEEP_S = 3.0, 0.5, 0.1
AGAIN_S = 0.3  # a part that died is started again after this, as a container's restart policy does
WORKERS = {
    "agent-1": "services.agent_trainer.worker",
    "agent-2": "services.agent_trainer.worker",
    "reward-1": "services.reward_trainer.worker",
    "reward-2": "services.reward_trainer.worker",
}
OTHERS = {"labeler": "services.labeler", "coordinator": "services.coordinator"}
SMALL_DISK_MB = 384


@dataclass
class Server:
    """A server that can be ended in any way and started again with what it kept."""

    launch: services.Launch
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        """Start it (again) and wait until it answers."""
        self.process = services.spawn(self.launch)
        services.await_answer(self.launch, self.process)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send it a signal and wait for its end."""
        assert self.process is not None
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        self.process.wait()


@dataclass
class Part:
    """A part of the system, its process and, for a worker, its own ways to the database and to the time."""

    name: str
    module: str
    environment: dict[str, str]
    folder: Path
    cable: parts.Cable | None = None
    process: "subprocess.Popen[bytes] | None" = None
    died_at: float | None = None
    started: int = 0

    @property
    def alive_file(self) -> Path:
        """What it touches while it goes round."""
        return self.folder / f"{self.name}.alive"

    @property
    def clock_file(self) -> Path:
        """How many seconds its clock is off: `clock.c` reads this."""
        return self.folder / f"{self.name}.clock"

    def set_clock(self, seconds: int) -> None:
        """Set its clock off, at once."""
        with self.clock_file.open("r+b" if self.clock_file.exists() else "wb") as file:
            file.write(struct.pack("q", seconds))

    def start(self) -> None:
        """Start its process."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.leash", self.module], stdin=subprocess.PIPE, stdout=log,
                stderr=subprocess.STDOUT, env=self.environment, process_group=0,
            )  # fmt: skip
        self.died_at, self.started = None, self.started + 1

    def processes(self) -> list[int]:
        """Return the ids of its process and of those that it started."""
        if self.process is None or self.process.poll() is not None:
            return []
        return [self.process.pid, *children(self.process.pid)]


@dataclass
class Plant:
    """Everything that runs."""

    settings: Settings
    database: Database  # our own way in, which no fault touches but the server's own end
    servers: dict[str, Server]
    disks: dict[str, Path]  # the small disks, by server; empty where they cannot be made
    parts: dict[str, Part] = field(default_factory=dict)
    leaving: threading.Event = field(default_factory=threading.Event)
    # One thread, which lives as long as the servers: they die with the thread that started them.
    striker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    @property
    def url(self) -> str:
        """Where the labeler answers."""
        return f"http://127.0.0.1:{self.settings.port}"

    def look_after(self) -> None:
        """Start again whatever died, until `leaving`: what an operator's supervisor does."""
        while not self.leaving.wait(0.05):
            for part in self.parts.values():
                if part.process is None or part.process.poll() is None:
                    continue
                if part.died_at is None:
                    part.died_at = time.monotonic()
                elif time.monotonic() - part.died_at > AGAIN_S:
                    if part.process.stdin:
                        part.process.stdin.close()
                    part.start()


@contextmanager
def running(folder: Path) -> Iterator[Plant]:
    """Run it all, everything it writes in `folder`, until the block is left."""
    library = clock_library(folder)
    with ExitStack() as stack:
        disks = {name: disk for name in ("postgres", "s3") if (disk := _small_disk(stack, folder / name))}
        homes = {name: folder / name for name in ("postgres", "redis", "s3")}
        for home in homes.values():
            home.mkdir(exist_ok=True)
        postgres, admin_url = services.postgres_in(homes["postgres"], survives_crashes=True)
        redis, redis_url = services.redis_in(homes["redis"])
        s3, account = services.s3_in(homes["s3"])
        servers = {"postgres": Server(postgres), "redis": Server(redis), "s3": Server(s3)}
        for server in servers.values():
            stack.callback(_end, server)
            server.start()
        with psycopg.connect(admin_url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE lockstep")
        database_url = (
            admin_url.replace("postgresql:", "postgresql+psycopg:").rpartition("/")[0] + "/lockstep"
        )
        migrate(database_url)
        boto3.client(
            "s3", endpoint_url=account.endpoint, aws_access_key_id=account.access_key,
            aws_secret_access_key=account.secret_key, region_name="us-east-1",
        ).create_bucket(Bucket="lockstep")  # fmt: skip
        data = folder / "data"
        data.mkdir()
        settings = load_settings(
            data_dir=data, database_url=database_url, broker_url=redis_url, store_url="s3://lockstep/faults",
            s3_endpoint=account.endpoint, s3_access_key=account.access_key, s3_secret_key=account.secret_key,
            port=services.free_ports(1)[0], lease_s=LEASE_S, beat_s=BEAT_S, sweep_s=SWEEP_S,
        )  # fmt: skip
        database = Database(database_url)
        stack.callback(database.close)
        plant = Plant(settings, database, servers, disks)
        stack.callback(plant.striker.shutdown)
        for name, module in (OTHERS | WORKERS).items():
            own = settings
            cable = None
            if name in WORKERS:
                server_port = int(database_url.rpartition(":")[2].partition("/")[0])
                cable = stack.enter_context(parts.cable(server_port))
                own = settings.model_copy(
                    update={"database_url": database_url.replace(f":{server_port}/", f":{cable.port}/")}
                )
            environment = parts.environment(own)
            environment["LOCKSTEP_S3_SECRET_KEY"] = account.secret_key
            part = Part(name, module, environment, folder, cable)
            environment["LOCKSTEP_ALIVE_FILE"] = str(part.alive_file)
            if name in WORKERS and library:
                part.set_clock(0)
                environment |= {"LD_PRELOAD": str(library), "CLOCK_OFF": str(part.clock_file)}
            plant.parts[name] = part
            part.start()
        stack.callback(_stop_parts, plant)
        keeper = threading.Thread(target=plant.look_after, name="keeper")
        keeper.start()
        stack.callback(keeper.join)
        stack.callback(plant.leaving.set)
        yield plant


def children(pid: int) -> list[int]:
    """Return the ids of a process's children; none if it is gone."""
    try:
        listing = Path(f"/proc/{pid}/task").iterdir()
        return [int(child) for task in listing for child in (task / "children").read_text().split()]
    except OSError:
        return []


def clock_library(folder: Path) -> Path | None:
    """Compile `clock.c`, None if this machine has no C compiler or is no Linux."""
    compiler, library = shutil.which("cc"), folder / "clock.so"
    if compiler is None or sys.platform != "linux":
        return None
    source = Path(__file__).with_name("clock.c")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def _small_disk(stack: ExitStack, folder: Path) -> Path | None:
    """Mount a small file system at `folder`, if we may."""
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        return None
    command = [mount, "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m,mode=755", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        return None
    stack.callback(subprocess.run, ["umount", "--lazy", str(folder)], capture_output=True)
    return folder


def _end(server: Server) -> None:
    if server.process is not None and server.process.poll() is None:
        services.end(server.process, server.launch.stop)


def _stop_parts(plant: Plant) -> None:
    running = [part.process for part in plant.parts.values() if part.process is not None]
    for process in running:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGCONT)
            process.terminate()
    for process in running:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin:
            process.stdin.close()
