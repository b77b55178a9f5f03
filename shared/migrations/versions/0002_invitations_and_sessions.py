"""Invitations, sessions of browsers, and failed log-ins."""

from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

KEPT_DAYS = 90


def upgrade() -> None:
    op.create_table(
        "invitations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=80), nullable=True),
        sa.Column("labeler_id", sa.Integer(), nullable=True),
        sa.Column("made_by", sa.String(length=120), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["labeler_id"], ["labelers.id"], name=op.f("fk_invitations_labeler_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_invitations")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_invitations_token_sha256")),
    )
    op.create_index(op.f("ix_invitations_labeler_id"), "invitations", ["labeler_id"])
    sessions = op.create_table(
        "sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("labeler_id", sa.Integer(), nullable=True),
        sa.Column("admin_sha256", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["labeler_id"], ["labelers.id"], name=op.f("fk_sessions_labeler_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sessions")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_sessions_token_sha256")),
    )
    op.create_index(op.f("ix_sessions_labeler_id"), "sessions", ["labeler_id"])
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"])
    op.create_table(
        "failed_logins",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("door", sa.String(length=12), nullable=False),
        sa.Column("address", sa.String(length=45), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_failed_logins")),
    )
    op.create_index("ix_failed_logins_door_at", "failed_logins", ["door", "at"])

    # Until now a labeler's cookie held the labeler's own token. As sessions of the same sums those browsers
    # stay logged in, and can be logged out.
    labelers = sa.table("labelers", sa.column("id"), sa.column("kind"), sa.column("token_sha256"))
    moment = datetime.now(UTC)
    times = (moment, moment, moment + timedelta(days=KEPT_DAYS))
    people = sa.select(
        labelers.c.token_sha256,
        labelers.c.id,
        *(sa.literal(at, sa.DateTime(timezone=True)) for at in times),
    ).where(labelers.c.kind == "person")
    columns = ["token_sha256", "labeler_id", "created_at", "used_at", "expires_at"]
    op.execute(sessions.insert().from_select(columns, people))


def downgrade() -> None:
    op.drop_table("failed_logins")
    op.drop_table("sessions")
    op.drop_table("invitations")
