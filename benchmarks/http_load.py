"""A cheap client that plays many labelers: reads a plan (JSON) from standard input, prints what it saw.

It runs as a process of its own and speaks just enough HTTP/1.1 over kept connections, so that it is not what
is measured. It talks to 127.0.0.1 only and stops by itself when the plan's seconds are over.
"""

import asyncio
import json
import random
import resource
import signal
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import uvloop

LATE_S = 30.0  # an answer that takes longer is an error
WAIT_S = 0.05  # after an empty claim, which says to wait
WAITS = 3  # so many empty claims in a row say that there is nothing left


class Connection(asyncio.Protocol):
    """One kept connection: one request at a time."""

    def __init__(self) -> None:
        self.received = b""
        self.answer: asyncio.Future[tuple[int, bytes]] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Collect an answer; hand it over once its Content-Length is there."""
        self.received += data
        head, found, rest = self.received.partition(b"\r\n\r\n")
        if not found:
            return
        low = head.lower()
        at = low.find(b"content-length:")
        length = int(low[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(rest) >= length and self.answer is not None and not self.answer.done():
            self.received = b""
            self.answer.set_result((int(head[9:12]), rest))

    def connection_lost(self, _: Exception | None) -> None:
        """Tell who waits."""
        self.transport = None
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(ConnectionError("the server closed the connection"))

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send one request and return status and body of its answer."""
        if self.transport is None:
            raise ConnectionError("the server closed the connection")
        self.answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.answer


@dataclass
class Seen:
    """What came of all calls."""

    latencies: list[float] = field(default_factory=list)  # seconds, of every call
    answers: int = 0  # pairs of claim and answer that were done
    errors: list[str] = field(default_factory=list)


class Person:
    """A simulated labeler."""

    def __init__(self, plan: dict[str, Any], token: str, seen: Seen) -> None:
        self.plan, self.token, self.seen = plan, token, seen
        self.connection: Connection | None = None
        self.empty = 0  # claims in a row

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make one call and note how long it took; None, noted as an error, if it failed."""
        data = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {self.token}\r\n"
        if data:
            head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n"
        began = time.perf_counter()
        try:
            if self.connection is None:
                loop = asyncio.get_running_loop()
                _, self.connection = await loop.create_connection(Connection, "127.0.0.1", self.plan["port"])
            async with asyncio.timeout(LATE_S):
                status, answer = await self.connection.ask(head.encode() + b"\r\n" + data)
        except (OSError, TimeoutError) as error:
            self.connection = None
            self.seen.errors.append(f"{method} {path}: {error!r}")
            return None
        self.seen.latencies.append(time.perf_counter() - began)
        if status >= 300:
            self.seen.errors.append(f"{method} {path}: {status} {answer[:200].decode(errors='replace')}")
            return None
        return json.loads(answer) if answer.startswith((b"{", b"[")) else answer

    async def claim(self, count: int) -> list[dict[str, Any]]:
        """Ask for comparisons; it is an error if there are none left."""
        claims = await self.call(
            "POST", f"/api/experiments/{self.plan['experiment']}/claims", {"count": count}
        )
        found: list[dict[str, Any]] = claims["comparisons"] if claims else []
        self.empty = 0 if found or claims is None else self.empty + 1
        if self.empty == WAITS:
            self.seen.errors.append("there are no comparisons left: this plan needs more of them")
        return found

    async def answer(self, comparison: int) -> None:
        """Answer one comparison."""
        body = {"comparison": comparison, "ranks": [0, 1], "seconds": 1.5}
        if await self.call("PUT", f"/api/preferences/{uuid.uuid4()}", body) is not None:
            self.seen.answers += 1

    async def hurry(self, until: float) -> None:
        """Claim one and answer it, again and again."""
        while time.perf_counter() < until and self.empty < WAITS:
            if claimed := await self.claim(1):
                await self.answer(claimed[0]["id"])
            else:
                await asyncio.sleep(WAIT_S)

    async def at_a_persons_pace(self, until: float) -> None:
        """Do as the label page does: keep some in hand, answer one each `period_s`, claim again."""
        period: float = self.plan["period_s"]
        due = time.perf_counter() + random.random() * period
        in_hand: list[int] = []
        while due < until:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if time.perf_counter() > until:  # a server that cannot keep up shows in the number of answers
                return
            if in_hand:
                await self.answer(in_hand[0])
            claimed = await self.claim(self.plan["count"])
            if self.plan.get("clips"):
                for clip in [clip for one in claimed if one["id"] not in in_hand for clip in one["clips"]]:
                    await self.call("GET", clip["url"])
            in_hand = [one["id"] for one in claimed]
            due += period

    async def do_nothing(self, until: float) -> None:
        """Ask an endpoint that does nothing, again and again."""
        while time.perf_counter() < until:
            if await self.call("GET", "/healthz") is None:
                return


async def play(plan: dict[str, Any]) -> dict[str, Any]:
    """Play everybody at once and return what was seen."""
    seen = Seen()
    people = [Person(plan, token, seen) for token in plan["tokens"]]
    began, cpu = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    way = {"pairs": Person.hurry, "paced": Person.at_a_persons_pace, "noop": Person.do_nothing}[plan["mode"]]
    everybody = asyncio.gather(*[way(person, began + plan["seconds"]) for person in people])
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, everybody.cancel)  # whoever asks may end it
    with suppress(asyncio.CancelledError):
        await everybody
    took = time.perf_counter() - began
    spent = resource.getrusage(resource.RUSAGE_SELF)
    ordered = sorted(seen.latencies) or [0.0]

    def share(part: float) -> float:
        return round(1000 * ordered[min(int(part * len(ordered)), len(ordered) - 1)], 2)

    return {
        "calls": len(seen.latencies),
        "calls_a_second": round(len(seen.latencies) / took, 1),
        "answers": seen.answers,
        "answers_a_second": round(seen.answers / took, 1),
        "p50_ms": share(0.5),
        "p99_ms": share(0.99),
        "max_ms": share(1.0),
        "errors": len(seen.errors),
        "first_errors": seen.errors[:3],
        "client_cpu_s": round(spent.ru_utime + spent.ru_stime - cpu.ru_utime - cpu.ru_stime, 3),
    }


if __name__ == "__main__":
    print(json.dumps(uvloop.run(play(json.load(sys.stdin)))))
