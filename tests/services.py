"""Real servers for the tests: Postgres, Redis and S3, each in a folder of its own on free loopback ports.

Each is a context manager that stops its server, by its own process id, however the block is left. A server
also dies with this process (on Linux), so not even `kill -9` leaves one behind.
"""

import ctypes
import getpass
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import redis

START_S = 60.0  # a slow, busy machine may take a while to start a server
INSTALL = "run `make test`, which installs or names what the tests need"


@dataclass(frozen=True)
class S3:
    """An S3 server's address and its one account."""

    endpoint: str
    access_key: str
    secret_key: str


@dataclass(frozen=True)
class Launch:
    """How a server is started (again and again, on the same port and folder), asked, and stopped."""

    command: list[str]
    folder: Path
    answers: Callable[[], None]  # raises while the server does not answer
    stop: signal.Signals = signal.SIGTERM
    run_as: dict[str, Any] = field(default_factory=dict)


@contextmanager
def postgres() -> Iterator[str]:
    """Start Postgres and give the address of its superuser's database, for psycopg."""
    with folder_of("postgres") as folder:
        launch, url = postgres_in(folder)
        with running(launch):
            yield url


@contextmanager
def redis_server() -> Iterator[str]:
    """Start Redis, set up as in production (append-only file, nothing evicted), and give its address."""
    with folder_of("redis") as folder:
        launch, url = redis_in(folder)
        with running(launch):
            yield url


@contextmanager
def s3_server() -> Iterator[S3]:
    """Start SeaweedFS's S3 server and give its address and account."""
    with folder_of("s3") as folder:
        launch, account = s3_in(folder)
        with running(launch):
            yield account


def postgres_in(folder: Path, survives_crashes: bool = False) -> tuple[Launch, str]:
    """Make a cluster in `folder`; without `survives_crashes` a commit may be lost with the process."""
    as_root = os.geteuid() == 0
    user = "postgres" if as_root else getpass.getuser()
    run_as: dict[str, Any] = {"user": user, "group": user, "extra_groups": []} if as_root else {}
    if as_root:  # Postgres refuses to run as root
        shutil.chown(folder, user, user)
    data = folder / "data"
    subprocess.run(
        [find("initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"],
        check=True, stdout=subprocess.DEVNULL, cwd=folder, **run_as,
    )  # fmt: skip
    (port,) = free_ports(1)
    options = {
        "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off",
        "synchronous_commit": "on" if survives_crashes else "off", "full_page_writes": "off",
        "shared_buffers": "32MB", "max_connections": 200, "autovacuum": "off",
    }  # fmt: skip
    command = [find("postgres"), "-D", str(data)]
    for name, value in options.items():
        command += ["-c", f"{name}={value}"]
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    # SIGINT is Postgres's fast stop: it does not wait for clients that forgot to leave.
    return Launch(command, folder, lambda: psycopg.connect(url).close(), signal.SIGINT, run_as), url


def redis_in(folder: Path, *config: str) -> tuple[Launch, str]:
    """Prepare Redis in `folder`; `config` is a file with more of its configuration."""
    (port,) = free_ports(1)
    command = [
        find("redis-server"), *config, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder),
        "--appendonly", "yes", "--maxmemory-policy", "noeviction", "--save", "",
    ]  # fmt: skip
    url = f"redis://127.0.0.1:{port}/0"

    def answers() -> None:
        with redis.Redis.from_url(url) as client:
            client.ping()

    return Launch(command, folder, answers), url


# To this S3 server who may write may delete; MinIO tells the two apart by itself.
NO_DELETING = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Deny",
            "Principal": {"AWS": "arn:aws:iam::000000000000:user/lockstep-worker"},
            "Action": ["s3:DeleteObject"],
            "NotResource": ["arn:aws:s3:::lockstep/artifacts/*/checkpoint-*"],
        }
    ],
}


def identity(name: str, secret: str, *actions: str, user: str = "") -> dict[str, Any]:
    """Return an account of the S3 server's that may do `actions`; `user` is what policies call it."""
    credentials = [{"accessKey": name, "secretKey": secret}]
    return {"name": user or name, "credentials": credentials, "actions": list(actions)}


