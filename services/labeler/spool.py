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
    try:
        with tempfile.TemporaryDirectory(dir=folder(settings)) as name:
            yield Path(name)
    except OSError as error:
        refuse_if_full(error)
        raise


def refuse_if_full(error: OSError) -> None:
    """Raise Problem 507 if this is what a full disk says."""
    if error.errno in FULL:
        detail = "the disk got full: make room, and try again; nothing was changed"
        raise Problem(507, "full", detail) from None
