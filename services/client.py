"""The command line's way to a running system: its admin API."""

from typing import Any

import httpx

from shared.settings import Settings, secrets


class Refused(RuntimeError):
    """The system could not be reached or said no; the message is for people."""


class Admin:
    """Speaks to the admin API of one system."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30.0, trust_env=False
        )

    def call(
        self, method: str, path: str, body: dict[str, Any] | None = None, api: str = "/api/admin"
    ) -> Any:
        """Return the answer's JSON; Refused with the server's own words if it is an error."""
        response = self._send(method, f"{api}{path}", body)
        return response.json() if response.content else None

    def pages(self, path: str, rows: str | None = None) -> list[Any]:
        """Return all rows of a list that comes in pages: of the answers, or of what they call `rows`."""
        found: list[Any] = []
        following = f"/api/admin{path}"
        while following:
            response = self._send("GET", following)
            found += response.json()[rows] if rows else response.json()
            following = response.links.get("next", {}).get("url", "")
        return found

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        try:
            response = self._http.request(method, path, json=body)
        except httpx.TransportError as error:
            raise Refused(
                f"nothing answers at {self.url} ({error}): start the system with `lockstep run`, or say "
                "where it is with --url or LOCKSTEP_PORT"
            ) from None
        if response.is_success:
            return response
        raise Refused(_words(response))

    def close(self) -> None:
        """Close the connection."""
        self._http.close()


def admin_of(settings: Settings, url: str | None = None) -> Admin:
    """Return the way to the system that `settings` describe, or the one at `url`."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    return Admin(url or f"http://{host}:{settings.port}", secrets(settings).admin_token)


def _words(response: httpx.Response) -> str:
    try:
        problem = response.json()
        text = str(problem.get("detail") or problem["title"])
    except (ValueError, KeyError, AttributeError):
        text = response.text[:300]
    if response.status_code in (401, 403):
        text += " (the token comes from the data folder's secrets.json, or from LOCKSTEP_ADMIN_TOKEN)"
    return text
