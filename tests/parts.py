"""The system's parts as real processes, small real experiments, and answers given as a teacher would."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr
from sqlalchemy import select

from shared import config, handing_out, labels, rounds
from shared.broker import Broker
from shared.config import ExperimentConfig
from shared.database import Database, now
from shared.models import Attempt, Experiment, Judgement, Labeler, Round, StoredArtifact
from shared.settings import Settings
from shared.states import RoundState
from shared.transitions import Hint

HASTE: dict[str, Any] = {"lease_s": 3.0, "beat_s": 0.3, "sweep_s": 0.05}


def tiny(name: str = "tiny", **changes: Any) -> ExperimentConfig:
    """A CartPole experiment that is over in seconds."""
    data: dict[str, Any] = {
        "name": name,
        "env_id": "CartPole-v1",
        "rounds": 2,
        "segments": {"length": 5, "collect_steps": 64, "collect_envs": 4},
        "labels": {"comparisons_per_round": 3, "undo_grace_s": 0},
        "reward_model": {"epochs": 20, "hidden": 8, "members": 2},
        "agent": {"num_envs": 4, "num_steps": 32, "minibatch_size": 64, "total_steps": 512, "hidden": 8},
        "evaluation": {"episodes": 3},
    }
    for key, value in changes.items():
        data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
    return config.parse(data)


def environment(settings: Settings) -> dict[str, str]:
    """Turn settings into the environment of a process that is to read the same ones."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set | {"data_dir"}}
    given |= {name: getattr(settings, name) for name in ("database_url", "broker_url", "store_url")}
    mine = {name: value for name, value in os.environ.items() if not name.startswith("LOCKSTEP_")}
    plain = {name: v.get_secret_value() if isinstance(v, SecretStr) else v for name, v in given.items()}
    return mine | {f"LOCKSTEP_{name.upper()}": str(value) for name, value in plain.items()}


@contextmanager
def part(module: str, settings: Settings) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a part of the system until the block is left; it dies with this process."""
    with (settings.data_dir / f"{module}.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "services.leash", module], stdin=subprocess.PIPE, stdout=log,
            stderr=subprocess.STDOUT, env=environment(settings), process_group=0,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            assert process.stdin is not None
            process.stdin.close()


def create(database: Database, wanted: ExperimentConfig) -> tuple[int, list[Hint]]:
    """Create an experiment and return its id and the hints that follow."""
    with database.write() as session:
        experiment, hints = rounds.create_experiment(session, wanted, "a test")
        return experiment.id, hints


def answer_all(database: Database, experiment_id: int) -> list[Hint]:
    """Answer every open comparison as the oracle would, close labeling, return the hints."""
    with database.write() as session:
        labeler = session.scalar(select(Labeler))
        if labeler is None:
            labeler = Labeler(name="oracle", kind="teacher", token_sha256="0", created_at=now(session))
            session.add(labeler)
            session.flush()
        experiment = session.get_one(Experiment, experiment_id)
        for claimed in handing_out.claim(session, experiment.name, labeler, 100).comparisons:
            left, right = (sum(session.get_one(Judgement, clip).per_step) for clip in claimed.clip_ids)
            ranks = [int(left < right), int(left > right)]
            labels.answer(session, str(uuid.uuid4()), claimed.comparison_id, labeler, ranks)
        round_id = rounds.current_round(session, experiment_id).id
    with database.write() as session:
        return rounds.close_labeling(session, round_id, "a test")


def until(true: Callable[[], Any], seconds: float = 60.0, every_s: float = 0.02) -> Any:
    """Wait until `true()` is, and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(every_s)
    return value


def attempts(database: Database, experiment_id: int) -> list[Attempt]:
    """Return an experiment's attempts, oldest first."""
    query = select(Attempt).join(Round).where(Round.experiment_id == experiment_id).order_by(Attempt.id)
    with database.read() as session:
        return list(session.scalars(query))


def newest_round(database: Database, experiment_id: int) -> Round:
    """Return an experiment's newest round, with its experiment."""
    with database.read() as session:
        round_ = rounds.current_round(session, experiment_id)
        assert round_.experiment
        return round_


def sums(database: Database) -> dict[tuple[int, str], str]:
    """Return the SHA-256 sum of every official artifact by round and kind."""
    with database.read() as session:
        query = select(Round.number, StoredArtifact.kind, StoredArtifact.sha256).join(StoredArtifact)
        return {(number, kind): sha256 for number, kind, sha256 in session.execute(query)}


def play(
    database: Database,
    broker: Broker,
    experiment_id: int,
    meddle: Callable[[Round, list[Attempt]], None] = lambda round_, attempts: None,
    seconds: float = 100.0,
) -> None:
    """Answer whatever is asked until the experiment has finished; `meddle` may spoil things on the way."""
    deadline = time.monotonic() + seconds
    while True:
        round_ = newest_round(database, experiment_id)
        if round_.experiment.state == "finished":
            return
        assert round_.state != RoundState.FAILED, round_.error
        tried = attempts(database, experiment_id)
        assert time.monotonic() < deadline, f"stuck in {round_.state}: {[(a.id, a.state) for a in tried]}"
        meddle(round_, tried)
        if round_.state == RoundState.LABELING:
            broker.send(answer_all(database, experiment_id))
        time.sleep(0.02)


@dataclass
class Cable:
    """A port that forwards to another; `cut` closes what goes through it, `stalled` holds it back."""

    port: int
    cut: threading.Event = field(default_factory=threading.Event)
    stalled: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)


@contextmanager
def cable(port: int) -> Iterator[Cable]:
    """Forward a port of one's own to `port` of this machine."""
    listening = socket.create_server(("127.0.0.1", 0))
    made = Cable(listening.getsockname()[1])

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while not made.cut.is_set() and (data := await reader.read(65536)):
                while made.stalled.is_set() and not made.cut.is_set():
                    await asyncio.sleep(0.02)
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if made.cut.is_set():
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # nobody listens there just now
            writer.close()
            return
        jobs = [
            asyncio.create_task(carry(reader, far_writer)),
            asyncio.create_task(carry(far_reader, writer)),
        ]
        while not all(job.done() for job in jobs):
            await asyncio.sleep(0.02)
            if made.cut.is_set():
                for end in (writer, far_writer):
                    end.close()
                for job in jobs:
                    job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def serve() -> None:
        server = await asyncio.start_server(connect, sock=listening)
        async with server:
            while not made.over.is_set():
                await asyncio.sleep(0.02)
            made.cut.set()
            await asyncio.sleep(0.1)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        yield made
    finally:
        made.over.set()
        thread.join(10)
