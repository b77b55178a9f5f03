"""Alembic's entry: runs the migrations on the database that `shared.database.migrate` names."""

from alembic import context

from shared.database import Database
from shared.models import Base

database = Database(context.config.attributes["url"])
with database.engine.connect() as connection:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite changes a table by copying it
    )
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
database.close()
