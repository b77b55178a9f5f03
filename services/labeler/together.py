"""Who comes while others are served is served together with all who came meanwhile.

A claim or an answer is a few quick statements, and what costs is all around them: to wait for the database's
reply to each, to begin and commit a transaction, to wait for the disk, to wake a thread. So one thread goes
through one transaction after the other, each with everything that waits by then, and those who want the same
are served by the same statements. With one labeler at work that is one claim or answer in each; with a
thousand, as many as came in the meantime. Nobody is told anything before the commit.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from shared.labels import LabelError

Wish = TypeVar("Wish")
Outcome = TypeVar("Outcome")
# Serves several wishes: returns for each, in their order, what came of it, or why it is refused.
Serve = Callable[[Session, list[Wish]], Sequence[Outcome | LabelError]]


@dataclass(frozen=True)
class _Waiting:
    """Somebody who waits to be served."""

    serve: Serve[Any, Any]
    wish: Any
    future: "asyncio.Future[Any]"


class Together:
    """Serves wishes in transactions, one after the other. All who wait for it are in one event loop.

    `transaction` opens one, as `Database.write` and `Database.read` do.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[Session]]) -> None:
        self._transaction = transaction
        self._hand = ThreadPoolExecutor(1, "lockstep-together")
        self._waiting: list[_Waiting] = []
        self._at_work = False

    async def do(self, serve: Serve[Wish, Outcome], wish: Wish) -> Outcome:
        """Let `serve` serve a wish in a transaction; return what came of it, once that is committed.

        All who wait with an equal `serve` are served by one call of it. If one call raises, nothing was
        written, and everybody is served again alone; so it changes nothing but rows. LabelError is another
        matter: it says that wishes are refused and that nothing was changed for them.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.append(_Waiting(serve, wish, future))
        if not self._at_work:
            self._at_work = True
            loop.call_soon(self._begin, loop)  # not at once: who came at the same moment joins
        return await future

    def close(self) -> None:
        """Finish what was begun."""
        self._hand.shutdown()

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve everybody who waits."""
        batch, self._waiting = self._waiting, []
        self._at_work = bool(batch)
        if batch:
            self._hand.submit(self._work, loop, batch)

    def _work(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting]) -> None:
        """Serve a batch, on a thread of its own."""
        outcomes = self._served(batch)
        loop.call_soon_threadsafe(self._tell, loop, batch, outcomes)

    def _tell(self, loop: asyncio.AbstractEventLoop, batch: list[_Waiting], outcomes: list[Any]) -> None:
        """Go on with the next batch, and tell everybody in this one what came of it."""
        self._begin(loop)
        for one, outcome in zip(batch, outcomes, strict=True):
            if one.future.done():  # whoever asked has gone
                continue
            if isinstance(outcome, Exception):
                one.future.set_exception(outcome)
            else:
                one.future.set_result(outcome)

    def _served(self, batch: list[_Waiting]) -> list[Any]:
        """Serve a batch in one transaction; return for each what came of it, or the error."""
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for place, one in enumerate(batch):
            groups[one.serve].append(place)
        outcomes: dict[int, Any] = {}
        try:
            with self._transaction() as session:
                for places in groups.values():
                    served = _serve(session, [batch[place] for place in places])
                    outcomes |= zip(places, served, strict=True)
        except Exception as error:  # nothing was written
            if len(batch) == 1:
                return [error]
            return [outcome for one in batch for outcome in self._served([one])]
        return [outcomes[place] for place in range(len(batch))]


def _serve(session: Session, group: list[_Waiting]) -> Sequence[Any]:
    try:
        return group[0].serve(session, [one.wish for one in group])
    except LabelError as refusal:
        return [refusal] * len(group)
