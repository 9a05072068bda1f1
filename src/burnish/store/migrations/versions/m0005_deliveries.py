"""Deliveries keep why they failed, and stay when they are given up."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """What was given up before is in the log alone."""
    with op.batch_alter_table("deliveries") as deliveries:
        deliveries.add_column(sa.Column("fault", sa.Text))
        deliveries.alter_column("next_at", existing_type=sa.String(32), nullable=True)
