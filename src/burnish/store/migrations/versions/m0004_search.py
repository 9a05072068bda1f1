"""The search index, filled from the examples that are there; it finds their source too.

Three indexes go that no query asks for: each is more to write for every example added.
"""

from alembic import op

from burnish.store.search_index import create_search_index

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """A minute for 1,000,000 examples."""
    for column in ("conversation_hash", "source", "parent"):
        op.drop_index(f"ix_examples_{column}", "examples")
    create_search_index(op.get_bind())
