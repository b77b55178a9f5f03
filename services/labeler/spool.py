"""Room on the disk for archives on their way out and in: they are never held in memory."""

import errno
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from services.labeler.problems import Problem
from shared.settings import Settings

STALE_S = 24 * 3600.0  # what is older was left by a process that died
SPARE = 64 << 20  # bytes that an export or import leaves to everybody else
FULL = (errno.ENOSPC, errno.EDQUOT)


def folder(settings: Settings) -> Path:
    """Return the folder for unfinished archives, cleared of what a process that died left there."""
    found = settings.data_dir / "spool"
    found.mkdir(parents=True, exist_ok=True)
    for path in found.iterdir():
        with suppress(FileNotFoundError):
            if path.is_dir() and path.stat().st_mtime < time.time() - STALE_S:
                shutil.rmtree(path, ignore_errors=True)
    return found


def check_room(place: Path, needed: int) -> None:
    """Raise Problem 507 unless `needed` bytes, and some to spare, are free."""
    free = shutil.disk_usage(place).free
    if needed + SPARE > free:
        detail = f"this takes {needed >> 20} MiB for a while, and {place} has {free >> 20} MiB free"
        raise Problem(507, "full", f"{detail}: make room there, and try again")


@contextmanager
def room(settings: Settings) -> Iterator[Path]:
    """Give a folder that is removed at the end; Problem 507 if the disk got full."""
    with full_is_told(), tempfile.TemporaryDirectory(dir=folder(settings)) as name:
        yield Path(name)


@contextmanager
def full_is_told() -> Iterator[None]:
    """Make a Problem 507 of what a full disk says, be it when a file is made, written or closed."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        detail = "the disk got full: make room, and try again; nothing was changed"
        raise Problem(507, "full", detail) from None
