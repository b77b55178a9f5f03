"""The faults of processes: what each does to the running system, and until when."""

import os
import random
import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

import redis

from shared.models import Attempt
from shared.states import QUEUES, WORKER_STAGES, RoundState
from tests.faults.plant import LEASE_S, Part, Plant, running
from tests.faults.system import Flavour, Kind

LONGER_S = (0.5, 2.5)  # by so much a worker that is away outstays its lease
OUTAGE_S = (0.5, 3.0)  # a server is away for this long
ORPHAN_S = 20.0  # a trainer whose worker is gone ends within this: one that still loads torch hears it late
CLOCK_S = (120, 600)  # a clock is off by this much, either way


@dataclass(frozen=True)
class Victim:
    """Where a fault strikes: the stage, and the worker that is at it (in labeling: any worker)."""

    stage: RoundState
    part: Part


def kill_trainer(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Kill -9 of a trainer process."""
    for pid in victim.part.processes()[1:]:
        _signal(pid, signal.SIGKILL)


def kill_worker(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Kill -9 of a Celery worker: its trainer must end by itself."""
    trainers = victim.part.processes()[1:]
    for pid in victim.part.processes()[:1]:
        _signal(pid, signal.SIGKILL)
    deadline = time.monotonic() + ORPHAN_S
    while any(map(_lives, trainers)):
        if time.monotonic() > deadline:
            raise AssertionError(f"the trainer of {victim.part.name} outlived its worker")
        time.sleep(0.05)


def kill_worker_and_trainer(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Kill -9 of a Celery worker and its trainer at once, as when a machine goes down."""
    for pid in victim.part.processes():
        _signal(pid, signal.SIGKILL)


def kill_coordinator(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Kill -9 of the coordinator."""
    for pid in plant.parts["coordinator"].processes()[:1]:
        _signal(pid, signal.SIGKILL)


def kill_labeler(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Kill -9 of the labeler service."""
    for pid in plant.parts["labeler"].processes()[:1]:
        _signal(pid, signal.SIGKILL)


def kill_redis(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Kill Redis; it comes back with what it kept."""
    plant.servers["redis"].kill()
    time.sleep(draw.uniform(*OUTAGE_S))
    plant.servers["redis"].start()


def flush_redis(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Empty Redis."""
    with redis.Redis.from_url(plant.settings.broker_url) as client:
        client.flushall()


def empty_redis(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Kill Redis; it comes back with nothing."""
    server = plant.servers["redis"]
    server.kill()
    shutil.rmtree(server.launch.folder / "appendonlydir")
    time.sleep(draw.uniform(*OUTAGE_S))
    server.start()


def restart_postgres(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Stop Postgres in immediate mode, without a checkpoint; it recovers from its log."""
    plant.servers["postgres"].kill(signal.SIGQUIT)
    time.sleep(draw.uniform(*OUTAGE_S))
    plant.servers["postgres"].start()


def stop_s3(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Kill the S3 server; it comes back with what it kept."""
    plant.servers["s3"].kill()
    time.sleep(draw.uniform(*OUTAGE_S))
    plant.servers["s3"].start()


def freeze_worker(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """SIGSTOP of a worker and its trainer until past the lease: they come back as zombies."""
    frozen = victim.part.processes()
    for pid in frozen:
        _signal(pid, signal.SIGSTOP)
    time.sleep(LEASE_S + draw.uniform(*LONGER_S))
    for pid in frozen:
        _signal(pid, signal.SIGCONT)


def cut_off(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Close a worker's connections to the database until past its lease; it works on, and may complete."""
    assert victim.part.cable is not None
    victim.part.cable.cut.set()
    time.sleep(LEASE_S + draw.uniform(*LONGER_S))
    victim.part.cable.cut.clear()


def stall(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Hold back what a worker and the database tell each other until past its lease."""
    assert victim.part.cable is not None
    victim.part.cable.stalled.set()
    time.sleep(LEASE_S + draw.uniform(*LONGER_S))
    victim.part.cable.stalled.clear()


def shift_clock(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Set a worker's clock off by minutes, in the middle of its work; it stays so."""
    seconds = draw.choice((-1, 1)) * draw.randint(*CLOCK_S)
    victim.part.set_clock(seconds)


def fill_s3(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Fill the S3 server's disk to the last byte for a while.

    It is started again when there is room: SeaweedFS takes nothing more until then, once a write has failed.
    """
    _fill(plant, "s3", draw)
    plant.servers["s3"].kill()
    plant.servers["s3"].start()


def fill_postgres(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Fill Postgres's disk to the last byte for a while; if it stopped, its supervisor starts it again."""
    _fill(plant, "postgres", draw)
    server = plant.servers["postgres"]
    assert server.process is not None
    time.sleep(0.2)
    if server.process.poll() is not None:
        server.start()


WORK, ALL = WORKER_STAGES, (*WORKER_STAGES, RoundState.LABELING)
KINDS = (
    Kind("trainer killed", kill_trainer, WORK),
    Kind("worker killed", kill_worker, WORK),
    Kind("worker and trainer killed", kill_worker_and_trainer, WORK),
    Kind("coordinator killed", kill_coordinator, ALL, hits="coordinator"),
    Kind("labeler killed", kill_labeler, (RoundState.LABELING, *ALL), hits="labeler"),
    Kind("redis killed", kill_redis, ALL),
    Kind("redis flushed", flush_redis, ALL),
    Kind("redis restarted empty", empty_redis, ALL),
    Kind("postgres restarted", restart_postgres, ALL, hits="labeler"),
    Kind("s3 stopped", stop_s3, WORK),
    Kind("worker frozen past its lease", freeze_worker, WORK, meanwhile=True),
    Kind("worker cut off past its lease", cut_off, WORK, meanwhile=True),
    Kind("worker's network stalled", stall, WORK, meanwhile=True),
    Kind("worker's clock off by minutes", shift_clock, WORK),
    Kind("s3's disk full", fill_s3, WORK),
    Kind("postgres's disk full", fill_postgres, ALL, hits="labeler"),
)


def available(plant: Plant) -> tuple[list[Kind], list[str]]:
    """Return the kinds that this machine can do, and why it can't do the others."""
    missing = {}
    if not all(part.clock_file.exists() for part in plant.parts.values() if part.cable):
        missing["worker's clock off by minutes"] = "a C compiler (cc) and Linux are needed"
    for server in ("s3", "postgres"):
        if server not in plant.disks:
            missing[f"{server}'s disk full"] = "small disks can only be mounted by root"
    left_out = [f"{name}: {why}" for name, why in missing.items()]
    return [kind for kind in KINDS if kind.name not in missing], left_out


def find_victim(
    plant: Plant, kind: Kind, stage: RoundState, attempt: Attempt | None, draw: random.Random
) -> Victim:
    """Return the worker that is at `attempt`, or any one that serves the stage."""
    pid = (attempt.worker or {}).get("pid") if attempt else None
    workers = [part for part in plant.parts.values() if part.cable]
    for part in workers:
        if part.process is not None and part.process.pid == pid:
            return Victim(stage, part)
    queue = QUEUES.get(stage)
    return Victim(stage, draw.choice([p for p in workers if queue is None or queue in p.module]))


def goes_round(plant: Plant, since: float) -> bool:
    """Whether the coordinator has gone round since then."""
    path = plant.parts["coordinator"].alive_file
    return path.exists() and path.stat().st_mtime > since


WORK_TO_DO = {"agent": {"total_steps": 2048}}
PROCESSES = Flavour(running, available, find_victim, WORK_TO_DO, goes_round)


def _fill(plant: Plant, server: str, draw: random.Random) -> None:
    ballast = plant.disks[server] / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * 65536):
                pass
        time.sleep(draw.uniform(*OUTAGE_S))
    finally:
        ballast.unlink()


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _lives(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
