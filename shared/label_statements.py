"""The SQL of handing out and answering: what runs for every key that a labeler presses.

Everything else in Lockstep goes through the ORM. These few statements do not, because a thousand labelers
press keys all day: they are sent to the driver as they stand here, and `labels.py` decides by what they
return. What several labelers ask at the same time is done by one statement: {these: labeler, shown} is a
table `t` with these columns, and a row for each of them. SQLite is sent it as JSON; Postgres as an array for
each column, because of arrays it guesses that they are short, and so begins with them.

Each statement is written once for both databases. A part in [[double brackets]] is for Postgres alone: the
locks (SQLite lets one writer in at a time, so its transaction needs none) and the casts. {now} is the
database's clock and {until} the end of a lease that begins now; on Postgres both are read when a row is
looked at, not when the transaction began, which may be long before a lock was granted.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

# How SQLAlchemy stores a moment in SQLite: in UTC, without a zone, so that text sorts as time does.
SQLITE_MOMENT = "%Y-%m-%d %H:%M:%S.%f"
CURSOR = "lockstep_cursor"  # where a pooled connection keeps the cursor for these statements
IS_SET_UP = "lockstep_is_set_up"  # where a session notes that Postgres was told how to plan


# The types of what {these: …} may name.
COLUMNS = {
    "clip": "integer", "comparison": "integer", "labeler": "integer", "lease": "integer",
    "preference": "text", "ranks": "json", "seconds": "double precision", "shown": "json",
}  # fmt: skip
_THESE = re.compile(r"\{these: ([a-z, ]+)\}")


@dataclass(frozen=True)
class Statement:
    """A statement with `:named` parameters."""

    text: str

    @cached_property
    def gives_rows(self) -> bool:
        """Whether it returns anything."""
        return self.text.lstrip().startswith("SELECT") or "RETURNING" in self.text

    @cached_property
    def postgres(self) -> str:
        """The statement as Postgres reads it."""
        return self._for_postgres("unnest({columns}) AS t({names})", "CAST(:{name}_of_each AS {kind}[])")

    @cached_property
    def pgbench(self) -> str:
        """The statement for a single row whose columns are parameters, as pgbench can run it."""
        return self._for_postgres("(SELECT {columns}) AS t", "CAST(:{name} AS {kind}) AS {name}")

    @cached_property
    def psycopg(self) -> str:
        """The statement with its parameters as the Postgres driver writes them."""
        return re.sub(r":(\w+)", r"%(\1)s", self.postgres)

    @cached_property
    def sqlite(self) -> str:
        """The statement as SQLite reads it."""
        rows = "(SELECT {columns} FROM json_each(:these)) AS t"
        text = _with_these(self.text, rows, "json_extract(value, '$.{name}') AS {name}")
        text = re.sub(r"\[\[.*?\]\]", "", text, flags=re.DOTALL)
        return text.replace("{now}", ":now").replace("{until}", ":until")

    def _for_postgres(self, rows: str, column: str) -> str:
        text = _with_these(self.text, rows, column).replace("[[", "").replace("]]", "")
        text = text.replace("{now}", "clock_timestamp()")
        return text.replace("{until}", "clock_timestamp() + make_interval(secs => :lease_s)")


def _with_these(text: str, rows: str, column: str) -> str:
    """Write out each {these: …}: `rows`, with its columns as `column` has it."""

    def written(found: re.Match[str]) -> str:
        columns = [column.format(name=name, kind=COLUMNS[name]) for name in found[1].split(", ")]
        return rows.format(columns=", ".join(columns), names=found[1])

    return _THESE.sub(written, text)


# Whether a hold on a comparison keeps others from it.
_LIVE = "state = 'held' AND expires_at > {now}"

# What Postgres is told before the first statement of a transaction: to plan each statement once; to walk
# along indexes; and to care for nothing but how many rows it looks at. A new database knows nothing yet of
# how many there are, and would read or sort a whole round, or all that is held, to find a few comparisons.
# Where a few rows are to be sorted all the same, "number + 0" keeps it from walking along all numbers
# instead, as "state || ''" keeps it from walking along all states.
SETTINGS = {
    "plan_cache_mode": "force_generic_plan", "seq_page_cost": "0", "random_page_cost": "0",
    "cpu_tuple_cost": "1", "enable_seqscan": "off", "enable_bitmapscan": "off", "enable_sort": "off",
    "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off",
}  # fmt: skip
SET_UP = "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in SETTINGS.items())

# An experiment's newest round, kept from being frozen until the transaction ends.
NEWEST_ROUND = Statement("""
SELECT e.state, CAST(e.config AS TEXT), r.id, r.number, r.state
FROM experiments e JOIN rounds r ON r.experiment_id = e.id
WHERE e.name = :name ORDER BY r.number DESC LIMIT 1 [[FOR SHARE OF r]]
""")

# What labelers hold, whether it has not run out, and whether that is so for long enough ({until}).
# Both conditions ask for more than they say, so that Postgres cannot begin with all that anybody holds, nor
# with the whole round.
HELD = Statement("""
SELECT l.labeler_id, l.id, l.expires_at > {now}, l.expires_at > {until}, c.id, c.clip_ids, l.shown,
    l.expires_at
