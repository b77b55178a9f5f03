"""Labelers whose labels came with an import."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("labelers", schema=None) as batch_op:
        batch_op.add_column(sa.Column("imported_as", sa.String(length=80), nullable=True))
        batch_op.add_column(sa.Column("imported_from", sa.Text(), nullable=True))


def downgrade() -> None:
    with op.batch_alter_table("labelers", schema=None) as batch_op:
        batch_op.drop_column("imported_from")
        batch_op.drop_column("imported_as")
