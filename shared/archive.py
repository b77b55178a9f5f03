"""An export as one file, a zip archive: packed to be downloaded, unpacked without trusting it.

An archive may come from anybody. What it holds is looked at before a byte is written: no name leads out of
the folder, nothing is a link, nothing is there twice, and all together is no larger than it may be.
"""

import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path
from typing import IO

from shared.reuse import ReuseError

TEXT = {".json", ".jsonl", ".csv", ".md"}  # worth packing; films, arrays and weights hardly get smaller
# What every round made; an import has no use for it.
LEFT_OUT = re.compile(r"(agents|reward_models|videos|predictions)/.*|[^/]*\.(parquet|csv|md)|asides\.jsonl")
NAME = re.compile(r"[^\x00-\x1f\x7f\\:]{1,300}")
CHUNK = 1 << 20


def pack(folder: Path, name: str, file: IO[bytes]) -> None:
    """Write the files of `folder` into an archive, in a folder called `name`, and remove each as it is in.

    So there need be hardly more room than the export takes once.
    """
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(one for one in folder.rglob("*") if one.is_file()):
            how = zipfile.ZIP_DEFLATED if path.suffix in TEXT else zipfile.ZIP_STORED
            archive.write(path, f"{name}/{path.relative_to(folder).as_posix()}", how)
            path.unlink()


def unpack(file: IO[bytes], folder: Path, most: int) -> None:
    """Write what an import needs of an archive into `folder`; ReuseError if it is none, or not to be trusted.

    `most` is how many bytes that may be in all. The export may lie in a folder of the archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            wanted = _wanted(archive)
            if sum(one.file_size for one in wanted.values()) > most:
                raise ReuseError(f"the archive holds more than {most >> 20} MiB, and no more are taken in")
            for name, member in wanted.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, path.open("xb") as target:
                    shutil.copyfileobj(source, target, CHUNK)  # never more than its header says
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, UnicodeError) as error:
        raise ReuseError(f"this is no zip archive of an export, or it is damaged: {error}") from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise ReuseError(
            f"a name in the archive is a file and a folder: {Path(error.filename).name}"
        ) from None


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
    if not NAME.fullmatch(name) or any(part in ("", ".", "..") or len(part) > 200 for part in parts):
        raise ReuseError(f"the archive has a file of a name that is not allowed: {name[:100]!r}")
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ReuseError(f"{name} in the archive is a link, or no ordinary file")
    if member.flag_bits & 1:
        raise ReuseError(f"{name} in the archive is encrypted")
