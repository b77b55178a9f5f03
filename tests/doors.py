"""A server that other machines can reach, and every door of it: found by walking the app's own routes."""

import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from starlette.routing import Mount

from services.labeler.app import create_app
from shared.settings import Settings
from tests import scenes
from tests.scenes import Scene

ADMIN, TEACHER = "k3Jx9-admin-Qw7Zr2Lm5v", "p8Tn4-teach-Hs6Yb1Gc3d"
PROXY = {"trusted_proxies": "127.0.0.1"}  # so that X-Forwarded-For gives each client an address of its own


@dataclass(frozen=True)
class Door:
    """One method of one path, with its parameters filled in."""

    method: str
    path: str
    url: str

    @property
    def is_change(self) -> bool:
        """Whether it may change something."""
        return self.method not in ("GET", "HEAD", "OPTIONS")


def doors(app: FastAPI, **values: object) -> list[Door]:
    """Return every door; the parameters of the paths are `values`, or 1."""
    known: dict[str, object] = {"name": "shapes", "action": "pause", "preference_id": uuid.uuid4()} | values
    found = []
    for one in iter_route_contexts(app.routes):
        if isinstance(one.route, Mount):
            found.append(Door("GET", str(one.path), f"{one.path}/style.css"))
            continue
        path = url = str(one.path)
        for name in getattr(one.route, "param_convertors", {}):
            url = url.replace(f"{{{name}}}", str(known.get(name, 1)))
        found += [Door(method, path, url) for method in sorted(one.methods or ())]
    return found


@dataclass
class Gate:
    """Labeler services on one database, as other machines reach them."""

    scene: Scene
    settings: Settings
    url: str = ""
    running: ExitStack = field(default_factory=ExitStack)

    def serve(self, **changes: Any) -> str:
        """Start another replica, perhaps with other settings; return its address."""
        settings = self.settings.model_copy(update=changes)
        return self.running.enter_context(scenes.serve(settings))

    def client(self, address: str = "", url: str = "", **headers: str) -> httpx.Client:
        """Return a browser of its own: it keeps cookies and says its Origin."""
        url = url or self.url
        told = {"Origin": url, **({"X-Forwarded-For": address} if address else {}), **headers}
        return self.running.enter_context(httpx.Client(base_url=url, headers=told))

    def admin(self) -> httpx.Client:
        """Return a program with the admin token."""
        return self.client(Authorization=f"Bearer {ADMIN}")

    def invite(self, **body: Any) -> str:
        """Return the token of a new invitation."""
        answer = self.admin().post("/api/admin/invitations", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["link"].partition("#")[2])

    def newcomer(self, name: str) -> httpx.Client:
        """Return the browser of somebody who came by an invitation."""
        client = self.client()
        answer = client.post("/api/invitations/redeem", json={"token": self.invite(), "name": name})
        assert answer.status_code == 200, answer.text
        return client

    def app(self) -> FastAPI:
        """Return the service's app, to look at."""
        app = create_app(self.settings)
        self.running.callback(app.state.context.database.close)
        return app


def open_gate(folder: Path, database_url: str, **more: Any) -> Iterator[Gate]:
    """Serve an experiment off loopback."""
    tokens = {"admin_token": ADMIN, "teacher_token": TEACHER}
    settings = scenes.settings_for(folder, database_url, host="0.0.0.0", port=0, **tokens, **PROXY, **more)
    gate = Gate(Scene(settings), settings)
    gate.scene.collect()
    with gate.running:
        gate.url = gate.serve()
        yield gate
    gate.scene.close()
