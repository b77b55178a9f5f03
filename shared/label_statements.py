"""The SQL of handing out and answering: what runs for every key that a labeler presses.

Everything else in Lockstep goes through the ORM. These few statements do not, because a thousand labelers
press keys all day: they are sent to the driver as they stand here, and `labels.py` decides by what they
return. Each is written once for both databases. A part in [[double brackets]] is for Postgres alone: the
locks (SQLite lets one writer in at a time, so its transaction needs none) and the casts. {now} is the
database's clock and {until} the end of a lease that begins now; on Postgres both are read when a row is
looked at, not when the transaction began, which may be long before a lock was granted.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

# How SQLAlchemy stores a moment in SQLite: in UTC, without a zone, so that text sorts as time does.
SQLITE_MOMENT = "%Y-%m-%d %H:%M:%S.%f"
CURSOR = "lockstep_cursor"  # where a pooled connection keeps the cursor for these statements


@dataclass(frozen=True)
class Statement:
    """A statement with `:named` parameters."""

    text: str

    @cached_property
    def postgres(self) -> str:
        """The statement as Postgres reads it (and pgbench, which writes parameters in the same way)."""
        text = self.text.replace("[[", "").replace("]]", "").replace("{now}", "clock_timestamp()")
        return text.replace("{until}", "clock_timestamp() + make_interval(secs => :lease_s)")

    @cached_property
    def psycopg(self) -> str:
        """The statement with its parameters as the Postgres driver writes them."""
        return re.sub(r":(\w+)", r"%(\1)s", self.postgres)

    @cached_property
    def sqlite(self) -> str:
        """The statement as SQLite reads it."""
        text = re.sub(r"\[\[.*?\]\]", "", self.text, flags=re.DOTALL)
        return text.replace("{now}", ":now").replace("{until}", ":until")


# Whether a hold on a comparison keeps others from it.
_LIVE = "state = 'held' AND expires_at > {now}"

# An experiment's newest round, kept from being frozen until the transaction ends. For as long, Postgres is
# told to walk along indexes and not to sort: a new database knows nothing yet of how many rows there are, and
# would sort a whole round to find the first comparison. Where a few rows are to be sorted, "number + 0" keeps
# it from walking along all numbers instead; and nothing here is worth compiling.
NEWEST_ROUND = Statement("""
SELECT e.state, CAST(e.config AS TEXT), r.id, r.number, r.state
[[, set_config('enable_sort', 'off', true), set_config('enable_bitmapscan', 'off', true),
set_config('jit', 'off', true)]]
FROM experiments e JOIN rounds r ON r.experiment_id = e.id
WHERE e.name = :name ORDER BY r.number DESC LIMIT 1 [[FOR SHARE OF r]]
""")

# Lock what a labeler holds. We look at the clock afterwards, or what is renewed might just have been given to
# somebody else.
LOCK_HELD = Statement("""
SELECT c.id, c.clip_ids FROM leases l JOIN comparisons c ON c.id = l.comparison_id
WHERE l.labeler_id = :labeler AND l.state = 'held' AND c.round_id = :round
ORDER BY c.number + 0 [[FOR NO KEY UPDATE OF c]]
""")

RENEW_HELD = Statement(f"""
UPDATE leases SET expires_at = {{until}}
WHERE id IN (
    SELECT l.id FROM leases l JOIN comparisons c ON c.id = l.comparison_id
    WHERE l.labeler_id = :labeler AND c.round_id = :round AND {_LIVE}
    ORDER BY c.number + 0 LIMIT :count
)
RETURNING comparison_id, shown, expires_at
""")

# Lock comparisons that have room for a labeler who has had nothing to do with them, or (RETURNED) who gave
# them back. Comparisons that somebody else decides on just now are passed over.
_OPEN = f"""
SELECT c.id, c.number, c.clip_ids FROM comparisons c
WHERE c.round_id = :round AND c.number >= :start AND c.labels_given < c.labels_wanted
AND c.labels_given + (
    SELECT count(*) FROM leases l WHERE l.comparison_id = c.id AND {_LIVE}
) < c.labels_wanted
AND %s
ORDER BY c.number LIMIT :count [[FOR NO KEY UPDATE OF c SKIP LOCKED]]
"""
_MINE = "SELECT 1 FROM leases m WHERE m.comparison_id = c.id AND m.labeler_id = :labeler"
OPEN = Statement(_OPEN % f"NOT EXISTS ({_MINE} AND (m.state <> 'held' OR m.expires_at > {{now}}))")
RETURNED = Statement(_OPEN % f"EXISTS ({_MINE} AND m.state = 'skipped')")

# Give a locked comparison to a labeler, unless somebody committed a lease or an answer between the snapshot
# in which it was found and its lock: then no row comes back. Who had it before sees it as they saw it then.
GRANT = Statement(f"""
INSERT INTO leases (comparison_id, labeler_id, state, shown, claimed_at, expires_at)
SELECT c.id, :labeler, 'held', [[CAST(]]:shown[[ AS JSON)]], {{now}}, {{until}} FROM comparisons c
WHERE c.id = :comparison AND c.labels_given + (
    SELECT count(*) FROM leases l WHERE l.comparison_id = c.id AND l.labeler_id <> :labeler AND {_LIVE}
) < c.labels_wanted
ON CONFLICT (comparison_id, labeler_id) DO UPDATE
SET state = 'held', claimed_at = excluded.claimed_at, expires_at = excluded.expires_at
WHERE leases.state <> 'answered'
RETURNING comparison_id, shown, expires_at
""")

# Lock a comparison, and keep its round from being frozen.
LOCK = Statement("""
SELECT r.id, r.state, r.number, c.labels_given, c.labels_wanted, c.clip_ids
FROM rounds r JOIN comparisons c ON c.round_id = r.id WHERE c.id = :comparison
[[FOR SHARE OF r FOR NO KEY UPDATE OF c]]
""")

# What has become of a locked comparison: the labeler's hold on it, whether it has run out, others' holds, and
# the answer of this id, whoever gave it to whatever. One row always.
STANDING = Statement(f"""
SELECT l.state, l.shown, l.expires_at <= {{now}},
    (SELECT count(*) FROM leases o
     WHERE o.comparison_id = :comparison AND o.labeler_id <> :labeler AND {_LIVE}),
    p.id, p.comparison_id, p.labeler_id, p.ranks, p.shown
