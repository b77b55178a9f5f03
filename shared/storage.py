"""Where clips, weights and videos lie: one interface, a folder or an S3 bucket behind it.

A key is written once. Writing the same bytes to it again is harmless (an answer that was lost and asked for
again); writing other bytes raises `KeyTaken`, so nothing that the database points at ever changes. What was
written is whole or absent: a folder links a finished, synced file into place, S3 does the same by contract.
"""

import errno
import hashlib
import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

CHUNK = 1 << 18  # bytes handed on at a time by open_range
STALE_S = 24 * 3600.0  # an unfinished file older than this was left by a process that died
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]{0,199}", re.ASCII)


class StoreError(Exception):
    """The store could not do what was asked; the message says what to do."""


class BadKey(StoreError, ValueError):
    """A key that is not a safe relative path."""


class KeyTaken(StoreError):
    """The key already holds other bytes, or is a folder of other keys."""


class MissingArtifact(StoreError):
    """The store has nothing under the key."""


class DamagedArtifact(StoreError):
    """What lies under the key is not what was stored."""


class StoreAway(StoreError):
    """The store does not answer, or is in trouble itself: the same may well work in a while."""


class StoreFull(StoreError):
    """No room is left; nothing was written."""


class Store(Protocol):
    """What every service knows of the store. Every method raises BadKey for an unsafe key."""

    def check(self) -> None:
        """Raise StoreError unless the store answers."""

    def put(self, key: str, data: bytes) -> None:
        """Store `data` whole or not at all; KeyTaken if other bytes lie there, StoreFull without room."""

    def get(self, key: str, sha256: str | None = None) -> bytes:
        """Return what lies under `key`; MissingArtifact, or DamagedArtifact if its sum is not `sha256`."""

    def open_range(self, key: str, start: int, end: int) -> Iterator[bytes]:
        """Return the bytes from `start` up to, not including, `end`, in chunks; MissingArtifact at once."""

    def size(self, key: str) -> int:
        """Return the size in bytes; MissingArtifact if there is nothing."""

    def exists(self, key: str) -> bool:
        """Return whether something lies under `key`."""

    def delete(self, key: str) -> None:
        """Remove `key`; no error if there is nothing."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Return the keys that begin with `prefix`, in order."""


def open_store(
    url: str,
    *,
    endpoint: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    region: str = "us-east-1",
) -> Store:
    """Open `file:///folder` (or a plain path) or `s3://bucket/prefix`, made if it is not there yet."""
    parts = urlsplit(url)
    if parts.scheme == "s3":
        from shared.storage_s3 import S3Store, connect  # boto3 takes its time; a folder does without

        client = connect(endpoint, access_key, secret_key, region)
        return S3Store(client, parts.netloc, parts.path.strip("/"))
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return FolderStore(Path(unquote(parts.path)))
    if "://" in url or not url:
        raise StoreError(f"{url!r} is no address of a store: use file:///folder or s3://bucket/prefix")
    return FolderStore(Path(url))


def check_key(key: str) -> str:
    """Return `key` if it is a relative path of plain parts (`round-1/clip.mp4`); BadKey if not."""
    if len(key) > 900 or not all(_PART.fullmatch(part) for part in key.split("/")):
        raise BadKey(
            f"{key[:100]!r} is not a key: use letters, digits and . _ = - in parts separated by single "
            "slashes, none of them empty or beginning with a dot or a dash, 900 characters in all"
        )
    return key


def check_prefix(prefix: str) -> None:
    """Raise BadKey if no key can begin with `prefix` (the empty one is allowed)."""
    if prefix:
        check_key(prefix.removesuffix("/"))


class FolderStore:
    """A store in a folder. Unfinished files lie in its `.unfinished`, where no key can reach."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._unfinished = self.root / ".unfinished"
        with _folder_errors(f"the folder {self.root}"):
            self._unfinished.mkdir(parents=True, exist_ok=True)
        for left in self._unfinished.iterdir():
            with suppress(FileNotFoundError):  # another process may tidy up at the same time
                if left.stat().st_mtime < time.time() - STALE_S:
                    left.unlink()

    def check(self) -> None:
        probe = self._unfinished / uuid.uuid4().hex
        with _folder_errors(f"the folder {self.root}"):
            probe.touch()
            probe.unlink()

    def put(self, key: str, data: bytes) -> None:
        path, unfinished = self._path(key), self._unfinished / uuid.uuid4().hex
        with _folder_errors(key):
            try:
                with unfinished.open("xb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    os.link(unfinished, path)  # unlike a rename, this never replaces a file
                except (FileExistsError, NotADirectoryError):
                    if not path.is_file() or path.read_bytes() != data:
                        raise taken(key) from None
                _sync_folder(path.parent)
            finally:
                unfinished.unlink(missing_ok=True)

    def get(self, key: str, sha256: str | None = None) -> bytes:
        with _folder_errors(key):
            return checked(key, self._found(key).read_bytes(), sha256)

    def open_range(self, key: str, start: int, end: int) -> Iterator[bytes]:
        check_range(key, start, end, self.size(key))
        return self._chunks(key, start, end)

    def _chunks(self, key: str, start: int, end: int) -> Iterator[bytes]:
        with _folder_errors(key), self._found(key).open("rb") as file:
            file.seek(start)
            while start < end and (chunk := file.read(min(CHUNK, end - start))):
                start += len(chunk)
                yield chunk

    def size(self, key: str) -> int:
        with _folder_errors(key):
            return self._found(key).stat().st_size

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def delete(self, key: str) -> None:
        if self.exists(key):
            self._path(key).unlink(missing_ok=True)

    def list(self, prefix: str = "") -> Iterator[str]:
        check_prefix(prefix)
        top = self.root / prefix.rpartition("/")[0]
        names = (path.relative_to(self.root).as_posix() for path in top.rglob("*") if path.is_file())
        return iter(sorted(name for name in names if name.startswith(prefix) and name[0] != "."))

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _found(self, key: str) -> Path:
        path = self._path(key)
        if not path.is_file():
            raise missing(key)
        return path


def checked(key: str, data: bytes, sha256: str | None) -> bytes:
    """Return `data`; DamagedArtifact if a sum is given and is not its own."""
    if sha256 is not None and hashlib.sha256(data).hexdigest() != sha256:
        raise DamagedArtifact(
            f"{key} is damaged: its {len(data)} bytes have another SHA-256 sum than when it was stored; "
            "put back a copy from a backup, or remove it and retry the stage that made it"
        )
    return data


def check_range(key: str, start: int, end: int, size: int) -> None:
    """Raise ValueError if `start` to `end` does not lie within `size` bytes."""
    if not 0 <= start <= end <= size:
        raise ValueError(f"{key} has {size} bytes: the range from {start} to {end} is not in it")


def missing(key: str) -> MissingArtifact:
    """Say that nothing lies under `key`."""
    return MissingArtifact(
        f"the store has no {key}; put it back from a backup, or retry the stage that made it "
        "(was the store's address changed?)"
    )


def taken(key: str) -> KeyTaken:
    """Say that `key` cannot be written."""
    return KeyTaken(f"{key} already holds something else, and a key is written once; use a key of your own")


def full(key: str) -> StoreFull:
    """Say that there is no room."""
    return StoreFull(f"no room is left for {key}; nothing was written: free some room, then retry the stage")


@contextmanager
def _folder_errors(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise full(key) from error
        raise StoreError(f"the store's folder gave an error at {key}: {error}") from error


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
