"""The labeler's service as its API tests use it: a server, an experiment with clips, two people."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from shared.settings import secrets
from tests import scenes
from tests.described import check_problem
from tests.scenes import Scene, join


@dataclass
class Served:
    """A running service, its experiment, and two people."""

    scene: Scene
    url: str
    ann: httpx.Client
    bob: httpx.Client
    admin: httpx.Client
    teacher_header: dict[str, str]


@pytest.fixture
def served(tmp_path: Path, database_url: str) -> Iterator[Served]:
    settings = scenes.settings_for(tmp_path, database_url, port=0, log_level="WARNING")
    scene = Scene(settings)
    scene.collect()
    kept = secrets(settings)
    with (
        scenes.serve(settings) as url,
        httpx.Client(base_url=url) as ann,
        httpx.Client(base_url=url) as bob,
        httpx.Client(base_url=url, headers={"Authorization": f"Bearer {kept.admin_token}"}) as admin,
    ):
        join(ann, "ann")
        join(bob, "bob")
        yield Served(scene, url, ann, bob, admin, {"X-Teacher-Token": kept.teacher_token})
    scene.close()


def reason(answer: httpx.Response, status: int) -> str:
    """Check that `answer` is a problem document with `status` that its call declares; return its reason."""
    assert answer.status_code == status, answer.text
    body = check_problem(answer)
    assert body["title"]
    assert body["detail"]
    return str(body["reason"])
