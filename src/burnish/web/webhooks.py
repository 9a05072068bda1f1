"""/webhooks : which addresses are told of what, and what has not reached them; for admins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import RedirectResponse, Response

from burnish.errors import InputError
from burnish.label.webhooks import (
    EVENTS,
    Event,
    make_webhook,
    read_webhook_config,
    send_test,
)
from burnish.project import utc_now
from burnish.store.webhooks import (
    count_deliveries,
    find_webhook,
    read_deliveries,
    read_webhooks,
    remove_webhook,
    retry_deliveries,
)
from burnish.web.identity import person_of
from burnish.web.site import Site

_SHOWN = 50


def webhook_pages(site: Site) -> APIRouter:
    """Every webhook, one webhook, and what an admin can do about them."""
    router = APIRouter()

    @router.get("/webhooks")
    def webhooks(request: Request) -> Response:
        return every_webhook(request)

    @router.post("/webhooks")
    def add(
        request: Request,
        url: Annotated[str, Form(max_length=2000)],
        events: Annotated[list[Event], Form(default_factory=list)],
    ) -> Response:
        """The page that answers is the only place where the secret is ever shown."""
        config, actor = read_webhook_config(site.project), person_of(request).name
        try:
            webhook = make_webhook(site.store, url, events, actor=actor, config=config)
        except InputError as error:
            return every_webhook(request, fault=str(error), url=url, chosen=events)
        return one_webhook(request, webhook.id, secret=webhook.secret)

    @router.get("/webhooks/{webhook_id}")
    def webhook(request: Request, webhook_id: str) -> Response:
        return one_webhook(request, webhook_id)

    @router.post("/webhooks/{webhook_id}/test")
    def test(webhook_id: str) -> Response:
        if not send_test(site.store, webhook_id):
            raise _no_webhook(webhook_id)
        return RedirectResponse(f"/webhooks/{webhook_id}", 303)

    @router.post("/webhooks/{webhook_id}/retry")
    def retry(webhook_id: str) -> Response:
        with site.store.writing() as connection:
            retry_deliveries(connection, webhook_id, now=utc_now())
        return RedirectResponse(f"/webhooks/{webhook_id}", 303)

    @router.post("/webhooks/{webhook_id}/remove")
    def remove(request: Request, webhook_id: str) -> Response:
        with site.store.writing() as connection:
            remove_webhook(connection, webhook_id, actor=person_of(request).name)
        return RedirectResponse("/webhooks", 303)

    def every_webhook(
        request: Request, *, fault: str | None = None, url: str = "", chosen: Sequence[Event] = ()
    ) -> Response:
        """With a `fault`, what was filled in stays."""
        with site.store.reading() as connection:
            counts = count_deliveries(connection)
            rows = [(webhook, counts[webhook.id]) for webhook in read_webhooks(connection)]
        data = {"rows": rows, "events": EVENTS, "fault": fault, "url": url, "chosen": chosen}
        return site.page(request, "webhooks.html", data, 422 if fault else 200)

    def one_webhook(request: Request, webhook_id: str, secret: str | None = None) -> Response:
        with site.store.reading() as connection:
            found = find_webhook(connection, webhook_id)
            shown = read_deliveries(connection, webhook_id, limit=_SHOWN)
            counted = count_deliveries(connection)[webhook_id]
        if found is None:
            raise _no_webhook(webhook_id)
        data = {"webhook": found, "deliveries": shown, "undelivered": counted, "secret": secret}
        return site.page(request, "webhook.html", data)

    return router


def _no_webhook(webhook_id: str) -> HTTPException:
    return HTTPException(404, f"there is no webhook {webhook_id!r}")
