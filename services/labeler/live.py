"""Live status for pages: one look at the database, shared by everybody who listens."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable

from starlette.concurrency import run_in_threadpool

from services.labeler.schemas import Status

log = logging.getLogger(__name__)

LOOK_S = 0.2  # between two looks at the database while somebody listens
VOLATILE = {"final_in_s": True, "attempt": {"eta_s"}, "wait": True}  # changes by itself: no news
Look = Callable[[Iterable[str]], dict[str, Status]]


class Live:
    """Publishes the status of experiments to those who listen; asks nothing while nobody does.

    Everything here runs in the event loop, apart from `look`, which asks the database in a thread.
    """

    def __init__(self, look: Look) -> None:
        self._look = look
        self._queues: dict[
            asyncio.Queue[Status | None], str
        ] = {}  # each listener's, and the name listened to
        self._news: dict[str, Status] = {}
        self._poller: asyncio.Task[None] | None = None
        self.closed = False

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._queues)

    async def listen(self, name: str) -> AsyncIterator[Status]:
        """Yield the status of experiment `name` now and at each change, at most once in LOOK_S seconds."""
        queue: asyncio.Queue[Status | None] = asyncio.Queue(1)
        if name in self._news:
            queue.put_nowait(self._news[name])
        self._queues[queue] = name
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        try:
            while not self.closed and (status := await queue.get()) is not None:
                yield status
        finally:
            del self._queues[queue]
            if name not in self._queues.values():
                self._news.pop(name, None)  # nobody keeps it fresh any more

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self.closed = True
        for queue in self._queues:
            _replace(queue, None)

    async def _poll(self) -> None:
        try:
            while self._queues and not self.closed:
                await self._publish()
                await asyncio.sleep(LOOK_S)
        finally:
            self._poller = None
            self._news.clear()

    async def _publish(self) -> None:
        try:
            found = await run_in_threadpool(self._look, set(self._queues.values()))
        except Exception as error:  # a database that is away for a moment must not end the streams
            log.warning("could not look at the experiments: %s", error)
            return
        for name, status in found.items():
            known = self._news.get(name)
            self._news[name] = status
            if known is not None and _lasting(known) == _lasting(status):
                continue
            for queue, wanted in self._queues.items():
                if wanted == name:
                    _replace(queue, status)


def _lasting(status: Status) -> dict[str, object]:
    return status.model_dump(exclude=VOLATILE)  # type: ignore[arg-type]


def _replace(queue: asyncio.Queue[Status | None], status: Status | None) -> None:
    """A listener that is too slow gets the newest status, not a backlog."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(status)
