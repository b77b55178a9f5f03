"""Hints to workers: "try to claim this attempt". Celery carries them; the database decides who works.

A message holds an attempt's id and nothing else. It is acknowledged before the work begins, so a lost,
doubled or late one does no harm: a claim takes care of doubles, and the coordinator hints again at what
nobody claims.

The full size sends hints over Redis (`redis_transport.py`). The embedded size sends them through a folder:
kombu's filesystem transport, in which a message is a file; `FolderChannel` closes two gaps in it.
"""

import logging
import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from queue import Empty
from time import monotonic_ns
from typing import Any
from urllib.parse import unquote, urlsplit

from celery import Celery
from kombu.entity import Queue
from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps, loads

from shared import states
from shared.settings import Settings
from shared.transitions import Hint

log = logging.getLogger(__name__)

TASK = "lockstep.attempt"  # the name of the one task; its argument is the id of an attempt
POLL_S = 0.05  # between two looks into the folder: about 1 % of a core
CONNECT_S = 2.0  # a broker that does not answer holds up its caller no longer than this, twice
ANSWER_S = 3.0  # the same for one that hangs
FOLDER_TRANSPORT = "lockstep-folder"


class BrokerAway(RuntimeError):
    """The broker does not answer; the message says why and what to do."""


class FolderChannel(filesystem.Channel):
    """kombu's channel through a folder, in which messages appear whole and damaged ones stop nobody.

    The original writes a message under its final name, so a reader can catch it half written, and then
    raises the parser's error in the reader.
    """

    def _queue_bind(self, *_: Any) -> None:
        """Keep no table of bindings: hints go through the anonymous exchange, which needs none."""

    def check(self) -> None:
        """Raise OSError unless a message could be sent."""
        probe = Path(self.data_folder_out) / f"{uuid.uuid4().hex}.unfinished"
        probe.touch()
        probe.unlink()

    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        name = f"{monotonic_ns():020d}_{uuid.uuid4().hex}"
        unfinished = folder / f"{name}.unfinished"
        unfinished.write_text(dumps(payload), encoding="utf-8")
        unfinished.rename(folder / f"{name}.{queue}.msg")

    def _get(self, queue: str, timeout: float | None = None) -> Any:
        folder = Path(self.data_folder_in)
        for name in sorted(os.listdir(folder)):
            if name.partition(".")[2] != f"{queue}.msg":
                continue
            mine = folder / f"{name}.{os.getpid()}-{uuid.uuid4().hex}.taken"
            try:
                (folder / name).rename(mine)  # of several readers, one succeeds
                text = mine.read_bytes()
                mine.unlink()
            except FileNotFoundError:
                continue
            try:
                payload = loads(text)
                self.message_to_python(payload)
            except Exception as error:  # whatever it holds, it must not stop the worker
                log.warning("dropped a damaged message (%s): %r", error, text[:200])
                continue
            return payload
        raise Empty


class FolderTransport(filesystem.Transport):
    """kombu's filesystem transport with the channel above."""

    Channel = FolderChannel
    driver_name = FOLDER_TRANSPORT


TRANSPORT_ALIASES[FOLDER_TRANSPORT] = f"{__name__}:{FolderTransport.__name__}"
for _scheme in ("redis", "rediss"):  # named, not imported: the embedded size needs no Redis
    TRANSPORT_ALIASES[_scheme] = "shared.redis_transport:RedisTransport"


def make_app(settings: Settings) -> Celery:
    """Make the Celery application that senders and workers share; makes the folders it needs."""
    app = Celery("lockstep", set_as_current=False)
    app.conf.update(
        # A hint is acknowledged when its task starts; leases say who works, not the broker.
        task_acks_late=False,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_serializer="json",
        accept_content=["json"],
        task_queues=[Queue(name, routing_key=name) for name in sorted(set(states.QUEUES.values()))],
        task_create_missing_queues=False,
        task_default_queue="agent_trainer",
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,  # a worker waits for its broker for ever
        broker_connection_timeout=CONNECT_S,
        enable_utc=True,
        **_transport(settings.broker_url),
    )
    return app


class Broker:
    """Sends hints; any number of threads may use one."""

    def __init__(self, settings: Settings) -> None:
        self.app = make_app(settings)

    def send(self, hints: Iterable[Hint]) -> None:
        """Send every hint; a broker that can't be reached is a warning: the coordinator hints again."""
        for hint in hints:
            try:
                self.app.send_task(TASK, args=[hint.attempt_id], queue=hint.queue, retry=False)
            except Exception as error:  # every transport has errors of its own, and none may lose a label
                log.warning(
                    "could not hint at attempt %s: %s (it is hinted at again)", hint.attempt_id, error
                )
                return

    def check(self) -> None:
        """Raise BrokerAway unless the broker answers, or its folder can be written to."""
        try:
            with self.app.connection_for_write() as connection, connection.channel() as channel:
                if isinstance(channel, FolderChannel):
                    channel.check()
                else:
                    channel.client.ping()
        except Exception as error:  # every transport has errors of its own
            raise BrokerAway(f"the broker does not answer ({error}); is it running?") from error

    def close(self) -> None:
        """Close the connections."""
        self.app.close()


def _transport(url: str) -> dict[str, Any]:
    if url.startswith("filesystem:"):
        folder = Path(unquote(urlsplit(url).path))
        folder.mkdir(parents=True, exist_ok=True)
        options: dict[str, Any] = {"polling_interval": POLL_S}
        options |= {name: str(folder) for name in ("data_folder_in", "data_folder_out", "control_folder")}
        return {"broker_url": f"{FOLDER_TRANSPORT}://localhost", "broker_transport_options": options}
    options = {
        "socket_connect_timeout": CONNECT_S,
        "socket_timeout": ANSWER_S,
        "socket_keepalive": True,
        "max_retries": 1,  # of a sender; a worker waits for ever
        "interval_start": 0.0,
        "interval_step": 0.1,
    }
    return {
        "broker_url": url,
        "broker_transport_options": options,
        # A worker that trains takes no second hint into its memory, where no other worker could get it.
        "worker_disable_prefetch": True,
    }
