"""Fixtures that every test may ask for. A server starts when the first test asks for it.

`database_url` gives each test a migrated database of its own, once on SQLite and once on Postgres: a copy of
a template that is migrated once a run. `empty_database_url` gives one without a table.
"""

import shutil
import signal
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psycopg
import pytest
from playwright.sync_api import Browser, sync_playwright
from psycopg import sql

from benchmarks.label_page import ARGS
from shared.database import Database, migrate
from tests import services
from tests.served import served  # noqa: F401 (a fixture: tests ask for it by its name)


def pytest_configure() -> None:
    """End on SIGTERM as on Ctrl-C, so that servers are stopped and their folders removed."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """The address of a Postgres superuser's database, for psycopg."""
    with services.postgres() as url:
        yield url


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The address of a Redis server shared by the run: use keys of your own, or flush it."""
    with services.redis_server() as url:
        yield url


@pytest.fixture(scope="session")
def s3() -> Iterator[services.S3]:
    """An S3 server shared by the run: use a bucket or a prefix of your own."""
    with services.s3_server() as account:
        yield account


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a browser, for Playwright's `executable_path`."""
    return services.find("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    """A browser; each test opens contexts of its own.

    Not for the whole run: while Playwright is there, nothing else in this thread can run an event loop.
    """
    with sync_playwright() as play, play.chromium.launch(executable_path=chromium, args=ARGS) as launched:
        yield launched


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file to copy."""
    path = tmp_path_factory.mktemp("template") / "template.db"
    migrate(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> Iterator[str]:
    """The name of a migrated Postgres database to copy."""
    with fresh_postgres(postgres_url, "template0") as url:
        migrate(url)
        yield url.rpartition("/")[2]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """SQLAlchemy's address of a migrated database, without a row, that is this test's own."""
    if request.param == "sqlite":
        path = tmp_path / "lockstep.db"
        shutil.copyfile(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
    else:
        server = request.getfixturevalue("postgres_url")
        with fresh_postgres(server, request.getfixturevalue("postgres_template")) as url:
            yield url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """A migrated database of this test's own, open."""
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture(params=["sqlite", "postgres"])
def empty_database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """SQLAlchemy's address of a database without a table that is this test's own."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
    else:
        with fresh_postgres(request.getfixturevalue("postgres_url"), "template0") as url:
            yield url


@contextmanager
def fresh_postgres(server: str, template: str) -> Iterator[str]:
    """Make a database on the server whose own database is `server`; drop it at the end."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {}")
        connection.execute(copy.format(sql.Identifier(name), sql.Identifier(template)))
    yield server.rpartition("/")[0].replace("postgresql:", "postgresql+psycopg:") + f"/{name}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