FROM {these: labeler} JOIN leases l ON l.labeler_id = t.labeler JOIN comparisons c ON c.id = l.comparison_id
WHERE l.state = CASE WHEN t.labeler > 0 THEN 'held' END AND c.round_id + 0 = :round
ORDER BY c.number + 0
""")
# Lock what is to be renewed. We look at the clock afterwards (RENEW), or it might just have been given to
# somebody else.
LOCK_HELD = Statement("""
SELECT c.id FROM {these: lease} JOIN leases l ON l.id = t.lease JOIN comparisons c ON c.id = l.comparison_id
ORDER BY c.id + 0 [[FOR NO KEY UPDATE OF c]]
""")
RENEW = Statement("""
UPDATE leases SET expires_at = {until}
WHERE id IN (SELECT lease FROM {these: lease}) AND state || '' = 'held' AND expires_at > {now}
RETURNING comparison_id, labeler_id, shown, expires_at
""")

# Lock comparisons that have room for a labeler who has had nothing to do with them, or (RETURNED) who gave
# them back. Labeler 0 is nobody: then what each of many labelers had to do with them is asked by BARRED.
# Comparisons that somebody else decides on just now are passed over.
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
_BARS = "(m.state <> 'held' OR m.expires_at > {now})"
OPEN = Statement(_OPEN % f"NOT EXISTS ({_MINE} AND {_BARS})")
RETURNED = Statement(_OPEN % f"EXISTS ({_MINE} AND m.state = 'skipped')")
BARRED = Statement(f"""
SELECT m.labeler_id, m.comparison_id FROM {{these: comparison}}
JOIN leases m ON m.comparison_id = t.comparison WHERE {_BARS}
""")

# Give locked comparisons to labelers, each to one, unless somebody committed a lease or an answer between the
# snapshot in which it was found and its lock: then no row comes back. Who had it before sees it as before.
GRANT = Statement(f"""
INSERT INTO leases (comparison_id, labeler_id, state, shown, claimed_at, expires_at)
SELECT c.id, t.labeler, 'held', t.shown, {{now}}, {{until}}
FROM {{these: comparison, labeler, shown}} JOIN comparisons c ON c.id = t.comparison
WHERE c.labels_given + (
    SELECT count(*) FROM leases l WHERE l.comparison_id = c.id AND l.labeler_id <> t.labeler AND {_LIVE}
) < c.labels_wanted
ON CONFLICT (comparison_id, labeler_id) DO UPDATE
SET state = 'held', claimed_at = excluded.claimed_at, expires_at = excluded.expires_at
WHERE leases.state <> 'answered'
RETURNING comparison_id, labeler_id, shown, expires_at
""")

# Lock comparisons, and keep their rounds from being frozen. All who lock several do so in the same order.
LOCK = Statement("""
SELECT c.id, r.id, r.state, r.number, c.labels_given, c.labels_wanted, c.clip_ids
FROM {these: comparison} JOIN comparisons c ON c.id = t.comparison JOIN rounds r ON r.id = c.round_id
ORDER BY c.id + 0 [[FOR SHARE OF r FOR NO KEY UPDATE OF c]]
""")

# What has become of locked comparisons: the labeler's hold, whether it has run out, others' holds, and the
# answer of this id, whoever gave it to whatever. A row for each, always.
STANDING = Statement(f"""
SELECT t.comparison, l.state, l.shown, l.expires_at <= {{now}},
    (SELECT count(*) FROM leases o
     WHERE o.comparison_id = t.comparison AND o.labeler_id <> t.labeler AND {_LIVE}),
    p.id, p.comparison_id, p.labeler_id, p.ranks, p.shown
