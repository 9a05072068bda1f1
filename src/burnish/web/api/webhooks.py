"""Webhooks over the API: the routes, which are an admin's alone, with their bodies and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, Field

from burnish.label.webhooks import Event, make_webhook, read_webhook_config, send_test
from burnish.project import utc_now
from burnish.store.webhooks import (
    Delivery,
    Undelivered,
    Webhook,
    count_deliveries,
    find_webhook,
    read_deliveries,
    read_webhooks,
    remove_webhook,
    retry_deliveries,
)
from burnish.web.api.models import Count, InPath, Sent
from burnish.web.identity import person_of
from burnish.web.site import Site


class NewWebhook(Sent):
    """An address to tell."""

    url: Annotated[str, Field(max_length=2000)]
    events: list[Event] = Field(min_length=1)


class WebhookRecord(BaseModel):
    """A webhook, without its secret."""

    id: str
    url: str
    events: Sequence[str]
    created_at: str
    waiting: int = Field(description="How many events have not reached it yet.")
    given_up: int = Field(description="How many are not tried again by themselves.")

    @classmethod
    def of(cls, webhook: Webhook, undelivered: Undelivered) -> WebhookRecord:
        """What may be told of it."""
        return cls(
            id=webhook.id,
            url=webhook.url,
            events=webhook.events,
            created_at=webhook.created_at,
            waiting=undelivered.waiting,
            given_up=undelivered.given_up,
        )


class DeliveryRecord(BaseModel):
    """An event that has not reached a webhook."""

    id: str = Field(description="The header `webhook-id` of every attempt.")
    event: Mapping[str, Any] = Field(description="The body: type, timestamp and data.")
    attempts: int = Field(description="Those that failed so far.")
    next_at: str | None = Field(description="When it is sent next; null once it was given up.")
    fault: str | None = Field(description="Why the last attempt failed.")

    @classmethod
    def of(cls, delivery: Delivery) -> DeliveryRecord:
        """What an admin may see of it."""
        return cls(
            id=delivery.id,
            event=delivery.event,
            attempts=delivery.attempts,
            next_at=delivery.next_at,
            fault=delivery.fault,
        )


class WebhookSecret(BaseModel):
    """A new webhook and the secret it verifies signatures with, told this once."""

    id: str
    secret: str

    @classmethod
    def of(cls, webhook: Webhook) -> WebhookSecret:
        """What its maker needs."""
        return cls(id=webhook.id, secret=webhook.secret)


def webhook_routes(site: Site) -> APIRouter:
    """The routes of webhooks."""
    router = APIRouter()

    @router.get("/webhooks")
    def webhooks() -> list[WebhookRecord]:
        """Who is told of what."""
        with site.store.reading() as connection:
            counts = count_deliveries(connection)
            return [
                WebhookRecord.of(webhook, counts[webhook.id])
                for webhook in read_webhooks(connection)
            ]

    @router.post("/webhooks", status_code=201)
    def add_webhook(request: Request, sent: NewWebhook) -> WebhookSecret:
        """Have events sent to an address, signed with the secret that comes back."""
        webhook = make_webhook(
            site.store,
            sent.url,
            sent.events,
            actor=person_of(request).name,
            config=read_webhook_config(site.project),
        )
        return WebhookSecret.of(webhook)

    @router.get("/webhooks/{webhook}/deliveries")
    def deliveries(
        webhook: InPath, limit: Annotated[int, Query(ge=1, le=500)] = 50
    ) -> list[DeliveryRecord]:
        """What has not reached it, oldest first."""
        with site.store.reading() as connection:
            if find_webhook(connection, webhook) is None:
                raise _no_webhook(webhook)
            found = read_deliveries(connection, webhook, limit=limit)
        return [DeliveryRecord.of(delivery) for delivery in found]

    @router.post("/webhooks/{webhook}/test", status_code=204)
    def test_webhook(webhook: InPath) -> Response:
        """Send it the event `webhook.test`, whatever it asked for."""
        if not send_test(site.store, webhook):
            raise _no_webhook(webhook)
        return Response(status_code=204)

    @router.post("/webhooks/{webhook}/retry")
    def retry_webhook(webhook: InPath) -> Count:
        """Send now all that has not reached it, what was given up too."""
        with site.store.writing() as connection:
            if find_webhook(connection, webhook) is None:
                raise _no_webhook(webhook)
            return Count(count=retry_deliveries(connection, webhook, now=utc_now()))

    @router.delete("/webhooks/{webhook}", status_code=204)
    def forget_webhook(request: Request, webhook: InPath) -> Response:
        """Stop telling; what has not reached it is dropped."""
        with site.store.writing() as connection:
            if not remove_webhook(connection, webhook, actor=person_of(request).name):
                raise _no_webhook(webhook)
        return Response(status_code=204)

    return router


def _no_webhook(webhook_id: str) -> HTTPException:
    return HTTPException(404, f"there is no webhook {webhook_id!r}")
