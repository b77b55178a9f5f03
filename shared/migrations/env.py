"""Alembic's entry: runs the migrations on the database that `shared.database.migrate` names."""

from alembic import context
from sqlalchemy import text

from shared.database import Database
from shared.models import Base

LOCK = 0x4C6F636B  # a number that nothing else locks

url = context.config.get_main_option("sqlalchemy.url")
if url is None:
    raise SystemExit("Alembic needs sqlalchemy.url: call shared.database.migrate instead")
database = Database(url)
# Several services may start at once. SQLite's write lock lets one of them in, on Postgres ours does. It is
# all one transaction: Alembic would end SQLite's after each migration, and let the next in half-way.
with database.engine.begin() as connection:
    if not database.is_sqlite:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({LOCK})"))
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite changes a table by copying it
    )
    context.run_migrations()
database.close()
