"""`python -m services.labeler`: serve pages and API until told to stop."""

import gc
import socket

import uvicorn
from fastapi import FastAPI

from services.labeler.app import create_app
from services.labeler.live import Live
from services.labeler.quick import Quick
from shared import logs
from shared.settings import Settings, load_settings

STOP_S = 3  # requests under way get this long to end
# New objects, and then collections, between two of the garbage collector's: with Python's own 700, 10 and 10
# it goes through the same pools and caches several times a second, while every labeler waits.
COLLECT = (20_000, 20, 20)


class Server(uvicorn.Server):
    """Ends the streams of live events before it waits for the requests that are under way."""

    live: Live

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop in order."""
        self.live.close()
        await super().shutdown(sockets)


def configure(app: FastAPI, settings: Settings) -> uvicorn.Config:
    """Return how uvicorn is to serve `app`."""
    return uvicorn.Config(
        Quick(app, settings),
        host=settings.host,
        port=settings.port,
        log_config=None,  # its lines go the way of ours
        log_level=settings.log_level.lower(),
        access_log=settings.log_level == "DEBUG",
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=settings.trusted_proxies or None,
        timeout_graceful_shutdown=STOP_S,
    )


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    settings = load_settings()
    logs.set_up(settings)
    app = create_app(settings)
    server = Server(configure(app, settings))
    server.live = app.state.context.live
    gc.freeze()  # what stands until the end need not be looked through
    gc.set_threshold(*COLLECT)
    server.run()


if __name__ == "__main__":
    main()
