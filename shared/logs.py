"""What a program says of itself: lines for people, or one JSON object a line for programs.

`about(round=3, attempt=7)` puts ids on every line written in its block; changes of state are logged by
`Database.write` once they are committed.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime

from shared.settings import Settings

IDS = ("experiment", "round", "attempt")  # ids in the database

_ids: ContextVar[dict[str, int]] = ContextVar("ids", default={})  # noqa: B039 (never changed, only replaced)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, message, the ids that are known, the traceback."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **_ids.get(),
        }
        for name in (*IDS, "event", "source", "target", "actor"):
            if (value := getattr(record, name, None)) is not None:
                line[name] = value
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def set_up(settings: Settings) -> None:
    """Log to standard error in the form and from the level that the settings name."""
    handler = logging.StreamHandler()
    if settings.log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.basicConfig(level=settings.log_level, handlers=[handler])


@contextmanager
def about(**ids: int) -> Iterator[None]:
    """Put ids on every line of the block, beside those of the blocks around it."""
    token = _ids.set({**_ids.get(), **ids})
    try:
        yield
    finally:
        _ids.reset(token)
