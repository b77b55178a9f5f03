"""Exports from anybody: looked at closely before anything is stored."""

import hashlib
import os
import shutil
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from services import cli
from services.agent_trainer import clips, ppo, stages
from shared import reuse, segments
from shared.jobs import CollectJob, put_artifact
from shared.transitions import StaleState
from tests import scenes
from tests.test_reuse import edit, exported, wanted
from tests.test_stages import Memory

__all__ = ["exported"]


def swap(file: Callable[[], bytes]) -> Callable[[Path], None]:
    """Put another file at the place of a clip's, its sum corrected."""

    def damage(folder: Path) -> None:
        data = file()
        change = {"npz_sha256": hashlib.sha256(data).hexdigest()}
        edit(
            "clips.jsonl", lambda rows: (folder / rows[0]["npz"]).write_bytes(data) and rows[0].update(change)
        )(folder)

    return damage


def npz(**arrays: Any) -> bytes:
    content = BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def cut_short() -> bytes:
    """A segment whose header promises more numbers than there are."""
    content, whole = BytesIO(), BytesIO(npz(observations=np.zeros((26, 4), "<f4"), actions=np.zeros(25, int)))
    with zipfile.ZipFile(whole) as there, zipfile.ZipFile(content, "w") as here:
        here.writestr("observations.npy", there.read("observations.npy")[:-4])
        here.writestr("actions.npy", there.read("actions.npy"))
    return content.getvalue()


def huge(folder: Path) -> None:
    with sorted(folder.glob("clips/*.mp4"))[0].open("r+b") as file:
        file.truncate(reuse.MOST_FILE + 1)  # a hole: it takes no room


def long_table(folder: Path) -> None:
    with (folder / "preferences.jsonl").open("r+b") as file:
        file.truncate(reuse.MOST_TABLE + 1)


def packed_tight() -> bytes:
    """A segment that Python would unpack whole in memory, however long it says that it is."""
    content, whole = BytesIO(), BytesIO(npz(observations=np.zeros((26, 4), "<f4"), actions=np.zeros(25, int)))
    with zipfile.ZipFile(whole) as there, zipfile.ZipFile(content, "w", zipfile.ZIP_LZMA) as here:
        for name in there.namelist():
            here.writestr(name, there.read(name))
    return content.getvalue()


def packed_small() -> bytes:
    """A segment of a quarter of a megabyte that takes more memory than a labeler has to give."""
    content = BytesIO()
    with (
        zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as made,
        made.open("observations.npy", "w") as file,
    ):
        for _ in range(segments.MOST_UNPACKED // (1 << 20) + 1):
            file.write(bytes(1 << 20))
    return content.getvalue()


def pipe(folder: Path) -> None:
    (folder / "clips.jsonl").unlink()
    os.mkfifo(folder / "clips.jsonl")


def way_out(folder: Path) -> None:
    path = sorted(folder.glob("clips/*.npz"))[0]
    path.unlink()
    path.symlink_to("/etc/hostname")


steps, place = np.zeros(25, np.int64), np.zeros((26, 4), "<f4")
FOREIGN: dict[str, tuple[Callable[[Path], None], str]] = {
    "no zip file": (swap(lambda: b"PK no zip"), "no segment of 25 steps: File is not a zip file"),
    "another npz": (swap(lambda: npz(rewards=steps)), "no item named 'observations.npy'"),
    "Python objects": (swap(lambda: npz(observations=place, actions=steps.astype(object))), "no numbers"),
    "no number": (
        swap(lambda: npz(observations=place + np.float32("nan"), actions=steps)), "infinite or none",
    ),
    "too few numbers": (swap(cut_short), "412 bytes of numbers"),
    "another way of packing": (swap(packed_tight), "packed as NumPy packs nothing"),
    "zeros without end": (swap(packed_small), "unpack to more than any segment"),
    "another shape": (
        swap(lambda: npz(observations=place[:, :3], actions=steps)), "observations in the clips differ",
    ),
    "a clip twice": (edit("clips.jsonl", lambda rows: rows.append(rows[0])), "in clips.jsonl twice"),
    "a huge file": (huge, "larger than any such file"),
    "a huge table": (long_table, "larger than any such file"),
    "a path that is none": (
        edit("clips.jsonl", lambda rows: rows[0].update(mp4="a\0b")), "line 1: mp4",
    ),
    "endless brackets": (
        lambda folder: (folder / "config.json").write_text("[" * 100_000) and None,
        "config.json: maximum recursion",
    ),
    "a pipe": (pipe, "is no file"),
    "a link out": (way_out, "lies outside"),
    "an absolute path": (
        edit("clips.jsonl", lambda rows: rows[0].update(npz="/etc/hostname")), "lies outside",
    ),
    "a name with control characters": (
        edit("preferences.jsonl", lambda rows: rows[0].update(labeler="ada\nlovelace")), "line 1: labeler",
    ),
    "a time that no clock shows": (
        edit("preferences.jsonl", lambda rows: rows[0].update(answered_at="9999-12-31T23:59:59-12:00")),
        "line 1: answered_at",
    ),
    "no object": (lambda folder: (folder / "config.json").write_text("[]") and None, "is no configuration"),
}  # fmt: skip


@pytest.mark.parametrize("what", FOREIGN)
def test_an_export_of_somebody_elses_is_looked_at_closely(tmp_path: Path, exported: Path, what: str) -> None:
    damage, message = FOREIGN[what]
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    damage(folder)
    store = scenes.settings_for(tmp_path, "sqlite://").open_store()
    with pytest.raises(reuse.ReuseError, match=message), reuse.from_folder(folder, wanted(), store):
        pass
    assert list(store.list()) == []


@pytest.mark.parametrize("name", ['"\\ud800"', '"a\\u0000b"', '"a, b"', "7", '"\\n"'])
def test_a_name_that_no_experiment_has_is_not_stored(tmp_path: Path, exported: Path, name: str) -> None:
    folder = tmp_path / "export"
    shutil.copytree(exported, folder)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"name": "shapes"', f'"name": {name}'))
    assert (folder / "config.json").read_text() != config
    store = scenes.settings_for(tmp_path, "sqlite://").open_store()
    with reuse.from_folder(folder, wanted(), store) as past:
        assert past.source == "?"


def test_the_same_import_twice_needs_another_name(tmp_path: Path, exported: Path) -> None:
    folder = str(tmp_path / "data")
    command = ["import", str(exported), "--data-dir", folder, "--set", "segments.length=25", "--set"]
    assert "with 12 answers" in CliRunner().invoke(cli.app, [*command, "name=once"]).output
    twice = CliRunner().invoke(cli.app, [*command, "name=once"])
    assert isinstance(twice.exception, StaleState)  # of which main() makes a line and status 2
    assert "give this one another name" in str(twice.exception)
    assert CliRunner().invoke(cli.app, [*command, "name=again"]).exit_code == 0


def test_observations_of_another_shape_are_found_before_anybody_labels() -> None:
    """The configuration says the same environment; what was played is another: only a trainer can know."""
    store = Memory()
    agent = ppo.Agent([4], 2)
    for shape in ((4,), (3,)):
        data = clips.pack_npz(np.zeros((11, *shape), np.float32), np.zeros(10))
        clip = put_artifact(store, "clip_npz", str(shape), data)
        job = CollectJob(1, 1, 1, "p", {}, None, None, None, past_clip=clip)
        if shape == (4,):
            stages.check_past(job, store, agent)
        else:
            with pytest.raises(ValueError, match=r"of shape \(3,\), but its environment gives \(4,\)"):
                stages.check_past(job, store, agent)