def s3_in(folder: Path, *more: dict[str, Any]) -> tuple[Launch, S3]:
    """Prepare SeaweedFS's S3 server in `folder`, with `more` identities besides the one that may do all."""
    port, *others = free_ports(8)
    ports = iter(others)
    account = S3(f"http://127.0.0.1:{port}", "lockstep-tests", "not-a-secret-anywhere")
    actions = ("Admin", "Read", "Write", "List", "Tagging")
    one = identity(account.access_key, account.secret_key, *actions, user="lockstep")
    (folder / "s3.json").write_text(json.dumps({"identities": [one, *more]}))
    options = {
        "dir": folder, "ip": "127.0.0.1", "ip.bind": "127.0.0.1",
        "master.port": next(ports), "master.port.grpc": next(ports), "master.volumeSizeLimitMB": 64,
        "master.telemetry": "false",  # it is on by default and would call home
        "volume.port": next(ports), "volume.port.grpc": next(ports), "volume.max": 0,
        "volume.preStopSeconds": 0, "volume.minFreeSpace": "64MiB",
        "filer.port": next(ports), "filer.port.grpc": next(ports), "filer.localSocket": folder / "f.sock",
        "s3.port": port, "s3.port.grpc": next(ports), "s3.port.iceberg": 0, "s3.port.lance": 0,
        "s3.config": folder / "s3.json", "s3.localSocket": folder / "s3.sock",
    }  # fmt: skip
    command = [find("weed"), "-logtostderr", "server", "-filer", "-s3"]
    command += [f"-{name}={value}" for name, value in options.items()]

    def answers() -> None:
        try:
            urllib.request.urlopen(account.endpoint, timeout=5).close()
        except urllib.error.HTTPError as refusal:  # it answers, and asks for a signature
            refusal.close()

    return Launch(command, folder, answers, signal.SIGKILL), account  # its own stop takes ten seconds


@contextmanager
def running(launch: Launch) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server until the block is left; the block begins once it answers."""
    process = spawn(launch)
    try:
        await_answer(launch, process)
        yield process
    finally:
        end(process, launch.stop)


def spawn(launch: Launch) -> "subprocess.Popen[bytes]":
    """Start a server and return its process at once; it dies with this one."""
    with (launch.folder / "log").open("ab") as log:
        return subprocess.Popen(
            launch.command, cwd=launch.folder, stdin=subprocess.DEVNULL, stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for pytest, which then stops the servers in order
            preexec_fn=partial(_die_with_parent, os.getpid(), launch.stop), **launch.run_as,
        )  # fmt: skip


def await_answer(launch: Launch, process: "subprocess.Popen[bytes]") -> None:
    """Return once the server answers; RuntimeError with its last words if it ends or takes too long."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            launch.answers()
            return
        except (OSError, psycopg.OperationalError, redis.RedisError) as error:
            if process.poll() is not None or time.monotonic() > deadline:
                tail = (launch.folder / "log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{launch.command[0]} did not start:\n{tail}") from error
            time.sleep(0.05)


def find(*names: str) -> str:
    """Return the path of the first of `names` that this machine has.

    It looks in this virtual environment, on the PATH, and where Debian keeps each version of Postgres.
    """
    for name in names:
        path = shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)
        versions = glob.glob(f"/usr/lib/postgresql/*/bin/{name}")
        newest = max(versions, key=lambda version: int(version.split("/")[4]), default=None)
        if newest or path:
            return newest or path or ""
    raise RuntimeError(f"the tests need {' or '.join(names)}, which this machine does not have: {INSTALL}")


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on, all different."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def end(process: "subprocess.Popen[bytes]", stop: signal.Signals) -> None:
    """Stop a process, by force if it takes long."""
    process.send_signal(stop)
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _die_with_parent(parent: int, stop: signal.Signals) -> None:
    # Runs in the child before the program starts.
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, int(stop))
        if os.getppid() != parent:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def folder_of(name: str) -> Iterator[Path]:
    """Make a folder that any user may enter, and remove it at the end."""
    # Not pytest's tmp_path: that lies in folders which Postgres's own user may not enter.
    with tempfile.TemporaryDirectory(prefix=f"lockstep-{name}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
