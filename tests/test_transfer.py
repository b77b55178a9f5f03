"""An experiment out through the admin API and page as one archive, and labels in, nothing taken on trust."""

import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as parquet
import pytest
from playwright.sync_api import Browser, expect
from sqlalchemy import select, text
from sqlalchemy.exc import OperationalError
from typer.testing import CliRunner

from services import cli
from services.labeler import spool
from services.labeler.app import create_app
from shared import export, rounds
from shared.models import AdminAction, Experiment
from shared.storage import FolderStore, StoreAway, StoreFull
from shared.transitions import StaleState
from tests import scenes
from tests.admin_scene import live_through
from tests.served import Served, reason
from tests.test_archive import Files, zipped
from tests.test_reuse import content, order

OUT, IN = "/api/admin/experiments/shapes/export", "/api/admin/import"


def archive_of(served: Served) -> bytes:
    """Let an experiment live, and return the export of it."""
    served.scene.collect()
    lived(served)
    return served.admin.get(OUT, params={"form": "files"}).content


def lived(served: Served) -> Served:
    """Have the first round labeled and trained."""
    live_through(served.scene, lambda: httpx.Client(base_url=served.url), 1)
    return served


def files_of(data: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(data)) as zipped:
        assert zipped.testzip() is None
        return {one.removeprefix("shapes/"): zipped.read(one) for one in zipped.namelist()}


def acts(served: Served) -> list[tuple[Any, ...]]:
    with served.scene.database.read() as session:
        rows = session.scalars(select(AdminAction).order_by(AdminAction.id)).all()
    return [(one.action, one.about, one.address, one.detail) for one in rows]


def in_spool(served: Served) -> list[Path]:
    return list((served.scene.settings.data_dir / "spool").iterdir())


def test_what_goes_out_comes_in_again_and_is_noted(served: Served, tmp_path: Path) -> None:
    lived(served)
    answer = served.admin.get(OUT, params={"licence": "cc-by-4.0"})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/zip"
    assert answer.headers["content-disposition"] == 'attachment; filename="shapes.zip"'
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert in_spool(served) == []
    files = files_of(answer.content)
    with served.scene.database.read(snapshot=True) as session:
        folder = export.export(session, served.scene.store, "shapes", tmp_path / "out")
    plain = {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}
    assert {name: data for name, data in files.items() if name in plain} == plain
    assert set(files) - set(plain) == {
        "README.md", "preferences.parquet", "clips.parquet", "rounds.parquet",
    }  # fmt: skip
    assert b"license: cc-by-4.0" in files["README.md"]
    assert parquet.read_table(io.BytesIO(files["preferences.parquet"])).num_rows == 6
    assert set(files_of(served.admin.get(OUT, params={"form": "files"}).content)) == set(plain)

    changes = [("name", "second"), ("set", "rounds=2"), ("set", "agent.gamma=0.9")]
    made = served.admin.post(IN, params=changes, content=answer.content)
    assert made.status_code == 201, made.text
    config = made.json()["config"]
    assert (config["rounds"], config["agent"]["gamma"], config["env_id"]) == (2, 0.9, "CartPole-v1")
    assert [one["number"] for one in made.json()["rounds"]] == [0, 1]
    assert made.json()["history"][0]["detail"] == {"origin": "an import of shapes"}
    with served.scene.database.read() as session:
        ids = {one.name: one.id for one in session.scalars(select(Experiment))}
        assert order(content(session, ids["second"])) == order(content(session, ids["shapes"]))
    assert in_spool(served) == []
    loose = zipped({name: data for name, data in files.items() if not name.endswith("parquet")})
    again = served.admin.post(IN, params={"name": "third"}, content=loose)  # packed by hand, without a folder
    assert again.status_code == 201, again.text
    answers = 6
    assert acts(served) == [
        ("exported", "shapes", "127.0.0.1", {"form": "dataset", "licence": "cc-by-4.0"}),
        ("exported", "shapes", "127.0.0.1", {"form": "files", "licence": "other"}),
        ("imported", "second", "127.0.0.1",
         {"labels_of": "shapes", "answers": answers, "changes": "rounds=2, agent.gamma=0.9"}),
        ("imported", "third", "127.0.0.1", {"labels_of": "shapes", "answers": answers}),
    ]  # fmt: skip


@pytest.fixture
def sqlite_served(tmp_path: Path, sqlite_template: Path) -> Iterator[Served]:
    """As `served`, on SQLite alone: what follows asks the database nothing of its own."""
    path = tmp_path / "lockstep.db"
    path.write_bytes(sqlite_template.read_bytes())
    settings = scenes.settings_for(
        tmp_path, f"sqlite:///{path}", port=0, log_level="ERROR", import_mib=1, admin_token="t" * 30
    )
    with (
        scenes.Scene(settings, labels={"labels_per_comparison": 2}) as scene,
        scenes.serve(settings) as url,
        httpx.Client(base_url=url) as ann,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {'t' * 30}"}) as admin,
    ):
        yield Served(scene, url, ann, ann, admin, {})


