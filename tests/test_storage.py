"""The store: the same cases over a folder and over a real S3 server, then what is a folder's own."""

import hashlib
import os
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from shared.jobs import Artifact, put_artifact
from shared.storage import (
    BadKey,
    DamagedArtifact,
    KeyTaken,
    MissingArtifact,
    Store,
    StoreError,
    StoreFull,
    check_key,
    open_store,
)
from tests.services import S3

EVERY_BYTE = bytes(range(256)) * 4096  # 1 MiB: more than one chunk


def open_s3(account: S3, url: str) -> Store:
    return open_store(
        url, endpoint=account.endpoint, access_key=account.access_key, secret_key=account.secret_key
    )


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/a store")
    return open_s3(request.getfixturevalue("s3"), f"s3://lockstep-tests/{uuid.uuid4().hex}")


def test_bytes_come_back_as_they_went_in(store: Store) -> None:
    store.put("round-1/attempt=7/clip_0.npz", EVERY_BYTE)
    store.put("empty", b"")
    assert store.get("round-1/attempt=7/clip_0.npz") == EVERY_BYTE
    assert store.get("empty") == b""
    assert store.size("round-1/attempt=7/clip_0.npz") == len(EVERY_BYTE)
    assert store.exists("empty")
    assert not store.exists("round-1")
    assert not store.exists("round-1/attempt=7/clip_0")


def test_an_artifact_carries_its_sum(store: Store) -> None:
    artifact = put_artifact(store, "video", "v.mp4", EVERY_BYTE)
    assert artifact == Artifact("video", "v.mp4", hashlib.sha256(EVERY_BYTE).hexdigest(), len(EVERY_BYTE))
    assert store.get(artifact.key, artifact.sha256) == EVERY_BYTE


def test_a_key_is_written_once(store: Store) -> None:
    store.put("weights", b"first")
    store.put("weights", b"first")  # an answer that was lost, asked for again
    with pytest.raises(KeyTaken, match="weights already holds"):
        store.put("weights", b"other")
    assert store.get("weights") == b"first"


def test_of_writers_at_once_one_wins(store: Store) -> None:
    def write(number: int) -> bool:
        try:
            store.put("contested", bytes([number]) * 1000)
        except KeyTaken:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(write, range(8)))
    assert sum(won) == 1
    assert store.get("contested") == bytes([won.index(True)]) * 1000


def test_what_is_missing_is_named(store: Store) -> None:
    for ask in (store.get, store.size, lambda key: store.open_range(key, 0, 1)):
        with pytest.raises(MissingArtifact, match=r"the store has no a/b\.mp4; .*retry the stage"):
            ask("a/b.mp4")


def test_what_is_damaged_is_named(store: Store) -> None:
    store.put("clip", b"whole")
    wanted = hashlib.sha256(b"hole").hexdigest()
    with pytest.raises(DamagedArtifact, match=r"clip is damaged: .*retry the stage"):
        store.get("clip", wanted)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.tuples(st.integers(0, 2**20), st.integers(0, 2**20)).map(sorted))
@example([0, 2**20])
@example([2**20, 2**20])
def test_a_range_is_what_lies_between(store: Store, ends: list[int]) -> None:
    start, end = ends
    store.put("clip.mp4", EVERY_BYTE)
    assert b"".join(store.open_range("clip.mp4", start, end)) == EVERY_BYTE[start:end]


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (2, 1), (0, 6), (6, 7)])
def test_a_range_outside_is_refused(store: Store, start: int, end: int) -> None:
    store.put("five", b"12345")
    with pytest.raises(ValueError, match="five has 5 bytes"):
        store.open_range("five", start, end)


def test_delete_and_list(store: Store) -> None:
    for key in ("c", "b/2", "ba", "b/10", "a"):
        store.put(key, b"x")
    assert list(store.list()) == ["a", "b/10", "b/2", "ba", "c"]
    assert list(store.list("b")) == ["b/10", "b/2", "ba"]
    assert list(store.list("b/")) == ["b/10", "b/2"]
    assert list(store.list("b/1")) == ["b/10"]
    assert list(store.list("nothing/here")) == []
    store.delete("b/2")
    store.delete("b/2")
    store.delete("never/there")
    assert list(store.list("b/")) == ["b/10"]


HOSTILE = [
    "", "/", "/etc/passwd", "..", "a/../b", "../a", "a/..", ".", "a/./b", "a//b", "a/", ".hidden", "a/.b",
    "a\\b", "a\0b", "a\n", "C:/x", "~/x", "-rf", "a b", "é", "a/" * 500 + "a", "x" * 201, "%2e%2e/x",
]  # fmt: skip