FROM {{these: comparison, labeler, preference}}
LEFT JOIN leases l ON l.comparison_id = t.comparison AND l.labeler_id = t.labeler
LEFT JOIN preferences p ON p.id = t.preference
""")

ANSWER = Statement("SELECT comparison_id, labeler_id, withdrawn_at FROM preferences WHERE id = :preference")
STORE = Statement("""
INSERT INTO preferences (id, comparison_id, labeler_id, ranks, shown, seconds, answered_at)
SELECT t.preference, t.comparison, t.labeler, t.ranks, t.shown, t.seconds, {now}
FROM {these: preference, comparison, labeler, ranks, shown, seconds}
""")
WITHDRAW = Statement("UPDATE preferences SET withdrawn_at = {now} WHERE id = :preference")
COUNT = Statement("""
UPDATE comparisons SET labels_given = labels_given + 1
WHERE id IN (SELECT comparison FROM {these: comparison})
""")
DISCOUNT = Statement("UPDATE comparisons SET labels_given = labels_given - 1 WHERE id = :comparison")
SETTLE = Statement("""
UPDATE leases SET state = 'answered'
WHERE (comparison_id, labeler_id) IN (SELECT comparison, labeler FROM {these: comparison, labeler})
""")
# An answer is all three.
TAKE = (STORE, COUNT, SETTLE)
_HOLDER = "WHERE comparison_id = :comparison AND labeler_id = :labeler"
GIVE_BACK = Statement(f"UPDATE leases SET state = 'skipped', expires_at = {{now}} {_HOLDER}")
HOLD_ON = Statement(f"UPDATE leases SET state = 'held', expires_at = {{until}} {_HOLDER}")
LEASE = Statement(f"SELECT shown, expires_at FROM leases {_HOLDER}")

CONFIG = Statement("""
SELECT CAST(e.config AS TEXT) FROM experiments e JOIN rounds r ON r.experiment_id = e.id WHERE r.id = :round
""")
# How many labels a round still lacks. The index of what is open is the shorter the fewer they are.
MISSING = Statement("""
SELECT coalesce(sum(labels_wanted - labels_given), 0) FROM comparisons
WHERE round_id = :round AND labels_given < labels_wanted
""")

CLIPS = Statement("""
SELECT c.id, c.mp4_sha256, c.steps, c.fps FROM {these: clip} JOIN clips c ON c.id = t.clip
""")


def _together(*statements: Statement) -> Statement:
    """Return statements that give no rows as one, which Postgres can take in one go."""
    *first, last = (statement.text.strip() for statement in statements)
    parts = ", ".join(f"part_{number} AS ({text})" for number, text in enumerate(first))
    return Statement(f"WITH {parts} {last}")


TAKE_AT_ONCE = _together(*TAKE)


def take(session: Session, these: list[dict[str, Any]]) -> None:
    """Store answers, count them, and end the holds. No two are of one comparison."""
    for statement in TAKE if session.get_bind().dialect.name == "sqlite" else [TAKE_AT_ONCE]:
        run(session, statement, these=these)


def run(
    session: Session,
    statement: Statement,
    *,
    lease_s: float = 0.0,
    these: Sequence[Mapping[str, Any]] = (),
    **values: Any,
) -> list[Any]:
    """Run `statement` in the session's transaction and return its rows.

    It goes to the driver's own cursor, of which every connection keeps one: that takes a quarter of the time.
    """
    session.flush()  # what was changed through the ORM comes first
    connection = session.connection()
    cursor = connection.info.get(CURSOR)
    if cursor is None:
        cursor = connection.info[CURSOR] = connection.connection.cursor()
    base = connection.dialect.loaded_dbapi.Error
    text = statement.text
    try:
        if connection.dialect.name == "sqlite":
            text, values = statement.sqlite, values | _for_sqlite(lease_s, these)
        else:
            if not session.info.get(IS_SET_UP):
                cursor.execute(SET_UP)
                session.info[IS_SET_UP] = True
            text, values = statement.psycopg, values | _for_postgres(lease_s, these)
        cursor.execute(text, values)
        return list(cursor.fetchall()) if statement.gives_rows else []
    except base as error:  # everybody else knows SQLAlchemy's errors
        raise DBAPIError.instance(text, values, error, base, dialect=connection.dialect) from error


def _for_sqlite(lease_s: float, these: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    now = datetime.now(UTC)  # an embedded system has one machine, and so one clock
    until = now + timedelta(seconds=lease_s)
    moments = {"now": now.strftime(SQLITE_MOMENT), "until": until.strftime(SQLITE_MOMENT)}
    return moments | {"these": json.dumps(these)}


def _for_postgres(lease_s: float, these: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns: dict[str, list[Any]] = {f"{name}_of_each": [] for name in these[0]} if these else {}
    for row in these:
        for name, value in row.items():
            as_json = COLUMNS[name] == "json" and value is not None
            columns[f"{name}_of_each"].append(json.dumps(value) if as_json else value)
    return columns | {"lease_s": lease_s}


def to_list(value: Any) -> Any:
    """Return a JSON column's value: Postgres's driver has read it already, SQLite's gives its text."""
    return json.loads(value) if isinstance(value, str) else value


def to_moment(value: datetime | str) -> datetime:
    """Return a moment in UTC."""
    if isinstance(value, str):
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    return value.astimezone(UTC)
