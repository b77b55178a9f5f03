"""The administrator's commands against a real server: all that the admin API can do."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from services import cli, cli_options, client
from shared import rounds
from shared.database import migrate
from tests import scenes
from tests.admin_scene import live_through
from tests.described import of, operations

# What a browser needs, and a command line does not: `lockstep export` and `import` read and write the folder.
OF_PAGES = {
    "/api/admin/session", "/api/admin/plotly.min.js", "/api/admin/clips/{clip_id}.mp4",
    "/api/admin/experiments/{name}/export", "/api/admin/import", "/api/admin/news",
    "/api/admin/experiments/{name}/news", "/api/admin/experiments/{name}/films",
    "/api/admin/experiments/{name}/rounds/{number}/video.mp4",
}  # fmt: skip


class Shell:
    """Runs commands against one server, and remembers which calls of its API they made."""

    def __init__(self, scene: scenes.Scene, url: str) -> None:
        self.scene, self.url = scene, url
        self.called: set[str] = set()

    def __call__(self, *words: str, status: int = 0) -> str:
        where = ["--url", self.url, "--data-dir", str(self.scene.settings.data_dir)]
        answer = CliRunner().invoke(cli.app, [*words, *where])
        if status:
            assert isinstance(answer.exception, client.Refused | ValueError), answer.output
            return str(answer.exception)
        assert answer.exit_code == 0, (answer.output, answer.exception)
        return answer.stdout

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def lockstep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    monkeypatch.setattr(cli_options.console, "width", 300)
    url = f"sqlite:///{tmp_path / 'lockstep.db'}"
    migrate(url)
    settings = scenes.settings_for(tmp_path, url, port=0, log_level="WARNING")
    with scenes.Scene(settings, labels={"labels_per_comparison": 2}) as scene:
        scene.collect()
        with scenes.serve(settings) as address:
            live_through(scene, lambda: httpx.Client(base_url=address), 1)
            shell = Shell(scene, address)
            send = client.Admin._send

            def noted(self: client.Admin, *given: Any) -> httpx.Response:
                answer = send(self, *given)
                known = of(answer)
                shell.called |= {" ".join(call) for call, one in operations().items() if one is known}
                return answer

            monkeypatch.setattr(client.Admin, "_send", noted)
            yield shell


def test_everything_an_administrator_can_do_has_a_command(lockstep: Shell) -> None:
    assert "shapes" in lockstep("list")
    assert [one["name"] for one in lockstep.json("list")] == ["shapes"]
    assert "round 2/4, collecting" in lockstep("status", "shapes")
    assert lockstep.json("status", "shapes")["rounds"][0]["labels"]["given"] == 12
    told = lockstep("round", "shapes", "1")
    assert "training_agent" in told
    assert "true return: 22" in told
    assert lockstep.json("round", "shapes", "2")["state"] == "collecting"
    assert "no round 7" in lockstep("round", "shapes", "7", status=2)
    assert "ada: left" in lockstep("comparisons", "shapes", "1")
    assert len(lockstep.json("comparisons", "shapes", "1")) == 6
    assert "Krippendorff" in lockstep("charts", "shapes", "agreement")
    assert "there is no chart owl; there are" in lockstep("charts", "shapes", "owl", status=2)
    every = lockstep.json("events", "shapes")
    assert "training_reward" in lockstep("events", "shapes")
    assert lockstep.json("events", "shapes", "--after", str(every[-2]["id"])) == every[-1:]
    assert [one["event"] for one in lockstep.json("events", "shapes", "--own")] == ["created"]
    assert "cartpole: CartPole-v1" in lockstep("presets")
    assert lockstep.json("presets")["cartpole"]["env_id"] == "CartPole-v1"

    made = lockstep.json("copy", "shapes", "calm", "--set", "agent.ent_coef=0.02", "--with-labels")
    assert made["config"]["agent"]["ent_coef"] == 0.02
    assert made["config"]["labels"] == lockstep.json("status", "shapes")["config"]["labels"]
    assert made["history"][0]["detail"]["origin"] == "a copy of shapes"
    assert [one["number"] for one in made["rounds"]] == [0, 1]
    assert "created fresh: label at" in lockstep("create", "configs/cartpole.toml", "--set", "name=fresh")
    assert "calm" in lockstep("copy", "shapes", "calm", status=2)  # it is there already

    assert "paused" in lockstep("pause", "calm")
    assert lockstep.json("resume", "calm")["state"] == "running"
    attempt_id = lockstep.scene.claim()
    with lockstep.scene.database.write() as session:
        rounds.fail(session, attempt_id, "out of memory", 1)
    assert "out of memory" in lockstep("round", "shapes", "2")
    assert "collecting" in lockstep("retry", "shapes")
    assert "(enough)" in lockstep("finish", "calm", "--reason", "enough")
    assert lockstep.json("abandon", "fresh", "--yes")["state"] == "abandoned"
    assert "is finished" in lockstep("pause", "calm", status=2)

    link = lockstep.json("invite", "eve")["link"]
    assert "open" in lockstep("invitations")
    (invited,) = lockstep.json("invitations")
    assert link.startswith(lockstep.url)
    assert "lets nobody in" in lockstep("revoke", str(invited["id"]))
    assert lockstep.json("invitations")[0]["state"] == "revoked"
    with httpx.Client(base_url=lockstep.url) as zoe:
        scenes.join(zoe, "zoe")
        assert "zoe" in lockstep("labelers")
        assert zoe.get("/api/me").status_code == 200
        assert "browsers logged out: 1" in lockstep("shut-out", "zoe", "--yes")
        assert zoe.get("/api/me").status_code == 401
    assert "nobody here is called owl" in lockstep("shut-out", "owl", status=2)

    assert "ended_sessions" in lockstep("actions")
    acts = lockstep.json("actions", "--about", "calm")
    assert [one["action"] for one in acts] == ["finished", "resumed", "paused", "created"]
    assert acts[0]["detail"] == {"reason": "enough"}
    assert "shapes: 12 answers, given with env_id = CartPole-v1" in lockstep("reusable")
    assert {one["name"] for one in lockstep.json("reusable")} == {"shapes", "calm"}

    wanted = {f"{method} {path}" for method, path in operations() if path.startswith("/api/admin/")}
    lacking = {one for one in wanted - lockstep.called if one.split()[1] not in OF_PAGES}
    assert not lacking, f"no command asks {lacking}: give cli_admin.py one, or name it in OF_PAGES"


def test_long_lists_are_followed_to_their_end(lockstep: Shell) -> None:
    api = client.Admin(
        lockstep.url,
        json.loads((lockstep.scene.settings.data_dir / "secrets.json").read_text())["admin_token"],
    )
    whole = api.call("GET", "/experiments/shapes/events")
    assert api.pages("/experiments/shapes/events?limit=3") == whole
    assert len(whole) > 6
    api.close()
