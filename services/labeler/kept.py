"""What the labeler service keeps in memory for a moment, so that not every key press asks the database."""

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass
class Kept(Generic[Key, Value]):
    """At most `most` values, each for at most `seconds`; when it is full, the oldest makes room.

    Threads may share it: a race costs at most a look-up that was not needed.
    """

    seconds: float
    most: int
    values: dict[Key, tuple[float, Value]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)  # for who changes it

    def get(self, key: Key) -> Value | None:
        """Return what is kept for `key`, None if that is nothing or too old."""
        found = self.values.get(key)
        return found[1] if found is not None and time.monotonic() - found[0] < self.seconds else None

    def put(self, key: Key, value: Value) -> Value:
        """Keep `value`."""
        with self.lock:
            self.values.pop(key, None)
            while len(self.values) >= self.most:
                self.values.pop(next(iter(self.values)))
            self.values[key] = (time.monotonic(), value)
        return value

    def change(self, key: Key, value: Value) -> None:
        """Put `value` in the place of what is kept, for what is left of its time."""
        with self.lock:
            if key in self.values:
                self.values[key] = (self.values[key][0], value)

    def find(self, key: Key, look_up: Callable[[], Value]) -> Value:
        """Return what is kept for `key`, else what `look_up` returns, kept from now on."""
        found = self.get(key)
        if found is None:
            found = look_up()
            if found is not None:
                self.put(key, found)
        return found

    def forget(self) -> None:
        """Keep nothing: something has changed."""
        with self.lock:
            self.values.clear()
