"""Who is told of what happens, and what has not reached them yet. Times are ISO 8601 in UTC."""

from __future__ import annotations

import json
import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import Connection, Row, Select, delete, exists, func, insert, select, update

from burnish.hashing import canonical_json
from burnish.store.log import append_log
from burnish.store.tables import deliveries, webhooks


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that gets a signed POST for each of its events."""

    id: str
    url: str
    secret: str
    """`whsec_` and base64, as the Standard Webhooks specification writes it."""
    events: tuple[str, ...]
    created_at: str


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one webhook."""

    id: str
    """The same at every attempt, so that a receiver can drop what it has."""
    webhook: Webhook
    body: str
    attempts: int
    """Those that failed so far."""
    next_at: str | None
    """When it is sent next; None once it was given up."""
    fault: str | None
    """Why the last attempt failed."""

    @property
    def event(self) -> dict[str, Any]:
        """Type, timestamp and data."""
        return cast("dict[str, Any]", json.loads(self.body))


@dataclass(frozen=True, slots=True)
class Undelivered:
    """How many events have not reached a webhook."""

    waiting: int = 0
    """Those that will be tried again."""
    given_up: int = 0


def add_webhook(connection: Connection, webhook: Webhook, *, actor: str) -> None:
    """Keep a webhook."""
    row = {
        "id": webhook.id,
        "url": webhook.url,
        "secret": webhook.secret,
        "events": canonical_json(list(webhook.events)),
        "created_at": webhook.created_at,
    }
    connection.execute(insert(webhooks).values(row))
    append_log(connection, actor, "add webhook", {"id": webhook.id, "url": webhook.url})


def read_webhooks(connection: Connection) -> list[Webhook]:
    """Every webhook, oldest first."""
    query = select(webhooks).order_by(webhooks.c.created_at, webhooks.c.id)
    return [_to_webhook(row) for row in connection.execute(query)]


def find_webhook(connection: Connection, webhook_id: str) -> Webhook | None:
    """The webhook of that id, or None."""
    query = select(webhooks).where(webhooks.c.id == webhook_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _to_webhook(row)


def hold_webhooks(connection: Connection) -> list[Webhook]:
    """Every webhook; none of them goes before the transaction ends.

    Else what a removal at the same moment leaves behind would break the write that is told of.
    """
    query = select(webhooks).with_for_update(read=True, key_share=True)
    return [_to_webhook(row) for row in connection.execute(query)]


def remove_webhook(connection: Connection, webhook_id: str, *, actor: str) -> bool:
    """Forget a webhook and what has not reached it; False where there is none."""
    mine = select(webhooks.c.id).where(webhooks.c.id == webhook_id)
    connection.execute(mine.with_for_update()).all()
    connection.execute(delete(deliveries).where(deliveries.c.webhook_id == webhook_id))
    if not connection.execute(delete(webhooks).where(webhooks.c.id == webhook_id)).rowcount:
        return False
    append_log(connection, actor, "remove webhook", {"id": webhook_id})
    return True


def add_deliveries(
    connection: Connection, webhook_ids: Collection[str], bodies: Collection[str], *, next_at: str
) -> None:
    """Let every event be sent to each of these, in the transaction of what it tells about."""
    rows = [
        {
            "id": uuid.uuid4().hex,
            "webhook_id": webhook_id,
            "body": body,
            "attempts": 0,
            "next_at": next_at,
        }
        for body in bodies
        for webhook_id in webhook_ids
    ]
    connection.execute(insert(deliveries), rows)


def are_deliveries_due(connection: Connection, *, now: str) -> bool:
    """Whether anything waits to be sent."""
    return bool(connection.scalar(select(exists().where(deliveries.c.next_at <= now))))


def claim_deliveries(connection: Connection, *, now: str, until: str, limit: int) -> list[Delivery]:
    """Take up to `limit` due deliveries, oldest first; nobody else gets them before `until`."""
    query = (
        _deliveries()
        .where(deliveries.c.next_at <= now)
        .limit(limit)
        .with_for_update(of=deliveries, skip_locked=True)
    )
    claimed = [_to_delivery(row) for row in connection.execute(query)]
    ids = [delivery.id for delivery in claimed]
    connection.execute(update(deliveries).where(deliveries.c.id.in_(ids)).values(next_at=until))
    return claimed


def drop_delivery(connection: Connection, delivery: Delivery) -> None:
    """Forget a delivery that has arrived."""
    connection.execute(delete(deliveries).where(deliveries.c.id == delivery.id))


def keep_delivery(
    connection: Connection, delivery: Delivery, *, fault: str, next_at: str | None
) -> None:
    """Keep a delivery whose attempt failed: for `next_at`, or until somebody has it sent again."""
    mine = update(deliveries).where(deliveries.c.id == delivery.id)
    failed = {"attempts": delivery.attempts + 1, "fault": fault, "next_at": next_at}
    connection.execute(mine.values(failed))
    if next_at is None:
        payload = {"webhook": delivery.webhook.id, "fault": fault, "body": delivery.body}
        append_log(connection, "webhooks", "give up delivery", payload)


def retry_deliveries(connection: Connection, webhook_id: str, *, now: str) -> int:
    """Let all that has not reached a webhook be sent now, as if for the first time; how many."""
    mine = update(deliveries).where(deliveries.c.webhook_id == webhook_id)
    return connection.execute(mine.values(attempts=0, next_at=now)).rowcount


def read_deliveries(connection: Connection, webhook_id: str, *, limit: int) -> list[Delivery]:
    """What has not reached a webhook, oldest first."""
    query = _deliveries().where(deliveries.c.webhook_id == webhook_id).limit(limit)
    return [_to_delivery(row) for row in connection.execute(query)]


def count_deliveries(connection: Connection) -> Mapping[str, Undelivered]:
    """How much has not reached each webhook, by its id."""
    # NULL, as `next_at` is of what was given up, is not counted.
    counts = func.count(deliveries.c.next_at), func.count()
    query = select(deliveries.c.webhook_id, *counts).group_by(deliveries.c.webhook_id)
    return defaultdict(
        Undelivered,
        {
            webhook_id: Undelivered(waiting, kept - waiting)
            for webhook_id, waiting, kept in connection.execute(query)
        },
    )


def _deliveries() -> Select[Any]:
    return (
        select(
            deliveries.c.id.label("delivery_id"),
            *(deliveries.c[name] for name in ("body", "attempts", "next_at", "fault")),
            webhooks,
        )
        .join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
        .order_by(deliveries.c.seq)
    )


def _to_delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        row.delivery_id, _to_webhook(row), row.body, row.attempts, row.next_at, row.fault
    )


def _to_webhook(row: Row[Any]) -> Webhook:
    return Webhook(row.id, row.url, row.secret, tuple(json.loads(row.events)), row.created_at)
