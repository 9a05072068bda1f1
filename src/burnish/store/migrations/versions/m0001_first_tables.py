"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Everything the stages collect to snapshot need, and the log."""
    _examples()
    _labelling()
    _audit()
    op.create_table(
        "log",
        sa.Column("seq", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(128), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("payload", sa.Text, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )


def _seq() -> sa.Column[int]:
    return sa.Column("seq", sa.Integer, primary_key=True, autoincrement=True)


def _example_id(table: str, *, primary_key: bool = False) -> sa.Column[str]:
    key = sa.ForeignKey("examples.id", name=f"fk_{table}_example_id")
    return sa.Column("example_id", sa.String(32), key, nullable=False, primary_key=primary_key)


def _index(table: str, *columns: str) -> None:
    op.create_index(f"ix_{table}_{'_'.join(columns)}", table, list(columns))


def _examples() -> None:
    op.create_table(
        "examples",
        _seq(),
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("conversation", sa.Text, nullable=False),
        sa.Column("conversation_hash", sa.String(32), nullable=False),
        sa.Column("prompt_hash", sa.String(32), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("weight", sa.Float, nullable=False),
        sa.Column("licence", sa.Text),
        sa.Column("consent", sa.Text),
        sa.Column("received_at", sa.String(32), nullable=False),
        sa.Column("parent", sa.String(32)),
        sa.UniqueConstraint("id", name="uq_examples_id"),
    )
    for column in ("conversation_hash", "prompt_hash", "source", "parent"):
        _index("examples", column)
    op.create_table(
        "example_subjects",
        _example_id("example_subjects", primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("subject_id", sa.Text, nullable=False),
    )
    _index("example_subjects", "subject_id")


def _labelling() -> None:
    op.create_table(
        "annotations",
        _seq(),
        sa.Column("client_id", sa.String(128), nullable=False),
        _example_id("annotations"),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("annotator", sa.String(128), nullable=False),
        sa.Column("guideline_version", sa.String(32), nullable=False),
        sa.Column("seconds", sa.Float),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
        sa.UniqueConstraint("client_id", name="uq_annotations_client_id"),
    )
    _index("annotations", "example_id", "task", "annotator")
    _index("annotations", "task", "annotator")
    op.create_table(
        "leases",
        _seq(),
        _example_id("leases"),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("annotator", sa.String(128), nullable=False),
        sa.Column("expires_at", sa.String(32), nullable=False),
        sa.UniqueConstraint("example_id", "task", "slot", name="uq_leases_example_id_task_slot"),
        sa.UniqueConstraint(
            "example_id", "task", "annotator", name="uq_leases_example_id_task_annotator"
        ),
    )
    _index("leases", "expires_at")
    op.create_table(
        "guidelines",
        sa.Column("version", sa.String(32), primary_key=True),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    op.create_table(
        "resolutions",
        _seq(),
        _example_id("resolutions"),
        sa.Column("task", sa.String(64), nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("annotation_ids", sa.Text, nullable=False),
        sa.Column("resolved_by", sa.String(128), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
    _index("resolutions", "example_id", "task")


def _audit() -> None:
    op.create_table(
        "findings",
        _seq(),
        sa.Column("check", sa.String(64), nullable=False),
        sa.Column("example_ids", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("fix", sa.Text),
        sa.Column("audited_at", sa.String(32), nullable=False),
    )
    _index("findings", "check")
    op.create_table(
        "exclusions",
        _example_id("exclusions", primary_key=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("by", sa.String(128), nullable=False),
        sa.Column("created_at", sa.String(32), nullable=False),
    )
