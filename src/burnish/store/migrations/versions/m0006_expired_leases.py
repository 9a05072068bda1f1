"""Who was shown an example is known after their lease has run out, too."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Leases that had run out before are gone; who had them may ask for the example again."""
    key = sa.ForeignKey("examples.id", name="fk_expired_leases_example_id")
    op.create_table(
        "expired_leases",
        sa.Column("example_id", sa.String(32), key, primary_key=True),
        sa.Column("task", sa.String(64), primary_key=True),
        sa.Column("annotator", sa.String(128), primary_key=True),
    )
