"""Who may do what in Postgres: one role for each kind of process, and for each table what it may do.

`lockstep` owns the database and is used by `migrate` alone, for tables and for backups. The other services
connect as the three roles below and can do what stands in GRANTS and nothing more. No label, event or result
can be deleted, and none but the owner, who is held off by a trigger, may change an event.

Rights are written as SQL has them; `SELECT (id, name)` is of these columns alone. To lock a row Postgres asks
for the right to update at least one of its columns. A table that is not here is nobody's but the owner's.
"""

import re
from dataclasses import dataclass

from sqlalchemy import Connection, create_engine, text

OWNER = "lockstep"
LABELER, COORDINATOR, WORKER = "lockstep_labeler", "lockstep_coordinator", "lockstep_worker"
ROLES = (LABELER, COORDINATOR, WORKER)
MIGRATION_LOCK = 0x10C45740  # of an advisory lock: two that grant at once would trip over each other

# What moves a round on, and what ends an attempt or offers a new one.
MOVE = "state, version, changed_at, forgiven, error, failed_stage"
END = "state, ended_at, error, hinted_at, hints"

GRANTS: dict[str, dict[str, str]] = {
    "experiments": {
        LABELER: "SELECT, INSERT, UPDATE (state, version, reason, ended_at)",
        COORDINATOR: "SELECT, UPDATE (version)",  # to lock the row; it changes none
        WORKER: "SELECT, UPDATE (state, version, reason, ended_at)",  # the last round ends the experiment
    },
    "rounds": {
        LABELER: f"SELECT, INSERT, UPDATE ({MOVE}, frozen_at, label_set_sha256)",
        COORDINATOR: f"SELECT, UPDATE ({MOVE}, frozen_at, label_set_sha256)",
        WORKER: f"SELECT, INSERT, UPDATE ({MOVE})",
    },
    "attempts": {
        LABELER: f"SELECT, INSERT, UPDATE ({END})",
        COORDINATOR: f"SELECT, INSERT, UPDATE ({END})",
        WORKER: "SELECT, INSERT, "
        f"UPDATE ({END}, worker, claimed_at, first_step_at, lease_until, progress, metrics)",
    },
    # A worker reads where its last measurement was, but no metric: a true return may be among them.
    "measurements": {LABELER: "SELECT", WORKER: "SELECT (id, attempt_id, progress), INSERT"},
    "artifacts": {LABELER: "SELECT", WORKER: "SELECT, INSERT"},
    "checkpoints": {WORKER: "SELECT, INSERT, DELETE"},  # of use until there is a newer one
    "clips": {
        LABELER: "SELECT, INSERT",
        WORKER: "SELECT, INSERT",
    },  # it brings in labels of another experiment
    # What a teacher judges by, and the true returns: workers bring them and cannot read them again.
    "judgements": {LABELER: "SELECT", WORKER: "INSERT"},
    "evaluations": {LABELER: "SELECT", WORKER: "INSERT"},
    "comparisons": {
        LABELER: "SELECT, INSERT, UPDATE (labels_given)",
        COORDINATOR: "SELECT",
        WORKER: "SELECT, INSERT",
    },
    # Names stand in the sum of a label set; tokens are the labeler service's alone.
    "labelers": {
        LABELER: "SELECT, INSERT, UPDATE (name, token_sha256)",
        COORDINATOR: "SELECT (id, name, kind, imported_as)",
        WORKER: "SELECT (id, name, kind, imported_as)",
    },
    "leases": {LABELER: "SELECT, INSERT, UPDATE (state, claimed_at, expires_at)"},
    "preferences": {
        LABELER: "SELECT, INSERT, UPDATE (withdrawn_at)",
        COORDINATOR: "SELECT",
        WORKER: "SELECT",
    },
    # Practice and repeats are no labels: nobody who trains, or closes a round, sees them.
    "asides": {LABELER: "SELECT, INSERT, UPDATE (state, asked_at, answer_id, ranks, seconds, answered_at)"},
    # Who is let in is the labeler service's business alone.
    "invitations": {LABELER: "SELECT, INSERT, UPDATE (used_at, revoked_at, labeler_id)"},
    "sessions": {LABELER: "SELECT, INSERT, UPDATE (used_at, expires_at), DELETE"},
    "failed_logins": {LABELER: "SELECT, INSERT, DELETE"},
    # The number of a new row is read back when it is written.
    "events": {LABELER: "SELECT, INSERT", COORDINATOR: "SELECT (id), INSERT", WORKER: "SELECT (id), INSERT"},
    "admin_actions": {LABELER: "SELECT, INSERT"},
}


@dataclass(frozen=True)
class Right:
    """One privilege on a table, or on some of its columns."""

    verb: str
    columns: tuple[str, ...] = ()


def rights(words: str) -> list[Right]:
    """Read what stands in GRANTS."""
    found = re.findall(r"(SELECT|INSERT|UPDATE|DELETE)(?: \(([^)]*)\))?(?:, |$)", words)
    read = [Right(verb, tuple(columns.split(", ")) if columns else ()) for verb, columns in found]
    if ", ".join(written(right) for right in read) != words:
        raise ValueError(f"no rights that can be granted: {words!r}")
    return read


def written(right: Right) -> str:
    """Write a right as SQL has it."""
    return f"{right.verb} ({', '.join(right.columns)})" if right.columns else right.verb


def grant(url: str) -> list[str]:
    """Give each role what it may do and take from it what it may not; return the roles there are.

    To be called by the owner, after migrating, as often as one likes. Where none of the roles exists (SQLite,
    a Postgres with one user) there is nothing to do, and whoever connects owns the tables.
    """
    engine = create_engine(url)
    try:
        if engine.dialect.name == "sqlite":
            return []
        with engine.begin() as connection:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
            query = text("SELECT rolname FROM pg_roles WHERE rolname = ANY (:names)")
            there = set(connection.scalars(query, {"names": list(ROLES)}))
            for role in ROLES:
                if role in there:
                    _grant_to(connection, role)
            return [role for role in ROLES if role in there]
    finally:
        engine.dispose()


def _grant_to(connection: Connection, role: str) -> None:
    # One transaction: whoever is at work keeps its rights until the new ones hold.
    name = connection.scalar(text("SELECT quote_ident(current_database())"))
    connection.execute(text(f"GRANT CONNECT ON DATABASE {name} TO {role}"))
    connection.execute(text(f"GRANT USAGE ON SCHEMA public TO {role}"))
    for kind in ("TABLES", "SEQUENCES"):
        connection.execute(text(f"REVOKE ALL ON ALL {kind} IN SCHEMA public FROM {role}"))
    for table, by_role in GRANTS.items():
        wanted = rights(by_role.get(role, ""))
        if not wanted:
            continue
        words = ", ".join(written(right) for right in wanted)
        connection.execute(text(f"GRANT {words} ON {table} TO {role}"))
        if any(right.verb == "INSERT" for right in wanted):
            columns = text(
                "SELECT pg_get_serial_sequence(:table, a.attname) FROM pg_attribute a "
                "WHERE a.attrelid = CAST(:table AS regclass) AND a.attnum > 0 AND NOT a.attisdropped"
            )
            for sequence in filter(None, connection.scalars(columns, {"table": table})):
                connection.execute(text(f"GRANT USAGE ON SEQUENCE {sequence} TO {role}"))
