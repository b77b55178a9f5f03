"""The TLS front: what goes in comes out behind it, and only to those who trust its certificate."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from services import tls_front
from shared.settings import SettingsError
from tests.test_compose import make_secrets


@asynccontextmanager
async def echo_behind_front(folder: Path) -> AsyncIterator[int]:
    """Yield the front's port; behind it stands a server that sends everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1000):
            writer.write(data)
        writer.close()

    inner = await asyncio.start_server(echo, "127.0.0.1", 0)
    behind = inner.sockets[0].getsockname()[1]
    tls = tls_front.context(folder / "server.crt", folder / "server.key")
    (front,) = await tls_front.start([f"0=127.0.0.1:{behind}"], tls, "127.0.0.1")
    try:
        yield front.sockets[0].getsockname()[1]
    finally:
        front.close()
        inner.close()
        open_still = asyncio.all_tasks() - {asyncio.current_task()}
        if open_still:
            await asyncio.wait(open_still, timeout=5)
        await asyncio.sleep(0.05)  # refused handshakes have no task, but a connection to be closed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_secrets(tmp_path, TLS_NAMES="127.0.0.1")
    return tmp_path / "front"


def trusting(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "server.crt"))


def test_what_goes_in_comes_out(folder: Path) -> None:
    sent = bytes(range(256)) * 5000

    async def send() -> bytes:
        async with echo_behind_front(folder) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(folder))
            writer.write(sent)
            received = await reader.readexactly(len(sent))
            writer.close()
            await writer.wait_closed()
            return received

    assert asyncio.run(send()) == sent


def test_another_name_and_another_certificate_are_refused(folder: Path, tmp_path: Path) -> None:
    make_secrets(tmp_path / "other", TLS_NAMES="127.0.0.1")

    async def call(tls: ssl.SSLContext, name: str) -> None:
        async with echo_behind_front(folder) as port:
            with pytest.raises(ssl.SSLCertVerificationError):
                await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)

    asyncio.run(call(trusting(folder), "elsewhere.example.org"))
    asyncio.run(call(trusting(tmp_path / "other" / "front"), "127.0.0.1"))


def test_plain_text_gets_no_answer(folder: Path) -> None:
    async def call() -> bytes:
        async with echo_behind_front(folder) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"*1\r\n$4\r\nPING\r\n" * 20)
            try:
                return await reader.read(100)
            except ConnectionError:
                return b""
            finally:
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()

    assert b"PING" not in asyncio.run(call())


@pytest.mark.parametrize("route", ["", "6379", "6379=redis", "x=redis:6379", "6379=redis:x", "6379=:6379"])
def test_a_wrong_route_is_named(route: str) -> None:
    with pytest.raises(SettingsError, match="write PORT=HOST:PORT"):
        tls_front.parse(route)
