"""Room on the disk for archives on their way out and in: they are never held in memory."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.labeler.problems import Problem
from shared.settings import Settings

SPARE = 64 << 20  # bytes that an export or import leaves to everybody else
FULL = (errno.ENOSPC, errno.EDQUOT)


def folder(settings: Settings) -> Path:
    """Return the folder for unfinished archives, cleared of what a process that died left there."""
    found = settings.data_dir / "spool"
    found.mkdir(parents=True, exist_ok=True)
    clear(settings)
    return found


def clear(settings: Settings) -> None:
    """Remove what a process that died left: folders whose lock nobody holds any more.

    Several labelers may share the place, so a folder's age says nothing.
    """
    for path in (settings.data_dir / "spool").glob("*/"):
        if (held := _lock(path, fcntl.LOCK_EX | fcntl.LOCK_NB)) is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(held)


def _locked(where: Path) -> tuple[Path, int]:
    """Make a folder and lock it; again if another process cleared it in between."""
    while True:
        place = Path(tempfile.mkdtemp(dir=where))
        held = _lock(place, fcntl.LOCK_EX)
        if held is not None and place.exists():
            return place, held
        if held is not None:
            os.close(held)


def _lock(path: Path, how: int) -> int | None:
    """Lock a folder until the file number that is returned is closed, or the process dies; None if not."""
    try:
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:  # gone, or no folder
        return None
    try:
        fcntl.flock(number, how)
    except OSError:  # another process is at work there
        os.close(number)
        return None
    return number


def check_room(place: Path, needed: int) -> None:
    """Raise Problem 507 unless `needed` bytes, and some to spare, are free."""
    free = shutil.disk_usage(place).free
    if needed + SPARE > free:
        detail = f"this takes {needed >> 20} MiB for a while, and {place} has {free >> 20} MiB free"
        raise Problem(507, "full", f"{detail}: make room there, and try again")


@contextmanager
def room(settings: Settings) -> Iterator[Path]:
    """Give a folder that is removed at the end; Problem 507 if the disk got full."""
    with full_is_told():
        place, held = _locked(folder(settings))
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)
            os.close(held)


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
