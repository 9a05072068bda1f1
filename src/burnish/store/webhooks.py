"""Who is told of what happens, and what has not reached them yet. Times are ISO 8601 in UTC."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, exists, func, insert, select, update

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


def subscribed(connection: Connection, event: str) -> list[str]:
    """Ids of the webhooks that asked for an event; none of them goes before the transaction ends.

    Else what a removal at the same moment leaves behind would break the write that is told of.
    """
    query = select(webhooks).with_for_update(read=True, key_share=True)
    found = map(_to_webhook, connection.execute(query))
    return [webhook.id for webhook in found if event in webhook.events]


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
        select(
            deliveries.c.id.label("delivery_id"), deliveries.c.body, deliveries.c.attempts, webhooks
        )
        .join(webhooks, webhooks.c.id == deliveries.c.webhook_id)
        .where(deliveries.c.next_at <= now)
        .order_by(deliveries.c.seq)
        .limit(limit)
        .with_for_update(of=deliveries, skip_locked=True)
    )
    claimed = [
        Delivery(row.delivery_id, _to_webhook(row), row.body, row.attempts)
        for row in connection.execute(query)
    ]
    ids = [delivery.id for delivery in claimed]
    connection.execute(update(deliveries).where(deliveries.c.id.in_(ids)).values(next_at=until))
    return claimed


def settle_delivery(connection: Connection, delivery: Delivery, *, next_at: str | None) -> None:
    """Try again at `next_at`; None where it has arrived."""
    mine = deliveries.c.id == delivery.id
    if next_at is None:
        connection.execute(delete(deliveries).where(mine))
    else:
        again = update(deliveries).where(mine)
        connection.execute(again.values(attempts=delivery.attempts + 1, next_at=next_at))


def drop_delivery(connection: Connection, delivery: Delivery) -> None:
    """Give up on a delivery; the log keeps what was not told."""
    connection.execute(delete(deliveries).where(deliveries.c.id == delivery.id))
    payload: dict[str, Any] = {"webhook": delivery.webhook.id, "body": delivery.body}
    append_log(connection, "webhooks", "give up delivery", payload)


def count_deliveries(connection: Connection, webhook_id: str) -> int:
    """How many events have not reached a webhook yet."""
    query = select(func.count()).where(deliveries.c.webhook_id == webhook_id)
    return connection.scalar(query) or 0


def _to_webhook(row: Row[Any]) -> Webhook:
    return Webhook(row.id, row.url, row.secret, tuple(json.loads(row.events)), row.created_at)
