"""One writer for all labelers: what comes while a transaction is written is written together in the next one.

A claim or an answer is a few quick statements; what costs is all around them: a transaction to begin and to
commit, a disk to wait for, a thread to wake. So one thread does one transaction after the other, each with
everything that waits by then. With one labeler at work that is one claim or answer in each; with a thousand
it is as many as came in the meantime. Nobody is told anything before the commit.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from shared.database import Database
from shared.labels import LabelError

Result = TypeVar("Result")
Work = Callable[[Session], Any]
Waiting = tuple[Work, "asyncio.Future[Any]"]


class Writer:
    """Does works in transactions of their database. All who wait for it are in one event loop."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._hand = ThreadPoolExecutor(1, "lockstep-hand")
        self._waiting: list[Waiting] = []
        self._at_work = False

    async def do(self, work: Callable[[Session], Result]) -> Result:
        """Do `work` in a transaction and return what it returned, once that is committed.

        A work changes nothing but rows, because it may be done again: if one of those that are done together
        raises, nothing was written, and each is done again alone. Only LabelError is left out of this: it
        says that a labeler's wish was refused, and so that its work changed nothing.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((work, future))
        if not self._at_work:
            self._at_work = True
            loop.call_soon(self._begin, loop)  # not at once: what came at the same moment joins
        return await future

    def close(self) -> None:
        """Finish what is being written."""
        self._hand.shutdown()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand over everything that waits."""
        batch, self._waiting = self._waiting, []
        self._at_work = bool(batch)
        if batch:
            self._hand.submit(self._write, loop, batch)

    def _write(self, loop: asyncio.AbstractEventLoop, batch: list[Waiting]) -> None:
        """Write a batch, on the writer's own thread."""
        outcomes = self._together([work for work, _ in batch])
        loop.call_soon_threadsafe(self._tell, loop, batch, outcomes)

    def _tell(self, loop: asyncio.AbstractEventLoop, batch: list[Waiting], outcomes: list[Any]) -> None:
        """Go on with the next batch, and tell everybody in this one how it went."""
        self._begin(loop)
        for (_, future), outcome in zip(batch, outcomes, strict=True):
            if future.done():  # whoever asked has gone
                continue
            if isinstance(outcome, Exception):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _together(self, works: list[Work]) -> list[Any]:
        """Do works in one transaction; return what each returned or raised."""
        try:
            with self.database.write() as session:
                return [_unless_refused(work, session) for work in works]
        except Exception as error:  # nothing was written
            if len(works) == 1:
                return [error]
            return [outcome for work in works for outcome in self._together([work])]


def _unless_refused(work: Work, session: Session) -> Any:
    try:
        return work(session)
    except LabelError as refusal:
        return refusal
