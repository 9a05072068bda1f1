"""The tables. Texts hold JSON in canonical form; times are ISO 8601 in UTC.

The order in `seq` is the order of arrival. Rows are added and never changed: an edit is a new
example, a second opinion a new annotation, and what may not be trained on is excluded with a reason
rather than deleted. Leases and findings alone come and go.

Files that name the table `annotations` do without `from __future__ import annotations`, which would
bind the same name.
"""

from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


def _seq() -> Column[int]:
    return Column("seq", Integer, primary_key=True, autoincrement=True)


def _example_id(*, primary_key: bool = False) -> Column[str]:
    return Column(
        "example_id",
        String(32),
        ForeignKey("examples.id"),
        nullable=False,
        primary_key=primary_key,
    )


examples = Table(
    "examples",
    metadata,
    _seq(),
    # Example.id, a content hash: collecting a file twice adds nothing.
    Column("id", String(32), nullable=False, unique=True),
    Column("conversation", Text, nullable=False),
    # Exact: Conversation.hash.
    Column("conversation_hash", String(32), nullable=False, index=True),
    # Blind to case and white space: records.fingerprint.prompt_fingerprint.
    Column("prompt_hash", String(32), nullable=False, index=True),
    Column("source", Text, nullable=False, index=True),
    Column("metadata", Text, nullable=False),
    Column("weight", Float, nullable=False),
    Column("licence", Text),
    Column("consent", Text),
    Column("received_at", String(32), nullable=False),
    # No foreign key: an edit may arrive before, or without, what it is an edit of.
    Column("parent", String(32), index=True),
)

example_subjects = Table(
    "example_subjects",
    metadata,
    _example_id(primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("subject_id", Text, nullable=False, index=True),
)

annotations = Table(
    "annotations",
    metadata,
    _seq(),
    # Made by the client before it sends, so a submit tried twice is one row.
    Column("client_id", String(128), nullable=False, unique=True),
    _example_id(),
    Column("task", String(64), nullable=False),
    Column("answer", Text, nullable=False),
    Column("annotator", String(128), nullable=False),
    Column("guideline_version", String(32), nullable=False),
    Column("seconds", Float),
    Column("status", String(16), nullable=False),
    Column("created_at", String(32), nullable=False),
    # Not unique: imported history may hold an annotator's first and second thoughts.
    Index(None, "example_id", "task", "annotator"),
    Index(None, "task", "annotator"),
)

leases = Table(
    "leases",
    metadata,
    _seq(),
    _example_id(),
    Column("task", String(64), nullable=False),
    Column("slot", Integer, nullable=False),
    Column("annotator", String(128), nullable=False),
    Column("expires_at", String(32), nullable=False, index=True),
    # Exact overlap rests on these two: a slot has one holder, a person holds one slot.
    UniqueConstraint("example_id", "task", "slot"),
    UniqueConstraint("example_id", "task", "annotator"),
)

guidelines = Table(
    "guidelines",
    metadata,
    # Content hash of the text.
    Column("version", String(32), primary_key=True),
    Column("text", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
)

resolutions = Table(
    "resolutions",
    metadata,
    _seq(),
    _example_id(),
    Column("task", String(64), nullable=False),
    Column("answer", Text, nullable=False),
    # JSON list of the annotations' client ids the decision rests on.
    Column("annotation_ids", Text, nullable=False),
    Column("resolved_by", String(128), nullable=False),
    Column("created_at", String(32), nullable=False),
    Index(None, "example_id", "task"),
)

findings = Table(
    "findings",
    metadata,
    _seq(),
    Column("check", String(64), nullable=False, index=True),
    # JSON list.
    Column("example_ids", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("fix", Text),
    Column("audited_at", String(32), nullable=False),
)

exclusions = Table(
    "exclusions",
    metadata,
    _example_id(primary_key=True),
    Column("reason", Text, nullable=False),
    Column("by", String(128), nullable=False),
    Column("created_at", String(32), nullable=False),
)

log = Table(
    "log",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", String(32), nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("payload", Text, nullable=False),
    # SHA-256 over the hash before it and this entry, 64 hex digits.
    Column("hash", String(64), nullable=False),
)
