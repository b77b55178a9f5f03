"""An export as one file, a zip archive: packed to be downloaded, unpacked without trusting it.

An archive may come from anybody. What it holds is looked at before a byte is written: no name leads out of
the folder, nothing is a link, nothing is there twice, and all together is no larger than it may be. Nor does
a small archive fill the memory: its list of files is bounded, and so are the ways of packing them.
"""

import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from shared.reuse import ReuseError
from shared.segments import PACKED

TEXT = {".json", ".jsonl", ".csv", ".md"}  # worth packing; films, arrays and weights hardly get smaller
# What every round made; an import has no use for it.
LEFT_OUT = re.compile(r"(agents|reward_models|videos|predictions)/.*|[^/]*\.(parquet|csv|md)|asides\.jsonl")
NAME = re.compile(r"[^\x00-\x1f\x7f\\:]{1,300}")
CHUNK = 1 << 20
MOST_LIST = 16 << 20  # bytes of the list of files, which is read into memory: some 150,000 of them


def pack(folder: Path, name: str, file: IO[bytes]) -> None:
    """Write the files of `folder` into an archive, in a folder called `name`, and remove each as it is in.

    So there need be hardly more room than the export takes once.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            how = zipfile.ZIP_DEFLATED if path.suffix in TEXT else zipfile.ZIP_STORED
            archive.write(path, f"{name}/{path.relative_to(folder).as_posix()}", how)
            path.unlink()


def unpack(file: IO[bytes], folder: Path, most: int, check_room: Callable[[int], None]) -> None:
    """Write what an import needs of an archive into `folder`; ReuseError if it is none, or not to be trusted.

    `most` is how many bytes that may be in all; `check_room` is told how many they are before the first is
    written, and may raise. The export may lie in a folder of the archive.
    """
    try:
        with zipfile.ZipFile(_Wary(file)) as archive:
            wanted = _wanted(archive)
            size = sum(one.file_size for one in wanted.values())
            if size > most:
                raise ReuseError(f"the archive holds more than {most >> 20} MiB, and no more are taken in")
            check_room(size)
            for name, member in wanted.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if member.header_offset < 0:
                    raise zipfile.BadZipFile(f"{name} would lie before its beginning")
                with archive.open(member) as source, path.open("xb") as target:
                    shutil.copyfileobj(source, target, CHUNK)  # never more than its header says
    except (
        zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError,
        UnicodeError,
    ) as error:  # fmt: skip
        raise ReuseError(f"this is no zip archive of an export, or it is damaged: {error}") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ReuseError(
            f"a name in the archive is a file and a folder: {Path(error.filename).name}"
        ) from None


class _Wary:
    """An archive that does not give out so much at once that it would fill the memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Return `size` bytes, or all that are left: those are asked for near the end alone."""
        if size > MOST_LIST:
            raise ReuseError("the archive's list of files is too long: it is no export, or damaged")
        return self._file.read(size)


def _wanted(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the files to unpack by their path in the export."""
    members = [one for one in archive.infolist() if not one.filename.startswith("__MACOSX/")]
    for one in members:
        _check(one)
    files = [one for one in members if not one.is_dir()]
    roots = {one.filename.removesuffix("config.json") for one in files if _is_config(one.filename)}
    if len(roots) != 1:
        raise ReuseError("the archive is no export, or not whole: it has no config.json, or several of them")
    root = roots.pop()
    found: dict[str, zipfile.ZipInfo] = {}
    for one in files:
        name = one.filename.removeprefix(root)
        if not one.filename.startswith(root) or LEFT_OUT.fullmatch(name):
            continue
        if name in found:
            raise ReuseError(f"{name} is in the archive twice")
        found[name] = one
    return found


def _is_config(name: str) -> bool:
    return name == "config.json" or (name.endswith("/config.json") and name.count("/") == 1)


def _check(member: zipfile.ZipInfo) -> None:
    name = member.filename
    parts = name.removesuffix("/").split("/")
    if not NAME.fullmatch(name) or any(part in ("", ".", "..") or len(part.encode()) > 200 for part in parts):
        raise ReuseError(f"the archive has a file of a name that is not allowed: {name[:100]!r}")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ReuseError(f"{name} in the archive is a link, or no ordinary file")
    if member.flag_bits & 1:
        raise ReuseError(f"{name} in the archive is encrypted")
    if member.compress_type not in PACKED:
        raise ReuseError(f"{name} is packed in an unusual way: pack the archive with deflate, as zip does")
