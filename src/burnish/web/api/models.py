"""What the API takes and gives, where it is no dataclass of Burnish's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from fastapi import Path
from fastapi import Query as InQuery
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field

from burnish.chat.preview import Preview
from burnish.errors import InputError
from burnish.label.bulk import Chosen
from burnish.label.queue import Item
from burnish.store.drafts import Draft
from burnish.store.search import Page, Query, Status
from burnish.store.users import Role
from burnish.types import Annotation, Example

NO_NUL = r"^[^\x00]*$"
"""PostgreSQL's texts cannot hold NUL."""
EXAMPLE_ID = "^[0-9a-f]{32}$"
KEY_VALUE = r"^[^\x00=]+=[^\x00]*$"

Text = Annotated[str, Field(pattern=NO_NUL)]
Name = Annotated[str, Field(min_length=1, max_length=64, pattern=NO_NUL)]
ExampleId = Annotated[str, Field(pattern=EXAMPLE_ID)]
ExampleIds = Annotated[list[ExampleId], Field(min_length=1, max_length=10_000)]

InPath = Annotated[str, Path(pattern=NO_NUL, max_length=64)]
Who = Annotated[str | None, InQuery(min_length=1, max_length=64, pattern=NO_NUL)]
Price = Annotated[float | None, InQuery(gt=0, le=1e6, allow_inf_nan=False)]
ExampleInPath = Annotated[str, Path(pattern=EXAMPLE_ID)]


class Sent(BaseModel):
    """A body: no unknown keys, and no guessing at types."""

    model_config = ConfigDict(extra="forbid", strict=True)


def written(record: BaseModel, status: int = 200) -> Response:
    """A record as an answer, made in the thread that has it.

    Left to FastAPI, it is checked once more and passed on to another thread: 0.5 ms a request.
    """
    return Response(record.model_dump_json(), status, media_type="application/json")


class Problem(BaseModel):
    """Why a request was refused."""

    error: str = Field(description="What is wrong, and where it can be mended what to do.")


class Me(BaseModel):
    """Who the token or session stands for."""

    name: str
    role: Role


class ExampleRecord(BaseModel):
    """An example."""

    id: str
    messages: Sequence[Mapping[str, Any]] = Field(description="In OpenAI's form.")
    tools: str | None
    source: str
    metadata: Mapping[str, Any]
    licence: str | None
    received_at: str | None

    @classmethod
    def of(cls, example: Example) -> ExampleRecord:
        """As it is kept; loss weights and whose data it holds are nobody's business here."""
        record = example.conversation.to_json()
        return cls(
            id=example.id,
            messages=record["messages"],
            tools=record.get("tools"),
            source=example.source,
            metadata=example.metadata,
            licence=example.licence,
            received_at=example.received_at,
        )


class ItemRecord(BaseModel):
    """What an annotator is asked."""

    example: ExampleRecord
    drafts: Sequence[Draft]
    guideline_version: str = Field(description="To send with the answer; empty without guidelines.")
    lease_expires_at: str = Field(description="Until then nobody else gets it.")
    previous: Annotation | None = Field(description="Your answer, if you have taken it back.")

    @classmethod
    def of(cls, item: Item, guideline_version: str) -> ItemRecord:
        """An item of the queue, and what is in force as it is given."""
        return cls(
            example=ExampleRecord.of(item.example),
            drafts=item.drafts,
            guideline_version=guideline_version,
            lease_expires_at=item.lease_expires_at,
            previous=item.previous,
        )


class Answer(Sent):
    """An answer, a skip or a flag."""

    client_id: Annotated[str, Field(min_length=1, max_length=128, pattern=NO_NUL)] = Field(
        description="Made by you, such as a UUID: sent twice under one id, it is kept once."
    )
    example_id: ExampleId
    answer: Text = Field("", description="In the form of the task's kind; a note for a flag.")
    status: Literal["submitted", "skipped", "flagged"] = "submitted"
    seconds: float | None = Field(None, ge=0, le=1e9, allow_inf_nan=False)
    guideline_version: Annotated[str, Field(max_length=32, pattern=NO_NUL)] = Field(
        "", description="What `next` gave; the version now in force where it is left out."
    )
    draft_id: Annotated[str, Field(max_length=32, pattern=NO_NUL)] | None = Field(
        None, description="The draft you began from."
    )


class Submission(BaseModel):
    """What became of an answer."""

    annotation: Annotation
    is_new: bool = Field(description="False for one that had arrived before.")


class Written(Sent):
    """What there is of an answer so far."""

    example_id: ExampleId
    answer: Text


class TokenPreview(BaseModel):
    """Rows of training."""

    rows: Sequence[Preview] = Field(description="Empty for what is left out of training.")
    max_length: int = Field(description="Tokens a row may have; `kept` says how many it keeps.")


class Decision(Sent):
    """How a person settles an example."""

    example_id: ExampleId
    answer: Text


class DisputeRecord(BaseModel):
    """An example that waits for a reviewer."""

    example: ExampleRecord
    annotations: Sequence[Annotation] = Field(
        description="Everybody's newest; none where the task's review is blind."
    )


class Skipped(Sent):
    """Where a reviewer goes on."""

    after: ExampleId | None = Field(None, description="An example to leave to others for now.")


class Count(BaseModel):
    """How many there are."""

    count: int


class Added(BaseModel):
    """How many were new."""

    added: int


