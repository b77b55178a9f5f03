"""The migrations make exactly the tables of the models, on both databases, forth and back."""

import subprocess
import sys
from datetime import UTC, datetime

import alembic.command
import alembic.config
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from shared.column_types import UTCDateTime
from shared.database import Database, migrate
from shared.models import Base, BrowserSession, Experiment, Labeler

MIGRATE = "import sys; from shared.database import migrate; migrate(sys.argv[1])"


def compare_type(
    _context: object, _column: object, _other: object, kind: object, model: object
) -> bool | None:
    """UTCDateTime is a timestamp with time zone; SQLite has no other kind to tell it from."""
    return False if isinstance(model, UTCDateTime) and isinstance(kind, sa.DateTime) else None


def differences(url: str) -> list[object]:
    database = Database(url)
    with database.engine.connect() as connection:
        options = {"compare_type": compare_type, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        found = list(compare_metadata(context, Base.metadata))
    database.close()
    return found


def table_names(url: str) -> set[str]:
    database = Database(url)
    names = set(sa.inspect(database.engine).get_table_names())
    database.close()
    return names


def downgrade(url: str) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", "shared/migrations")
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    alembic.command.downgrade(config, "base")


def test_upgrading_an_empty_database_gives_the_models(empty_database_url: str) -> None:
    migrate(empty_database_url)
    assert differences(empty_database_url) == []
    assert table_names(empty_database_url) == {*Base.metadata.tables, "alembic_version"}


def test_a_difference_would_be_seen(empty_database_url: str) -> None:
    migrate(empty_database_url)
    database = Database(empty_database_url)
    with database.write() as session:
        session.execute(sa.text("DROP INDEX uq_attempts_live"))
        session.execute(sa.text("ALTER TABLE rounds ADD COLUMN mood TEXT"))
    database.close()
    assert len(differences(empty_database_url)) == 2


def test_checks_and_partial_indexes_are_the_models(empty_database_url: str) -> None:
    # compare_metadata looks at neither.
    migrate(empty_database_url)
    database = Database(empty_database_url)
    inspector = sa.inspect(database.engine)
    for table in Base.metadata.tables.values():
        wanted = {c.name for c in table.constraints if isinstance(c, sa.CheckConstraint)}
        assert {check["name"] for check in inspector.get_check_constraints(table.name)} == wanted
        option = f"{database.engine.dialect.name}_where"
        partial = {i.name for i in table.indexes if i.dialect_kwargs.get(option) is not None}
        found = {i["name"] for i in inspector.get_indexes(table.name) if option in i["dialect_options"]}
        assert found == partial
    database.close()


def test_down_and_up_again(database_url: str) -> None:
    downgrade(database_url)
    assert table_names(database_url) == {"alembic_version"}
    migrate(database_url)
    assert differences(database_url) == []


def test_migrating_again_changes_nothing_and_keeps_what_is_there(database_url: str) -> None:
    database = Database(database_url)
    with database.write() as session:
        values = {"name": "kept", "config": {}, "state": "running", "created_at": datetime.now(UTC)}
        session.execute(sa.insert(Experiment).values(version=0, **values))
    migrate(database_url)
    migrate(database_url)
    with database.read() as session:
        assert session.scalars(sa.select(Experiment.name)).all() == ["kept"]
    database.close()
    assert differences(database_url) == []


def test_services_that_start_at_once_migrate_once(empty_database_url: str) -> None:
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, empty_database_url], stderr=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    errors = [start.communicate(timeout=60)[1] for start in starts]
    assert [start.returncode for start in starts] == [0] * 4, errors
    assert differences(empty_database_url) == []


def test_a_password_may_hold_a_percent_sign(postgres_url: str) -> None:
    # The test server trusts everyone, so a wrong password gets as far as a right one would.
    url = postgres_url.replace("postgresql://postgres@", "postgresql+psycopg://postgres:a%25b@")
    with pytest.raises(sa.exc.OperationalError, match="does not exist"):
        migrate(url.rpartition("/")[0] + "/nowhere")


def test_labelers_of_the_first_tables_stay_logged_in(empty_database_url: str) -> None:
    # Their cookies held their tokens; the migration makes sessions of the same sums.
    migrate(empty_database_url, "0001")
    database = Database(empty_database_url)
    moment = datetime.now(UTC)
    with database.write() as session:
        for number, kind in enumerate(("person", "teacher", "person")):
            values = {"name": f"one {number}", "kind": kind, "token_sha256": f"{number:064}"}
            session.execute(sa.insert(Labeler).values(created_at=moment, **values))
    migrate(empty_database_url)
    with database.read() as session:
        kept = session.query(BrowserSession).order_by(BrowserSession.id).all()
    database.close()
    assert [(one.labeler_id, one.token_sha256) for one in kept] == [(1, f"{0:064}"), (3, f"{2:064}")]
    for one in kept:
        assert moment <= one.created_at == one.used_at < one.expires_at
        assert one.admin_sha256 is None
