"""Labelling for teams: drafts, orders, gold, people who sign in, webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """What is there stays; the queue is derived and made anew by `open_store`."""
    op.add_column("annotations", sa.Column("draft_id", sa.String(32)))
    op.add_column("annotations", sa.Column("edit_distance", sa.Float))
    _queue()
    _items()
    _people()
    _webhooks()


def _seq() -> sa.Column[int]:
    return sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True)


def _example_id(table: str, *, primary_key: bool = False) -> sa.Column[str]:
    key = sa.ForeignKey("examples.id", name=f"fk_{table}_example_id")
    return sa.Column("example_id", sa.String(32), key, nullable=False, primary_key=primary_key)


def _key(table: str, column: str, target: str) -> sa.Column[str]:
    key = sa.ForeignKey(target, name=f"fk_{table}_{column}")
    return sa.Column(column, sa.String(64), key, nullable=False)


def _text(name: str, length: int) -> sa.Column[str]:
    return sa.Column(name, sa.String(length), nullable=False)


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))


def _queue() -> None:
    op.drop_index("ix_annotations_task_annotator", "annotations")
    _index("annotations", "annotator", "task", "status", "example_id")
    op.drop_table("queue")
    op.create_table(
        "queue",
        _example_id("queue", primary_key=True),
        sa.Column("task", sa.String(64), primary_key=True),
        sa.Column("lane", sa.String(131), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("rank", sa.Float, nullable=False),
        sa.Column("taken", sa.Integer, nullable=False),
        sa.Column("closed", sa.Boolean, nullable=False),
    )
    _index("queue", "lane", "task", "closed", "taken", "rank", "position")
    op.create_table(
        "queue_marks",
        sa.Column("task", sa.String(64), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
    )
    op.create_table(
        "disputes",
        _example_id("disputes", primary_key=True),
        sa.Column("task", sa.String(64), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("reviewer", sa.String(128)),
        sa.Column("expires_at", sa.String(32)),
    )
    _index("disputes", "position", "task")


def _items() -> None:
    version = sa.ForeignKey("guidelines.version", name="fk_guideline_history_version")
    op.create_table(
        "guideline_history",
        _seq(),
        _text("task", 64),
        sa.Column("version", sa.String(32), version, nullable=False),
        _text("by", 128),
        _text("created_at", 32),
    )
    _index("guideline_history", "task")
    # Versions had no task; those that annotations were made under tell it.
    op.execute(
        'INSERT INTO guideline_history (task, version, "by", created_at) '
        "SELECT DISTINCT a.task, g.version, '', g.created_at "
        "FROM guidelines g JOIN annotations a ON a.guideline_version = g.version "
        "ORDER BY g.created_at"
    )
    op.create_table(
        "drafts",
        _seq(),
        _text("id", 32),
        _example_id("drafts"),
        _text("task", 64),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        _text("created_at", 32),
        sa.UniqueConstraint("id", name="uq_drafts_id"),
    )
    _index("drafts", "example_id", "task")
    op.create_table(
        "priorities",
        sa.Column("task", sa.String(64), primary_key=True),
        _example_id("priorities", primary_key=True),
        sa.Column("priority", sa.Float, nullable=False),
    )
    _index("priorities", "priority", "task")
    op.create_table(
        "assignments",
        sa.Column("task", sa.String(64), primary_key=True),
        _example_id("assignments", primary_key=True),
        sa.Column("annotator", sa.String(128), primary_key=True),
        _text("by", 128),
        _text("created_at", 32),
    )
    _index("assignments", "annotator", "task")
    op.create_table(
        "gold",
        sa.Column("task", sa.String(64), primary_key=True),
        _example_id("gold", primary_key=True),
        sa.Column("answer", sa.Text, nullable=False),
        _text("by", 128),
        _text("created_at", 32),
    )


def _people() -> None:
    op.create_table(
        "users",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("password_hash", sa.Text, nullable=False),
        _text("role", 16),
        sa.Column("active", sa.Boolean, nullable=False),
        _text("created_at", 32),
    )
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        _key("sessions", "user", "users.name"),
        _text("created_at", 32),
        _text("expires_at", 32),
    )
    _index("sessions", "user")
    _index("sessions", "expires_at")
    op.create_table(
        "tokens",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        _text("name", 64),
        _key("tokens", "user", "users.name"),
        _text("created_at", 32),
        sa.Column("expires_at", sa.String(32)),
    )
    _index("tokens", "user")
    op.create_table(
        "sign_in_failures",
        _seq(),
        _text("key", 160),
        _text("at", 32),
    )
    _index("sign_in_failures", "key")
    _index("sign_in_failures", "at")


def _webhooks() -> None:
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False),
        sa.Column("events", sa.Text, nullable=False),
        _text("created_at", 32),
    )
    webhook = sa.ForeignKey("webhooks.id", name="fk_deliveries_webhook_id")
    op.create_table(
        "deliveries",
        _seq(),
        _text("id", 32),
        sa.Column("webhook_id", sa.String(32), webhook, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        _text("next_at", 32),
        sa.UniqueConstraint("id", name="uq_deliveries_id"),
    )
    _index("deliveries", "next_at")
