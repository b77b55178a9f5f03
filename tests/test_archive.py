"""An archive from anybody: looked at before anything is written, small in memory, refused in words."""

import io
import stat
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from services.labeler.problems import Problem
from shared import archive, reuse

Files = dict[str, bytes]


def zipped(files: Files, change: Callable[[zipfile.ZipFile], None] = lambda _: None) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as made:
        for name, one in files.items():
            made.writestr(name, one)
        change(made)
    return data.getvalue()


def link(made: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("clips/link.npz")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    made.writestr(info, "/etc/passwd")


def twice(made: zipfile.ZipFile) -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        made.writestr("clips/1.npz", b"another")


def holding(name: str) -> Callable[[zipfile.ZipFile], None]:
    return lambda made: made.writestr(zipfile.ZipInfo(name), b"1")


def roomy(_needed: int) -> None:
    """There is room."""


BAD: dict[str, tuple[Callable[[zipfile.ZipFile], None], str]] = {
    "a way up": (holding("../out.npz"), "not allowed"),
    "a way up within": (holding("clips/../../out.npz"), "not allowed"),
    "an absolute path": (holding("/tmp/out.npz"), "not allowed"),
    "a path of Windows": (holding("clips\\..\\out.npz"), "not allowed"),
    "a drive": (holding("C:/out.npz"), "not allowed"),
    "a very long name": (holding("x" * 250), "not allowed"),
    "a name of many bytes": (holding("ü" * 130), "not allowed"),
    "a link": (link, "is a link"),
    "a file twice": (twice, "is in the archive twice"),
    "a file that is a folder": (holding("clips/1.npz/2.npz"), "a file and a folder"),
    "another export": (holding("two/config.json"), "no config.json, or several"),
    "too much": (lambda made: made.writestr("clips/2.npz", bytes(5000), zipfile.ZIP_DEFLATED), "more than"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_archive_is_looked_at_before_anything_is_written(tmp_path: Path, what: str) -> None:
    change, message = BAD[what]
    files = {"config.json": b"{}", "clips/1.npz": b"1"}
    folder = tmp_path / "in" / "folder"
    folder.mkdir(parents=True)
    archive.unpack(io.BytesIO(zipped(files)), folder, 4096, roomy)
    assert sorted(one.name for one in folder.rglob("*")) == ["1.npz", "clips", "config.json"]
    for path in (folder / "clips" / "1.npz", folder / "config.json"):
        path.unlink()
    with pytest.raises(reuse.ReuseError, match=message):
        archive.unpack(io.BytesIO(zipped(files, change)), folder, 4096, roomy)
    if what != "a file that is a folder":
        assert [one for one in tmp_path.rglob("*") if one.is_file()] == []
    assert sorted(tmp_path.iterdir()) == [tmp_path / "in"]


@pytest.mark.parametrize("kind", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_python_would_unpack_whole_in_memory_is_refused(tmp_path: Path, kind: int) -> None:
    packed = zipped({"config.json": b"{}"}, lambda made: made.writestr("clips/1.npz", bytes(1000), kind))
    with pytest.raises(reuse.ReuseError, match="unusual way"):
        archive.unpack(io.BytesIO(packed), tmp_path, 4096, roomy)


def test_a_list_of_files_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = zipped({"config.json": b"{}"} | {f"clips/{number}": b"" for number in range(50)})
    monkeypatch.setattr(archive, "MOST_LIST", 50 * 50)
    with pytest.raises(reuse.ReuseError, match="list of files is too long"):
        archive.unpack(io.BytesIO(packed), tmp_path, 4096, roomy)
    monkeypatch.setattr(archive, "MOST_LIST", 50 * 60)
    archive.unpack(io.BytesIO(packed), tmp_path, 4096, roomy)


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    asked: list[int] = []

    def no_room(needed: int) -> None:
        asked.append(needed)
        raise Problem(507, "full", "no room")

    with pytest.raises(Problem):
        archive.unpack(
            io.BytesIO(zipped({"config.json": b"{}", "clips/1.npz": b"123"})), tmp_path, 4096, no_room
        )
    assert (asked, list(tmp_path.iterdir())) == ([5], [])


def test_a_damaged_archive_is_refused_in_words_wherever_it_is_damaged(tmp_path: Path) -> None:
    whole = zipped({"e/config.json": b"{}" * 9, "e/clips/1.npz": b"abc" * 9})
    for place in range(len(whole)):
        for value in (0, 0xFF):
            data = bytearray(whole)
            data[place] = value
            with tempfile.TemporaryDirectory(dir=tmp_path) as folder, tempfile.TemporaryFile() as file:
                file.write(data)
                with suppress(reuse.ReuseError):  # and nothing else
                    archive.unpack(file, Path(folder), 4096, roomy)


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    data = bytearray(zipped({"config.json": b"{}"}))
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1
    with pytest.raises(reuse.ReuseError, match="encrypted"):
        archive.unpack(io.BytesIO(bytes(data)), tmp_path, 4096, roomy)