@pytest.mark.parametrize("key", HOSTILE)
def test_hostile_keys_are_refused(store: Store, key: str) -> None:
    asks = (store.get, store.size, store.exists, store.delete)
    for ask in (*asks, lambda key: store.put(key, b"x"), lambda key: store.open_range(key, 0, 1)):
        with pytest.raises(BadKey, match="is not a key"):
            ask(key)
    if key not in ("", "a/"):
        with pytest.raises(BadKey):
            list(store.list(key))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40) | st.lists(st.sampled_from(["..", ".", "a", "", "\0", "~"])).map("/".join))
def test_no_key_leads_out_of_the_folder(tmp_path: Path, key: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(exist_ok=True)
    store = open_store(str(outside / "store"))
    try:
        store.put(check_key(key), b"x")
    except StoreError:
        return
    assert list(store.list()) != []
    assert [path.name for path in outside.iterdir()] == ["store"]
    for name in list(store.list()):
        store.delete(name)


def test_a_file_cannot_be_a_folder_of_keys(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a/b", b"x")
    for key in ("a", "a/b/c", "a/b/c/d"):
        with pytest.raises(KeyTaken):
            store.put(key, b"y")
        with pytest.raises(MissingArtifact):
            store.get(key)
    assert list(store.list()) == ["a/b"]
    assert list((tmp_path / ".unfinished").iterdir()) == []


@pytest.fixture
def one_mebibyte(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A folder with room for one MiB, and what to put before a command so that it finds no more."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0:
        yield folder, []
        subprocess.run(["umount", str(folder)], check=True)
    else:  # no right to mount: a limit on the size of a file gives the same kind of error in the same place
        yield folder, ["bash", "-c", 'ulimit -f 1024; exec "$@"', "limited"]


FILL = """
import sys
from shared.storage import StoreFull, open_store
store = open_store(sys.argv[1])
store.put("fits", b"x" * 1000)
try:
    store.put("too/large", b"x" * (2 << 20))
except StoreFull as error:
    print(error)
store.put("fits-still", b"y" * 1000)
print(*store.list())
"""


def test_a_full_disk_is_named_and_leaves_nothing(one_mebibyte: tuple[Path, list[str]]) -> None:
    folder, limited = one_mebibyte
    command = [*limited, sys.executable, "-c", FILL, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said, _, kept = done.stdout.strip().partition("\n")
    assert said.startswith("no room is left for too/large; nothing was written"), done.stderr
    assert kept == "fits fits-still"
    assert list((folder / ".unfinished").iterdir()) == []


def test_a_full_s3_server_is_named() -> None:
    # What a MinIO server says when its disk is full; SeaweedFS has no answer of its own for that.
    class Full(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(200)
            self.end_headers()

        def do_PUT(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b"<Error><Code>XMinioStorageFull</Code><Message>no free space</Message></Error>"
            self.send_response(507)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Full) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = open_s3(S3(f"http://127.0.0.1:{server.server_port}", "key", "secret"), "s3://bucket")
        with pytest.raises(StoreFull, match="no room is left for clip"):
            store.put("clip", b"x")
        server.shutdown()


WRITE_FOR_EVER = """
import sys
from itertools import count
from shared.storage import open_store
store = open_store(sys.argv[1])
for number in count():
    store.put(f"clip-{number}", bytes([number % 256]) * 300_000)
    print(number, flush=True)
"""


def test_a_killed_writer_leaves_only_whole_files(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITE_FOR_EVER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            said = [writer.stdout.readline() for _ in range(5)]
        finally:
            writer.kill()
        said += writer.stdout
    store = open_store(str(tmp_path))
    kept = set(store.list())
    assert kept >= {f"clip-{int(number)}" for number in said}
    for key in kept:
        assert store.get(key) == bytes([int(key[5:]) % 256]) * 300_000


def test_what_died_long_ago_is_tidied_away(tmp_path: Path) -> None:
    open_store(str(tmp_path))
    old, new = tmp_path / ".unfinished" / "old", tmp_path / ".unfinished" / "new"
    for path in (old, new):
        path.write_bytes(b"half")
    two_days_ago = time.time() - 48 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    assert list(open_store(str(tmp_path)).list()) == []
    assert not old.exists()
    assert new.exists()  # another process may be at it


@pytest.mark.parametrize("url", ["", "ftp://host/x", "file://host/x", "http://127.0.0.1/x"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match="no address of a store"):
        open_store(url)


def test_a_store_that_does_not_answer_is_named() -> None:
    with pytest.raises(StoreError, match=r"does not answer .* is it running"):
        open_s3(S3("http://127.0.0.1:9", "key", "secret"), "s3://bucket")


def test_a_wrong_secret_is_named(s3: S3) -> None:
    with pytest.raises(StoreError, match="check its address, key and secret"):
        open_s3(S3(s3.endpoint, s3.access_key, "wrong"), "s3://lockstep-tests")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match="the folder"):
        open_store(str(tmp_path / "file" / "store"))
