"""A trainer's store: one that is away for a while is waited for, instead of failing attempt after attempt."""

import time
from collections.abc import Callable
from typing import TypeVar

from shared.jobs import StageStopped, Store
from shared.storage import StoreAway

PATIENCE_S = 300.0  # a store that stays away longer fails the attempt
PAUSE_S, PAUSE_MOST_S = 0.1, 2.0  # between two tries, the first and the longest

T = TypeVar("T")


class PatientStore:
    """Does what the store does that `open_store` opens, at the first use, and tries again while it is away.

    Writing twice is harmless: a key takes the same bytes again. StageStopped if the stage is asked to stop.
    """

    def __init__(self, open_store: Callable[[], Store], should_stop: Callable[[], bool]) -> None:
        self._open, self._should_stop = open_store, should_stop
        self._store: Store | None = None

    def put(self, key: str, data: bytes) -> None:
        """Store `data` under `key`."""
        self._insist(lambda store: store.put(key, data))

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Return what lies under `key`."""
        return self._insist(lambda store: store.get(key, sha256))

    def _insist(self, act: Callable[[Store], T]) -> T:
        deadline, pause_s = time.monotonic() + PATIENCE_S, PAUSE_S
        while True:
            try:
                self._store = self._store or self._open()
                return act(self._store)
            except StoreAway as error:
                if time.monotonic() > deadline:
                    raise
                print(f"waiting for the store: {error}")
            if self._should_stop():
                raise StageStopped
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, PAUSE_MOST_S)