def test_what_cannot_go_out_is_said_before_a_byte_is_sent(
    sqlite_served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = sqlite_served
    place = served.scene.settings.data_dir / "spool"
    (place / "dead").mkdir(parents=True)
    (place / "dead" / "file").write_bytes(b"1")
    with spool.room(served.scene.settings) as alive:  # as another labeler's over the same volume
        (place / "dead too").mkdir()
        assert reason(served.admin.get(OUT), 409) == "nothing"
        assert in_spool(served) == [alive]
    assert reason(served.admin.get(OUT.replace("shapes", "owls")), 404) == "unknown"
    assert reason(served.ann.get(OUT), 401) == "no_admin"
    served.scene.collect()
    for asked in ({"licence": "My own!"}, {"form": "stone"}, {"form": "files", "licence": "mit"}):
        assert served.admin.get(OUT, params=asked).status_code == 422
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(spool.shutil, "disk_usage", lambda _: usage(1 << 30, 1 << 30, 1 << 20))
        answer = served.admin.get(OUT)
        assert reason(answer, 507) == "full"
        assert "1 MiB free" in answer.json()["detail"]

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(export, "_write_json", full)
        assert reason(served.admin.get(OUT), 507) == "full"
    begun, go_on, make = threading.Event(), threading.Event(), export.export

    def slow(*given: Any, **more: Any) -> Path:
        begun.set()
        assert go_on.wait(20)
        return make(*given, **more)

    with monkeypatch.context() as patch:
        patch.setattr(export, "export", slow)
        first: list[httpx.Response] = []
        thread = threading.Thread(target=lambda: first.append(served.admin.get(OUT)))
        thread.start()
        assert begun.wait(20)
        with httpx.Client(base_url=served.url, headers=dict(served.admin.headers)) as other:
            assert reason(other.get(OUT), 503) == "busy"
        go_on.set()
        thread.join()
    assert first[0].status_code == 200
    assert in_spool(served) == []
    assert [one[:2] for one in acts(served)] == [("exported", "shapes")]  # what was refused is none


def test_what_does_not_come_in_leaves_nothing_behind(
    sqlite_served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = sqlite_served
    good = archive_of(served)
    files = files_of(good)
    assert len(good) < 1 << 20, "the sizes below are about a limit of one MiB"
    before = sorted(served.scene.store.list())

    def refused(status: int, data: Any = good, **asked: Any) -> str:
        answer = served.admin.post(IN, params={"name": "second"} | asked, content=data)
        assert answer.status_code == status, answer.text
        assert str(served.scene.settings.data_dir) not in answer.text
        return str(answer.json()["detail"])

    assert "another name" in refused(409, name="shapes")
    assert "segments.length" in refused(422, set="segments.length=10")
    assert "agent.gamma" in refused(422, set="agent.gamma=7")
    assert "key=value" in refused(422, set="faster")
    assert "no zip archive" in refused(422, b"PK, or so it says")
    assert "not whole" in refused(422, good[: len(good) // 2])  # ends in a clip, which is a zip file too
    clip = sorted(name for name in files if name.endswith(".npz"))[0]
    assert f"{clip} is damaged" in refused(422, zipped(files | {clip: b"0"}))
    too_long = b"0" * ((1 << 20) + 1)
    assert "may have" in refused(413, too_long)
    pieces = (too_long[at : at + 65_536] for at in range(0, len(too_long), 65_536))
    assert "more than 1 MiB" in refused(413, pieces)  # sent without saying how long it is
    assert reason(served.ann.post(IN, params={"name": "second"}, content=good), 401) == "no_admin"
    assert reason(served.admin.post(IN, content=good), 422) == "malformed"  # no name

    def no_room(*_: Any) -> None:
        raise StoreFull("no room for a clip")

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put", no_room)
        assert "no room" in refused(507)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
        assert "got full" in refused(507)
    assert sorted(served.scene.store.list()) == before
    assert in_spool(served) == []
    with served.scene.database.read() as session:
        assert [one.name for one in session.scalars(select(Experiment))] == ["shapes"]
    assert [one[0] for one in acts(served)] == ["exported"]


def test_a_labeler_that_starts_clears_what_a_killed_one_left(sqlite_served: Served) -> None:
    settings = sqlite_served.scene.settings
    program = (
        "import sys, time\nfrom services.labeler import spool\nfrom shared.settings import load_settings\n"
        "with spool.room(load_settings(data_dir=sys.argv[1])) as place:\n"
        "    (place / 'clip').write_bytes(b'1')\n    print(place, flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(settings.data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        place = Path(other.stdout.readline().strip())
        create_app(settings)
        assert in_spool(sqlite_served) == [place], "what another labeler works on was taken from it"
        os.kill(other.pid, signal.SIGKILL)
    create_app(settings)
    assert in_spool(sqlite_served) == []


def test_clips_of_an_import_that_fails_are_removed(
    sqlite_served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = sqlite_served
    good = archive_of(served)
    before = sorted(served.scene.store.list())
    put, delete = FolderStore.put, FolderStore.delete
    kept: list[str] = []

    def imported() -> list[str]:
        return sorted(set(served.scene.store.list()) - set(before))

    def full_after_three(store: FolderStore, key: str, data: bytes) -> None:
        if len(imported()) == 3:
            raise StoreFull("no room for the fourth")
        put(store, key, data)

    def fails(error: Exception, status: int) -> None:
        def create(*_: Any, **__: Any) -> Any:
            kept[:] = imported()
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(rounds, "create_experiment", create)
            assert served.admin.post(IN, params={"name": "second"}, content=good).status_code == status
        assert kept

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put", full_after_three)
        assert reason(served.admin.post(IN, params={"name": "second"}, content=good), 507) == "full"
    assert imported() == []
    fails(StaleState("the name was taken in the meantime"), 409)
    assert imported() == []

    def away(_: FolderStore, key: str) -> None:
        raise StoreAway(f"no answer about {key}")

    with monkeypatch.context() as patch:  # it is still the first trouble that is told
        patch.setattr(FolderStore, "delete", away)
        fails(StaleState("the name was taken in the meantime"), 409)
    assert imported() == kept
    for key in kept:
        delete(served.scene.store, key)
    fails(OperationalError("COMMIT", {}, Exception("gone"), connection_invalidated=True), 503)
    assert imported() == kept, "perhaps the database took them"


class Full(io.BytesIO):
    """A file on a full disk, where what could not be written is tried once more when it is closed."""

    def write(self, _data: Any) -> int:
        raise OSError(28, "No space left on device")

    def close(self) -> None:
        if not self.closed:
            super().close()
            raise OSError(28, "No space left on device")


def test_the_command_line_is_noted_too(sqlite_served: Served, tmp_path: Path) -> None:
    served = sqlite_served
    served.scene.collect()
    lived(served)
    where = ["--data-dir", str(tmp_path / "data")]
    told = {"LOCKSTEP_DATABASE_URL": served.scene.settings.database_url}
    for words in (
        ["export", "shapes", str(tmp_path / "out")],
        ["import", str(tmp_path / "out"), "--set", "name=second", "--set", "segments.length=25"],
    ):
        answer = CliRunner().invoke(cli.app, [*words, *where], env=told)
        assert answer.exit_code == 0, (answer.output, answer.exception)
    first, second = acts(served)
    with served.scene.database.write() as session:  # as one that is read-only says
        session.execute(
            text("CREATE TRIGGER no BEFORE INSERT ON admin_actions BEGIN SELECT RAISE(ABORT, 'shut'); END")
        )
    answer = CliRunner().invoke(cli.app, ["export", "shapes", str(tmp_path / "again"), *where], env=told)
    assert isinstance(answer.exception, export.ExportError)  # of which main() makes a line and status 2
    assert "takes no note: shut; nothing was written" in str(answer.exception)
    assert not list(tmp_path.glob("again*"))
    detail = {"form": "files", "licence": "other", "folder": str(tmp_path / "out")}
    assert first == ("exported", "shapes", "the command line", detail)
    assert second == ("imported", "second", "the command line", {"labels_of": "shapes", "answers": 12})


def test_an_export_is_saved_and_brought_in_again_from_the_pages(
    sqlite_served: Served, browser: Browser, tmp_path: Path
) -> None:
    served = sqlite_served
    served.scene.collect()
    lived(served)
    page = browser.new_context(accept_downloads=True).new_page()
    page.goto(f"{served.url}/admin/shapes")
    form = page.locator("#export")
    form.get_by_label("Licence").fill("mit")
    with page.expect_download(timeout=30_000) as saved:
        form.get_by_role("button", name="Export").click()
    assert saved.value.suggested_filename == "shapes.zip"
    saved.value.save_as(tmp_path / "shapes.zip")
    expect(form.get_by_role("status")).to_contain_text("Saved as shapes.zip")
    assert b"license: mit" in files_of((tmp_path / "shapes.zip").read_bytes())["README.md"]
    page.goto(f"{served.url}/new")
    form = page.locator("#import")
    large = {"name": "large.zip", "mimeType": "application/zip", "buffer": bytes((1 << 20) + 1)}
    form.get_by_label("Archive").set_input_files(large)
    form.get_by_label("Name").fill("second")
    form.get_by_role("button", name="Import").click()
    expect(form.get_by_role("alert")).to_contain_text("at most 1 MiB")
    form.get_by_label("Archive").set_input_files(tmp_path / "shapes.zip")
    form.get_by_label("Changes").fill("rounds = 3\nagent.gamma = 7")
    form.get_by_role("button", name="Import").click()
    expect(form.get_by_role("alert")).to_contain_text("agent.gamma", timeout=15_000)
    expect(form.get_by_role("status")).to_be_empty()
    form.get_by_label("Changes").fill("rounds = 3")
    form.get_by_role("button", name="Import").click()
    expect(page.locator("h1")).to_have_text("second", timeout=15_000)
    expect(page.locator("#history")).to_contain_text("an import of shapes")
    made = served.admin.get("/api/admin/experiments/second").json()
    assert made["config"]["rounds"] == 3
    assert (
        made["config"]["labels"]
        == served.admin.get("/api/admin/experiments/shapes").json()["config"]["labels"]
    )
