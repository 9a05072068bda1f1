"""The tables. Texts hold JSON in canonical form; times are ISO 8601 in UTC.

The order in `seq` is the order of arrival. Rows are added and never changed: an edit is a new
example, a second opinion a new annotation, and what may not be trained on is excluded with a reason
rather than deleted. Leases, findings, what orders the queue, and who may sign in come and go; queue
and disputes are derived from the others.

No index but a primary key begins with `task`: where a thousand examples of one task are asked for,
SQLite, which keeps no statistics here, would rather walk through all of the task.

Files that name the table `annotations` do without `from __future__ import annotations`, which would
bind the same name.
"""

from sqlalchemy import (
    Boolean,
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
    Column("conversation_hash", String(32), nullable=False),
    # Blind to case and white space: records.fingerprint.prompt_fingerprint.
    Column("prompt_hash", String(32), nullable=False, index=True),
    Column("source", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("weight", Float, nullable=False),
    Column("licence", Text),
    Column("consent", Text),
    Column("received_at", String(32), nullable=False),
    # No foreign key: an edit may arrive before, or without, what it is an edit of.
    Column("parent", String(32)),
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
    # The draft the annotator began from (drafts.id), and how far the answer is from it, 0 to 1.
    Column("draft_id", String(32)),
    Column("edit_distance", Float),
    # Not unique: imported history may hold an annotator's first and second thoughts.
    Index(None, "example_id", "task", "annotator"),
    # Holds all that counting an annotator's examples needs.
    Index(None, "annotator", "task", "status", "example_id"),
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

# Whose lease on what has run out: their answer is kept however late it comes.
expired_leases = Table(
    "expired_leases",
    metadata,
    _example_id(primary_key=True),
    Column("task", String(64), primary_key=True),
    Column("annotator", String(128), primary_key=True),
)

# What is asked next, found through an index however much is done; told in queue.py.
queue = Table(
    "queue",
    metadata,
    _example_id(primary_key=True),
    Column("task", String(64), primary_key=True),
    # `all`, `assigned`, `gold`, or `to:` and an annotator's name.
    Column("lane", String(131), primary_key=True),
    # The example's seq.
    Column("position", Integer, nullable=False),
    # Its priority with the sign changed; the largest number where it has none.
    Column("rank", Float, nullable=False),
    # How many leases there are on it, live or answered.
    Column("taken", Integer, nullable=False),
    # Flagged, resolved or excluded: nobody is asked.
    Column("closed", Boolean, nullable=False),
    Index(None, "lane", "task", "closed", "taken", "rank", "position"),
)

# Up to this seq every example has its row in the queue.
queue_marks = Table(
    "queue_marks",
    metadata,
    Column("task", String(64), primary_key=True),
    Column("position", Integer, nullable=False),
)

# Examples a reviewer must look at, and the reviewer who is doing so; told in disputes.py.
disputes = Table(
    "disputes",
    metadata,
    _example_id(primary_key=True),
    Column("task", String(64), primary_key=True),
    # The example's seq.
    Column("position", Integer, nullable=False),
    Column("reviewer", String(128)),
    Column("expires_at", String(32)),
    Index(None, "position", "task"),
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

guideline_history = Table(
    "guideline_history",
    metadata,
    _seq(),
    Column("task", String(64), nullable=False),
    Column("version", String(32), ForeignKey("guidelines.version"), nullable=False),
    Column("by", String(128), nullable=False),
    Column("created_at", String(32), nullable=False),
    Index(None, "task"),
)

# What a model proposed; candidates of `rank` are an example's drafts in order of arrival.
drafts = Table(
    "drafts",
    metadata,
    _seq(),
    # Content hash of example, task, text and model.
    Column("id", String(32), nullable=False, unique=True),
    _example_id(),
    Column("task", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Index(None, "example_id", "task"),
)

# Which examples come first; those without a row come after, in order of arrival.
priorities = Table(
    "priorities",
    metadata,
    Column("task", String(64), primary_key=True),
    _example_id(primary_key=True),
    Column("priority", Float, nullable=False),
    Index(None, "priority", "task"),
)

# Where an example has any, only these people get it.
assignments = Table(
    "assignments",
    metadata,
    Column("task", String(64), primary_key=True),
    _example_id(primary_key=True),
    Column("annotator", String(128), primary_key=True),
    Column("by", String(128), nullable=False),
    Column("created_at", String(32), nullable=False),
    Index(None, "annotator", "task"),
)

# Examples whose answer is known: everybody gets them, nobody can tell.
gold = Table(
    "gold",
    metadata,
    Column("task", String(64), primary_key=True),
    _example_id(primary_key=True),
    Column("answer", Text, nullable=False),
    Column("by", String(128), nullable=False),
    Column("created_at", String(32), nullable=False),
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

users = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),
    # argon2id, with its own salt and parameters (RFC 9106).
    Column("password_hash", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created_at", String(32), nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    # SHA-256 of the cookie: who reads the table cannot sign in with it.
    Column("token_hash", String(64), primary_key=True),
    Column("user", String(64), ForeignKey("users.name"), nullable=False, index=True),
    Column("created_at", String(32), nullable=False),
    Column("expires_at", String(32), nullable=False, index=True),
)

# What programs sign in with.
tokens = Table(
    "tokens",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("name", String(64), nullable=False),
    Column("user", String(64), ForeignKey("users.name"), nullable=False, index=True),
    Column("created_at", String(32), nullable=False),
    Column("expires_at", String(32)),
)

sign_in_failures = Table(
    "sign_in_failures",
    metadata,
    _seq(),
    # `user:NAME` or `address:IP`.
    Column("key", String(160), nullable=False, index=True),
    Column("at", String(32), nullable=False, index=True),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),
    # JSON list of event names.
    Column("events", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
)

# Written in the transaction of what they tell about, so that none is lost; gone when delivered.
# What was given up has no `next_at`.
deliveries = Table(
    "deliveries",
    metadata,
    _seq(),
    Column("id", String(32), nullable=False, unique=True),
    Column("webhook_id", String(32), ForeignKey("webhooks.id"), nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_at", String(32), index=True),
    # Why the last attempt failed.
    Column("fault", Text),
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
