"""The table of grants: complete, readable, and nothing to do where there are no roles."""

import psycopg
import pytest

from shared import grants
from shared.models import Base


def test_every_table_says_what_each_role_may_do() -> None:
    """A new table: add its line to GRANTS in shared/grants.py."""
    tables = {table.name: set(table.columns.keys()) for table in Base.metadata.sorted_tables}
    assert set(grants.GRANTS) == set(tables), "shared/grants.py and shared/models.py name different tables"
    for table, by_role in grants.GRANTS.items():
        assert set(by_role) <= set(grants.ROLES)
        for words in by_role.values():
            for right in grants.rights(words):
                assert set(right.columns) <= tables[table], f"{table}: {words}"


def test_nothing_that_counts_can_be_deleted() -> None:
    """What runs out may be cleared away: add such a table to these."""
    passing = {"sessions", "failed_logins", "checkpoints"}
    for table in set(grants.GRANTS) - passing:
        for words in grants.GRANTS[table].values():
            assert "DELETE" not in words, table


def test_rights_that_nobody_should_have_cannot_be_written() -> None:
    for words in ("TRUNCATE", "SELECT, TRUNCATE", "ALL", "SELECT; DROP TABLE events", "UPDATE (a", "select"):
        with pytest.raises(ValueError, match="no rights that can be granted"):
            grants.rights(words)


def test_without_roles_there_is_nothing_to_grant(database_url: str) -> None:
    """Embedded, and a Postgres with one user: as before, whoever connects owns the tables."""
    if database_url.startswith("postgresql"):
        with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
            names = f"SELECT rolname FROM pg_roles WHERE rolname LIKE '{grants.OWNER}\\_%'"
            there = {name for (name,) in connection.execute(names)}
        assert set(grants.grant(database_url)) == there  # none, unless a test below has made them
    else:
        assert grants.grant(database_url) == []
