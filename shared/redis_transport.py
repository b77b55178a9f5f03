"""kombu's transport over Redis, in which a damaged message stops nobody: `shared.broker` takes it.

The original raises what it can't read in the worker that reads it, and so ends it or leaves it deaf.
"""

import logging
from queue import Empty
from typing import Any

from kombu.transport import redis, virtual

log = logging.getLogger(__name__)


class RedisChannel(redis.Channel):
    """kombu's channel, which drops a message that is no JSON."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except ValueError as error:  # of JSON or UTF-8: errors of Redis and its connection are of other kinds
            log.warning("dropped a damaged message: %s", error)
            raise Empty from None


class RedisTransport(redis.Transport):
    """kombu's transport, which drops a message that is no call of a task."""

    Channel = RedisChannel

    def _deliver(self, message: Any, queue: str) -> None:
        try:
            read = virtual.Message(message, channel=self.channels[0])
            _arguments, _named, _embedded = read.decode()
            _needed = read.headers["task"], read.headers["id"], read.delivery_info["routing_key"]
        except Exception as error:  # whatever it holds, it must not stop the worker
            log.warning("dropped a damaged message (%s): %.200r", error, message)
            return
        super()._deliver(message, queue)