FROM (SELECT 1) AS always
LEFT JOIN leases l ON l.comparison_id = :comparison AND l.labeler_id = :labeler
LEFT JOIN preferences p ON p.id = :preference
""")

ANSWER = Statement("SELECT comparison_id, labeler_id, withdrawn_at FROM preferences WHERE id = :preference")
STORE = Statement("""
INSERT INTO preferences (id, comparison_id, labeler_id, ranks, shown, seconds, answered_at)
VALUES (:preference, :comparison, :labeler, :ranks, :shown, :seconds, {now})
""")
WITHDRAW = Statement("UPDATE preferences SET withdrawn_at = {now} WHERE id = :preference")
COUNT = Statement("UPDATE comparisons SET labels_given = labels_given + 1 WHERE id = :comparison")
DISCOUNT = Statement("UPDATE comparisons SET labels_given = labels_given - 1 WHERE id = :comparison")
_HOLDER = "WHERE comparison_id = :comparison AND labeler_id = :labeler"
SETTLE = Statement(f"UPDATE leases SET state = 'answered' {_HOLDER}")
# An answer is all three.
TAKE = (STORE, COUNT, SETTLE)
GIVE_BACK = Statement(f"UPDATE leases SET state = 'skipped', expires_at = {{now}} {_HOLDER}")
HOLD_ON = Statement(f"UPDATE leases SET state = 'held', expires_at = {{until}} {_HOLDER}")
LEASE = Statement(f"SELECT shown, expires_at FROM leases {_HOLDER}")

CONFIG = Statement("""
SELECT CAST(e.config AS TEXT) FROM experiments e JOIN rounds r ON r.experiment_id = e.id WHERE r.id = :round
""")


def _together(*statements: Statement) -> Statement:
    """Return statements that give no rows as one, which Postgres can take in one go."""
    *first, last = (statement.text.strip() for statement in statements)
    parts = ", ".join(f"part_{number} AS ({text})" for number, text in enumerate(first))
    return Statement(f"WITH {parts} {last}")


TAKE_AT_ONCE = _together(*TAKE)


def take(session: Session, **values: Any) -> None:
    """Store an answer, count it, and end the hold."""
    for statement in TAKE if session.get_bind().dialect.name == "sqlite" else [TAKE_AT_ONCE]:
        run(session, statement, **values)


def run(session: Session, statement: Statement, lease_s: float = 0.0, **values: Any) -> list[Any]:
    """Run `statement` in the session's transaction and return its rows.

    It goes to the driver's own cursor, of which every connection keeps one: that takes a quarter of the time.
    """
    session.flush()  # what was changed through the ORM comes first
    connection = session.connection()
    if connection.dialect.name == "sqlite":
        now = datetime.now(UTC)  # an embedded system has one machine, and so one clock
        values["now"] = now.strftime(SQLITE_MOMENT)
        values["until"] = (now + timedelta(seconds=lease_s)).strftime(SQLITE_MOMENT)
        text = statement.sqlite
    else:
        values["lease_s"] = lease_s
        text = statement.psycopg
    cursor = connection.info.get(CURSOR)
    if cursor is None:
        cursor = connection.info[CURSOR] = connection.connection.cursor()
    base = connection.dialect.loaded_dbapi.Error
    try:
        cursor.execute(text, values)
        return list(cursor.fetchall()) if cursor.description else []
    except base as error:  # everybody else knows SQLAlchemy's errors
        raise DBAPIError.instance(text, values, error, base, dialect=connection.dialect) from error


def to_list(value: Any) -> Any:
    """Return a JSON column's value: Postgres's driver has read it already, SQLite's gives its text."""
    return json.loads(value) if isinstance(value, str) else value


def to_moment(value: datetime | str) -> datetime:
    """Return a moment in UTC."""
    if isinstance(value, str):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return value.astimezone(UTC)
