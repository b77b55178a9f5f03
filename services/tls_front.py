"""`python -m services.tls_front 6379=redis:6379 …`: take TLS connections and pass on what is inside them.

It stands before Redis, Postgres and the S3 server where trainers on other hosts reach them. Its certificate
and key are server.crt and server.key in LOCKSTEP_SECRETS_DIR. It speaks TLS from the first byte, so clients
of Postgres need `sslnegotiation=direct` (libpq 17 and later). Who may do what, the servers behind it say.
"""

import asyncio
import logging
import signal
import ssl
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from shared import logs
from shared.settings import SettingsError, load_settings

log = logging.getLogger(__name__)

CHUNK = 1 << 16  # bytes read at a time
HANDSHAKE_S = 10.0  # a client that takes longer is hung up on


def parse(route: str) -> tuple[int, str, int]:
    """Return port, host and port behind of `6379=redis:6379`."""
    port, _, behind = route.partition("=")
    host, _, inner = behind.rpartition(":")
    if not (port.isdecimal() and inner.isdecimal() and host):
        raise SettingsError(f"{route!r} is no route: write PORT=HOST:PORT")
    return int(port), host, int(inner)


def context(certificate: Path, key: Path) -> ssl.SSLContext:
    """Return how to take connections: TLS 1.2 or later."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    made.load_cert_chain(certificate, key)
    made.set_alpn_protocols(["postgresql", "http/1.1"])  # libpq insists on its own name, others on none
    return made


async def start(routes: Sequence[str], tls: ssl.SSLContext, listen_on: str) -> list[asyncio.Server]:
    """Begin to take connections."""
    return [await _listen(*parse(route), tls, listen_on) for route in routes]


async def _listen(port: int, host: str, inner: int, tls: ssl.SSLContext, listen_on: str) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection(host, inner)
        except OSError as error:
            log.warning("%s:%s cannot be reached: %s", host, inner, error)
            await _close(writer)
            return
        ways = [
            asyncio.create_task(_pass_on(reader, inner_writer)),
            asyncio.create_task(_pass_on(inner_reader, writer)),
        ]
        try:
            # TLS knows no half-closed connection: when one side is done, both are.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            await _close(writer)
            await _close(inner_writer)

    return await asyncio.start_server(
        serve, listen_on, port, ssl=tls, limit=CHUNK, ssl_handshake_timeout=HANDSHAKE_S
    )


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # ssl.SSLError is one too
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()


async def _run(routes: Sequence[str], tls: ssl.SSLContext) -> None:
    leaving = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, leaving.set)
    servers = await start(routes, tls, "0.0.0.0")
    log.info("taking TLS connections: %s", ", ".join(routes))
    await leaving.wait()
    for server in servers:
        server.close()


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = load_settings()
    logs.set_up(settings)
    folder = settings.secrets_dir
    if folder is None:
        raise SettingsError("LOCKSTEP_SECRETS_DIR must name the folder of server.crt and server.key")
    asyncio.run(_run(sys.argv[1:], context(folder / "server.crt", folder / "server.key")))


if __name__ == "__main__":
    main()
