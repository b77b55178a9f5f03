"""Who is asking, and from where: tokens, cookies, Host, Origin, and the headers of every answer."""

import hashlib
import hmac
import ipaddress
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.labeler.problems import document
from shared.settings import Settings, is_loopback

LABELER_COOKIE = "lockstep_labeler"
ADMIN_COOKIE = "lockstep_admin"
COOKIE_S = 400 * 24 * 3600  # as long as browsers keep any cookie
MAX_BODY = 1 << 16  # bytes: a configuration is the largest thing anybody sends, but for one call
IMPORT = ("POST", "/api/admin/import")  # takes an archive, once it is known who sends it
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")

DOCUMENT_HEADERS = {  # they govern documents, and a browser asks for some thirty scripts that are none
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Frame-Options": "DENY",
}
HEADERS = {
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


def _raw(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


OF_PARTS = _raw(HEADERS | {"Cache-Control": "no-store"})
OF_DOCUMENTS = OF_PARTS + _raw(DOCUMENT_HEADERS)


def headers_of(kind: bytes) -> list[tuple[bytes, bytes]]:
    """Return the headers that answers of a content type have unless they say otherwise, as ASGI has them."""
    return OF_PARTS if kind.startswith((b"text/css", b"text/javascript")) else OF_DOCUMENTS


def new_token() -> str:
    """Return a fresh token for somebody: 32 random bytes. Only its sum is ever stored."""
    return secrets.token_urlsafe(32)


def token_sha256(token: str) -> str:
    """Return what is stored of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def same(given: str | None, secret: str) -> bool:
    """Compare with a secret in constant time."""
    return given is not None and hmac.compare_digest(given.encode(), secret.encode())


def open_to_visitors(settings: Settings) -> bool:
    """Return whether everybody who can reach the labeler sits at this machine, and so needs no token."""
    return is_loopback(settings.host) and not settings.allowed_hosts


def is_allowed_host(host: str, settings: Settings) -> bool:
    """Return whether `host`, a Host header, is a name this server goes by.

    A page of another site can point its own name at this machine (DNS rebinding), but it cannot make the
    browser send an address, or localhost, in its place: those always pass.
    """
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    allowed = [one.strip().lower() for one in settings.allowed_hosts.split(",")]
    if name in ("localhost", settings.host.lower()) or (name and name in allowed):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def shield(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Refuse foreign hosts, cross-site changes and outsize bodies; add the security headers."""

    async def shielded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                said = dict(message["headers"])
                added = headers_of(said.get(b"content-type", b""))
                message["headers"] = [*message["headers"], *(one for one in added if one[0] not in said)]
            await send(message)

        most = settings.import_mib << 20 if (scope["method"], scope["path"]) == IMPORT else MAX_BODY
        refused = refusal(scope["method"], headers, settings, most)
        if refused:
            await document(*refused)(scope, receive, send_with_headers)
        else:
            await app(scope, _limited(receive, most), send_with_headers)

    return shielded


def refusal(method: str, headers: Headers, settings: Settings, most: int) -> tuple[int, str, str] | None:
    """Return why a request is refused before it is looked at, as a problem's parts; None if it is not."""
    host = headers.get("host", "")
    if not is_allowed_host(host, settings):
        detail = f"this server does not go by the name {host[:100]!r}; LOCKSTEP_ALLOWED_HOSTS can allow it"
        return 421, "wrong_host", detail
    if not headers.get("content-length", "0").isdecimal() or int(headers.get("content-length", "0")) > most:
        return 413, "too_large", f"a body may have {most} bytes"
    if method in SAFE_METHODS:
        return None
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return 403, "cross_site", "changes are taken from this site's own pages only"
    if origin is None and "lockstep_" in headers.get("cookie", "") and "authorization" not in headers:
        return 403, "cross_site", "a change made with a cookie must say its Origin"
    return None


def _limited(receive: Receive, most: int) -> Receive:
    """Stop reading a body that says no length and grows too long."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > most else message

    return limited
