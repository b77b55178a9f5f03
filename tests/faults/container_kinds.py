"""The faults of containers: what each does to the running system, and until when."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from shared.models import Attempt
from shared.states import QUEUES, WORKER_STAGES, RoundState
from tests.faults.containers import PROJECT, Plant, docker, running, trainers_of
from tests.faults.kinds import LONGER_S, OUTAGE_S
from tests.faults.plant import LEASE_S
from tests.faults.system import Flavour, Kind

NETWORK = f"{PROJECT}_default"
# As a worker: nobody has the right to FLUSHALL, so every key that Celery uses is removed by name.
REDIS_CLI = 'REDISCLI_AUTH=$(cat /run/secrets/worker_password) redis-cli -e --user worker "$@"'
PRIORITIES = ("", *(f"\x06\x16{priority}" for priority in (3, 6, 9)))  # as kombu names a queue's lists
KEYS = (
    *(queue + priority for queue in set(QUEUES.values()) for priority in PRIORITIES),
    *(f"_kombu.binding{kind}.{queue}" for queue in set(QUEUES.values()) for kind in ("", "_permanent")),
    "_kombu.binding_deadlines", "unacked", "unacked_index", "unacked_mutex",
)  # fmt: skip


@dataclass(frozen=True)
class Victim:
    """Where a fault strikes: the stage, and the container that is at it (in labeling: any trainer's)."""

    stage: RoundState
    container: str


def kill_trainer_process(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Kill -9 of the process that holds torch, inside its container."""
    if pids := trainers_of(victim.container):
        plant.kill(pids)


def kill_trainer(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Kill a trainer's container."""
    plant.kill_container(victim.container)


def kill(service: str) -> Callable[[Plant, Victim, random.Random], None]:
    """Return the fault that kills the container of `service`."""

    def strike(plant: Plant, victim: Victim, draw: random.Random) -> None:
        plant.kill_container(plant.containers[service][0])

    return strike


def flush_redis(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Empty Redis."""
    docker("exec", plant.containers["redis"][0], "sh", "-c", REDIS_CLI, "sh", "unlink", *KEYS)


def empty_redis(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Kill Redis and empty its volume; it comes back with nothing."""
    (redis,) = plant.containers["redis"]
    docker("kill", redis)  # by this word its restart policy leaves it down
    docker(
        "run", "--rm", "--user", "root", "--network", "none", "--volume", f"{PROJECT}_redis:/emptied",
        "lockstep-web", "find", "/emptied", "-mindepth", "1", "-delete",
    )  # fmt: skip
    time.sleep(draw.uniform(*OUTAGE_S))
    docker("start", redis)


def stop_postgres(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Stop Postgres in order, start it after a while."""
    (postgres,) = plant.containers["postgres"]
    docker("stop", "--time", "30", postgres)
    time.sleep(draw.uniform(*OUTAGE_S))
    docker("start", postgres)


def pause_trainer(plant: Plant, victim: Victim) -> None:
    """Pause a trainer's container."""
    docker("pause", victim.container)


def unpause_trainer(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Let a paused trainer go on when it is past its lease: it comes back as a zombie."""
    time.sleep(LEASE_S + draw.uniform(*LONGER_S))
    docker("unpause", victim.container)


def disconnect_trainer(plant: Plant, victim: Victim) -> None:
    """Take a trainer's container off its network."""
    docker("network", "disconnect", NETWORK, victim.container)


def connect_trainer(plant: Plant, victim: Victim, draw: random.Random) -> None:
    """Bring it back when it is past its lease; its address may be another one then."""
    time.sleep(LEASE_S + draw.uniform(*LONGER_S))
    docker("network", "connect", NETWORK, victim.container)


WORK, ALL = WORKER_STAGES, (*WORKER_STAGES, RoundState.LABELING)
KINDS = [
    Kind("trainer process killed", kill_trainer_process, WORK),
    Kind("trainer container killed", kill_trainer, WORK),
    Kind("coordinator container killed", kill("coordinator"), ALL, hits="coordinator"),
    Kind("labeler container killed", kill("labeler"), (RoundState.LABELING, *ALL), hits="labeler"),
    Kind("redis container killed", kill("redis"), ALL),
    Kind("redis flushed", flush_redis, ALL),
    Kind("redis restarted, its volume emptied", empty_redis, ALL),
    Kind("postgres container killed", kill("postgres"), ALL, hits="labeler"),
    Kind("postgres stopped and started", stop_postgres, ALL, hits="labeler"),
    Kind("minio container killed", kill("minio"), WORK),
    Kind("trainer paused past its lease", unpause_trainer, WORK, meanwhile=True, begin=pause_trainer),
    Kind(
        "trainer off the network past its lease",
        connect_trainer,
        WORK,
        meanwhile=True,
        begin=disconnect_trainer,
    ),
]


def available(plant: Plant) -> tuple[list[Kind], list[str]]:
    """Return the kinds of fault: where there is an engine, all of them can be done."""
    return KINDS, []


def find_victim(
    plant: Plant, kind: Kind, stage: RoundState, attempt: Attempt | None, draw: random.Random
) -> Victim:
    """Return the container that is at `attempt`, or any trainer's that serves the stage."""
    host = (attempt.worker or {}).get("host") if attempt else None
    queue = QUEUES.get(stage)
    queues = [queue] if queue else sorted(set(QUEUES.values()))
    trainers = [container for name in queues for container in plant.containers[name]]
    at_it = [container for container in trainers if host and container.startswith(host)]
    return Victim(stage, draw.choice(at_it or trainers))


def goes_round(plant: Plant, since: float) -> bool:
    """Whether the coordinator has gone round since then."""
    look = ("find", "/tmp/alive", "-newermt", f"@{since}")
    try:
        return bool(docker("exec", plant.containers["coordinator"][0], *look).strip())
    except RuntimeError:  # it is down, or has not begun
        return False


WORK_TO_DO = {  # two seconds or more a stage: Docker takes some tenths to strike
    "rounds": 5,
    "segments": {"collect_steps": 16384, "collect_envs": 4},
    "reward_model": {"epochs": 600},
    "agent": {"total_steps": 8192},
}
CONTAINERS = Flavour(running, available, find_victim, WORK_TO_DO, goes_round)