class SearchQuery(BaseModel):
    """What to look for; everything that is given must hold."""

    model_config = ConfigDict(extra="forbid")

    text: Text = Field("", description='Words, "phrases", prefix* and -exclusions.')
    where: list[Annotated[str, Field(pattern=KEY_VALUE)]] = Field(
        [], description="KEY=VALUE of the metadata; KEY may be `outer.inner`."
    )
    source: Text | None = None
    status: Status | None = None
    annotator: Text | None = None
    task: Text | None = None
    after: int = Field(0, ge=0, le=2**31 - 1, description="`seq` of the last example before.")
    limit: int = Field(50, ge=1, le=500)

    def query(self) -> Query:
        """As the store takes it."""
        values = self.model_dump()
        values["where"] = dict(pair.split("=", 1) for pair in self.where)
        return Query(**values)


class FoundRecord(BaseModel):
    """An example that a search has found."""

    seq: int
    id: str
    messages: Sequence[Mapping[str, Any]]
    source: str
    metadata: Mapping[str, Any]
    received_at: str
    excluded: str | None


class ExamplePage(BaseModel):
    """Some of what a search has found."""

    rows: Sequence[FoundRecord]
    more: bool = Field(description="Whether another page follows, `after` the last row's `seq`.")
    count: int = Field(description="How many match, counted up to 1000.")

    @classmethod
    def of(cls, page: Page) -> ExamplePage:
        """A page of the store's search."""
        rows = [
            FoundRecord(
                seq=row.seq,
                id=row.id,
                messages=row.conversation.to_json()["messages"],
                source=row.source,
                metadata=row.metadata,
                received_at=row.received_at,
                excluded=row.excluded,
            )
            for row in page.rows
        ]
        return cls(rows=rows, more=page.more, count=page.count)


class Selection(Sent):
    """Some examples: by id, whatever a search finds, or every one there is."""

    example_ids: ExampleIds | None = None
    found_by: SearchQuery | None = Field(
        None, description="With a condition; `task`, `after` and `limit` are none."
    )
    everything: bool = Field(False, description="Every example of the project.")

    @property
    def chosen(self) -> Chosen:
        """As `label.bulk` takes it."""
        if (self.example_ids is not None) + (self.found_by is not None) + self.everything != 1:
            raise InputError(
                "example_ids, found_by or everything chooses the examples", do="send one of them"
            )
        if self.example_ids is not None:
            return self.example_ids
        query = self.found_by.query() if self.found_by else Query()
        if query.finds_everything and not self.everything:
            raise InputError(
                "found_by has no condition and would find every example",
                do='if that is meant, send "everything": true instead',
            )
        return query


class Exclusion(Selection):
    """Examples to keep out, and why."""

    reason: Annotated[str, Field(min_length=1, pattern=NO_NUL)]


class Assignment(Selection):
    """Examples and who shall answer them."""

    annotators: list[Name] = Field(min_length=1, max_length=1000)


class ExampleList(Sent):
    """Some examples, by id."""

    example_ids: ExampleIds


class Priority(Selection):
    """Examples, and one priority for all of them."""

    priority: float = Field(allow_inf_nan=False)


class GoldItems(Selection):
    """Examples whose answer is known."""

    answer: Text | None = Field(None, description="None: the one each has, decided or agreed on.")


class Priorities(Sent):
    """Examples and how soon they are asked about."""

    priorities: dict[ExampleId, Annotated[float, Field(allow_inf_nan=False)]] = Field(
        min_length=1, max_length=10_000, description="The highest comes first; without one, last."
    )


class Ordering(Sent):
    """An order for the whole queue."""

    by: Literal["arrival", "disagreement", "diversity"]


class Gold(Sent):
    """Examples and their known answers."""

    answers: dict[ExampleId, Text] = Field(min_length=1, max_length=10_000)


class NewDraft(Sent):
    """One proposal."""

    example_id: ExampleId
    text: Annotated[str, Field(min_length=1, pattern=NO_NUL)]


class NewDrafts(Sent):
    """What a model proposes."""

    model: Annotated[str, Field(min_length=1, max_length=200, pattern=NO_NUL)]
    drafts: list[NewDraft] = Field(min_length=1, max_length=10_000)


class NewExample(Sent):
    """One example."""

    messages: list[dict[str, Any]] = Field(min_length=1, description="In OpenAI's form.")
    metadata: dict[str, Any] = {}
    licence: Text | None = None


class NewExamples(Sent):
    """Examples to add."""

    source: Annotated[str, Field(min_length=1, max_length=1000, pattern=NO_NUL)] = Field(
        description="Where they came from."
    )
    examples: list[NewExample] = Field(min_length=1, max_length=10_000)


class GuidelinesText(Sent):
    """New guidelines."""

    text: Text
    instead_of: Text = Field(description="The version you changed; another one is refused.")


class NewUser(Sent):
    """Somebody to let in."""

    name: Name
    password: Text = Field(description="10 characters or more.")
    role: Role = "annotator"


class UserChange(Sent):
    """What to change about a person; every session of theirs ends."""

    role: Role | None = None
    password: Text | None = None


class NewToken(Sent):
    """A token to make."""

    name: Name = Field(description="What it is for.")
    days: int | None = Field(None, ge=1, le=3650, description="None: until it is removed.")


class TokenSecret(BaseModel):
    """A new token, told this once."""

    token: str
