"""The embedded system: labeler, coordinator and both workers, children of one process, in one data folder."""

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sqlalchemy import select
from sqlalchemy.exc import DatabaseError

from services import known_environments
from shared import rounds
from shared.broker import Broker
from shared.config import ExperimentConfig
from shared.database import Database, migrate
from shared.models import Experiment
from shared.settings import Secrets, Settings, check_safe, check_tracker, secrets

PARTS = {
    # The agent's trainer comes first: it has the most to load, and the first stage is its own.
    "agent_trainer": "services.agent_trainer.worker",
    "labeler": "services.labeler",
    "coordinator": "services.coordinator",
    "reward_trainer": "services.reward_trainer.worker",
}
STOP_S = 20.0  # a part that was asked to stop is ended by force after this
# The first stage needs neither of these; on two cores they would slow down those that it needs.
LATER_S = {"coordinator": 1.0, "reward_trainer": 2.0}
BACKOFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)  # before a part is started again, longer each time
HEALTHY_S = 60.0  # a part that lived this long begins again with the shortest wait


class CannotStartError(RuntimeError):
    """The system cannot start here; the message says why and what to do."""


@dataclass
class Part:
    """A part of the system and its process."""

    name: str
    module: str
    log: Path
    process: "subprocess.Popen[bytes] | None" = None
    started_at: float = 0.0
    restart_at: float | None = None
    deaths: int = 0


@dataclass
class System:
    """A running embedded system."""

    settings: Settings
    secrets: Secrets
    database: Database
    broker: Broker
    parts: list[Part] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the labeler is reached from this machine."""
        host = "127.0.0.1" if self.settings.host in ("0.0.0.0", "::") else self.settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.settings.port}"

    def look_after(self) -> list[str]:
        """Start again, after a while, whatever died; return what there is to say about it."""
        said = []
        for part in self.parts:
            moment = time.monotonic()
            if part.process is None:
                if part.restart_at is not None and moment >= part.restart_at:
                    _start(self.settings, part)
                    said += [f"{part.name} was started again"] if part.deaths else []
            elif (status := part.process.poll()) is not None:
                if part.process.stdin:
                    part.process.stdin.close()
                part.deaths = 0 if moment - part.started_at > HEALTHY_S else part.deaths
                wait_s = BACKOFF_S[min(part.deaths, len(BACKOFF_S) - 1)]
                part.deaths, part.process, part.restart_at = part.deaths + 1, None, moment + wait_s
                how = f"signal {-status}" if status < 0 else f"status {status}"
                said.append(f"{part.name} ended with {how} (see {part.log}); again in {wait_s:g} s")
        return said

    def stop(self) -> None:
        """Ask every part to stop, each by its own id, and end by force what does not."""
        running = [part.process for part in self.parts if part.process is not None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_S
        for process in running:
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if process.stdin:
                process.stdin.close()
        self.parts = []


@contextmanager
def running(settings: Settings) -> Iterator[System]:
    """Run the system until the block is left; CannotStartError if the folder or the port cannot be had."""
    check_safe(settings)
    check_tracker(settings)
    with _usable(settings.data_dir):
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        (settings.data_dir / "lockstep.lock").touch()
    with _folder_lock(settings.data_dir):
        port = _free_port(settings.host, settings.port)
        settings = settings.model_copy(update={"port": port})
        with _usable(settings.data_dir):
            known = secrets(settings)
            migrate(settings.database_url)
            (settings.data_dir / "logs").mkdir(exist_ok=True)
        system = System(settings, known, Database(settings.database_url), Broker(settings))
        try:
            for name, module in PARTS.items():
                part = Part(name, module, settings.data_dir / "logs" / f"{name}.log")
                part.restart_at = time.monotonic() + LATER_S.get(name, 0.0)
                system.parts.append(part)
            system.look_after()
            yield system
        finally:
            system.stop()
            system.broker.close()
            system.database.close()


def ensure_experiment(system: System, config: ExperimentConfig) -> str | None:
    """Create the experiment of `config`, or go on with the one of its name; return how that one differs.

    ConfigError if it is to be created and its environment is unknown.
    """
    with system.database.read() as session:
        stored = session.scalar(select(Experiment.config).where(Experiment.name == config.name))
    if stored is None:
        known_environments.check(config)
        with system.database.write() as session:
            _, hints = rounds.create_experiment(session, config, "lockstep run")
        system.broker.send(hints)
        return None
    different = sorted(_differences("", stored, config.model_dump(mode="json")))
    return "; ".join(different) or None


def _differences(path: str, stored: object, wanted: object) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        for key in {*stored, *wanted}:
            yield from _differences(f"{path}.{key}" if path else key, stored.get(key), wanted.get(key))
    elif stored != wanted:
        yield f"{path} is {stored} there and {wanted} in the file"


def _start(settings: Settings, part: Part) -> None:
    environment = dict(os.environ)
    environment["LOCKSTEP_DATA_DIR"] = str(settings.data_dir)
    environment["LOCKSTEP_HOST"], environment["LOCKSTEP_PORT"] = settings.host, str(settings.port)
    environment["PYTHONUNBUFFERED"] = "1"
    with part.log.open("ab") as log:
        part.process = subprocess.Popen(
            [sys.executable, "-m", "services.leash", part.module],
            stdin=subprocess.PIPE,  # held open by us alone: when we die, the part knows
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            process_group=0,  # Ctrl-C is for us; we then stop the parts in order
        )
    part.started_at, part.restart_at = time.monotonic(), None


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, DatabaseError) as error:
        reason = str(error).partition("\n")[0]
        raise CannotStartError(
            f"the data folder {folder} cannot be used ({reason}): see that it can be written and has room, "
            "or name another with --data-dir or LOCKSTEP_DATA_DIR"
        ) from None


@contextmanager
def _folder_lock(folder: Path) -> Iterator[None]:
    path = folder / "lockstep.lock"
    file: IO[str]
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise CannotStartError(
                f"the data folder {folder} is in use by another lockstep (process {file.read().strip()}): "
                "stop that one, or give this one a folder of its own with --data-dir"
            ) from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def _free_port(host: str, port: int) -> int:
    """Return `port`, or any free one for 0; CannotStartError if somebody listens there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise CannotStartError(
                f"cannot listen on {host} port {port} ({error.strerror}): set another with LOCKSTEP_PORT or "
                "--port (0 for any free one), or LOCKSTEP_HOST"
            ) from None
        return int(probe.getsockname()[1])
