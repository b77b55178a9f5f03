"""Live news for pages: one look at the database, shared by everybody who listens."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from services.labeler.sessions import Shown

log = logging.getLogger(__name__)

LOOK_S = 0.2  # between two looks at the database while somebody listens
KNOWN_S = 2.0  # between two looks whether they who listen are still logged in
VOLATILE = {"final_in_s": True, "attempt": {"eta_s"}, "wait": True}  # changes by itself: no news


@dataclass(frozen=True)
class Topic:
    """What somebody listens to: the status of an experiment, or what the admin is told.

    The admin's is of one experiment by its name, or without one of the newest before a certain id.
    """

    kind: Literal["status", "admin"]
    name: str = ""
    before: int | None = None


Look = Callable[[Collection[Topic]], dict[Topic, BaseModel]]
Known = Callable[[Collection[Shown]], set[Shown]]
Queue = asyncio.Queue[BaseModel | None]


@dataclass(frozen=True)
class Listener:
    """What is listened to, and what says who listens; None: they need no session."""

    topic: Topic
    shown: frozenset[Shown] | None


class Live:
    """Publishes news to those who listen; asks nothing while nobody does.

    Everything here runs in the event loop, apart from `look` and `known`, which ask the database in a thread.
    `known` returns what of the sessions shown is still good: a stream ends when its listener's is not.
    """

    def __init__(self, look: Look, known: Known) -> None:
        self._look, self._known = look, known
        self._queues: dict[Queue, Listener] = {}
        self._news: dict[Topic, BaseModel] = {}
        self._poller: asyncio.Task[None] | None = None
        self.closed = False

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return len(self._queues)

    async def listen(self, topic: Topic, shown: frozenset[Shown] | None = None) -> AsyncIterator[BaseModel]:
        """Yield the news of a topic now and at each change, at most once in LOOK_S seconds."""
        queue: Queue = asyncio.Queue(1)
        if topic in self._news:
            queue.put_nowait(self._news[topic])
        self._queues[queue] = Listener(topic, shown)
        if self._poller is None:
            self._poller = asyncio.create_task(self._poll())
        try:
            while not self.closed and (news := await queue.get()) is not None:
                yield news
        finally:
            del self._queues[queue]
            if all(one.topic != topic for one in self._queues.values()):
                self._news.pop(topic, None)  # nobody keeps it fresh any more

    def close(self) -> None:
        """End every stream, so that the server can stop."""
        self.closed = True
        for queue in self._queues:
            _replace(queue, None)

    async def _poll(self) -> None:
        checked = time.monotonic()
        try:
            while self._queues and not self.closed:
                await self._publish()
                if time.monotonic() > checked + KNOWN_S:
                    await self._dismiss()
                    checked = time.monotonic()
                await asyncio.sleep(LOOK_S)
        finally:
            self._poller = None
            self._news.clear()

    async def _publish(self) -> None:
        topics = {one.topic for one in self._queues.values()}
        try:
            found = await run_in_threadpool(self._look, topics)
        except Exception as error:  # a database that is away for a moment must not end the streams
            log.warning("could not look at the experiments: %s", error)
            return
        wanted = {one.topic for one in self._queues.values()}
        for topic, news in found.items():
            if topic not in wanted:  # any more: kept, it would be told, however old, to who comes next
                continue
            known = self._news.get(topic)
            self._news[topic] = news
            if known is not None and _lasting(known) == _lasting(news):
                continue
            for queue, listener in self._queues.items():
                if listener.topic == topic:
                    _replace(queue, news)

    async def _dismiss(self) -> None:
        """End the streams of those who have been logged out, here or by another process."""
        asked = {one for listener in self._queues.values() for one in listener.shown or ()}
        if not asked:
            return
        try:
            good = await run_in_threadpool(self._known, asked)
        except Exception as error:
            log.warning("could not look who is logged in: %s", error)
            return
        for queue, listener in self._queues.items():
            # Who came while we asked is looked at the next time.
            if listener.shown is not None and listener.shown <= asked and not listener.shown & good:
                _replace(queue, None)


def _lasting(news: BaseModel) -> dict[str, object]:
    return news.model_dump(exclude=VOLATILE)  # type: ignore[arg-type]


def _replace(queue: Queue, news: BaseModel | None) -> None:
    """A listener that is too slow gets the newest, not a backlog."""
    while not queue.empty():
        queue.get_nowait()
    queue.put_nowait(news)
