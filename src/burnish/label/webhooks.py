"""Tell other systems what happens here: signed, at least once, after the fact is kept.

`announce` writes into the transaction of what it tells about, so nothing is told that did not
happen, and nothing that happened goes untold; one thread of each studio process sends. Form,
signature and the times of retries are those of the Standard Webhooks specification
(github.com/standard-webhooks/standard-webhooks):

    POST url
    webhook-id: the delivery's id, the same at every attempt
    webhook-timestamp: seconds since 1970
    webhook-signature: v1,base64(HMAC-SHA256(secret, "id.timestamp.body"))

    {"type": "annotation.created", "timestamp": "2026-01-05T12:00:00.000+00:00", "data": {...}}

Deliveries may arrive twice and out of order.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import logging
import secrets
import socket
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from burnish.config import build_config
from burnish.errors import ConfigError, InputError
from burnish.hashing import canonical_json
from burnish.project import Project, timestamp, utc_now
from burnish.store import Connection, Store
from burnish.store.webhooks import (
    Delivery,
    Webhook,
    add_deliveries,
    add_webhook,
    are_deliveries_due,
    claim_deliveries,
    drop_delivery,
    hold_webhooks,
    keep_delivery,
)

if TYPE_CHECKING:
    import httpx

Event = Literal["annotation.created", "annotation.withdrawn", "example.resolved", "labels.exported"]
EVENTS: tuple[Event, ...] = get_args(Event)

# Seconds from one attempt to the next, about three days in all (the specification's example).
_DELAYS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
_TIMEOUT = 10.0
_BATCH = 20
# Longer than a batch of timeouts, so that two processes do not send the same.
_CLAIMED = timedelta(seconds=_BATCH * _TIMEOUT * 1.5)
_POLL = 1.0

# What clouds tell their machines at addresses that are not link-local: AWS over IPv6, Alibaba,
# Azure, Oracle.
_METADATA = {
    ipaddress.ip_address(address)
    for address in ("fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192")
}

_IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
_AddressInfo = tuple[Any, Any, int, str, tuple[Any, ...]]
"""What `socket.getaddrinfo` returns."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """Settings under `[webhooks]` in burnish.toml."""

    allow: tuple[str, ...] = ()
    """Networks, such as `169.254.10.0/24`, that may be sent to although they are link-local or
    hold a cloud's metadata: what answers there often trusts whoever can reach it."""

    def __post_init__(self) -> None:
        """Refuse what is no network."""
        for network in self.allow:
            try:
                ipaddress.ip_network(network)
            except ValueError as error:
                raise ConfigError(f"allow: {error}", do="write it as 169.254.10.0/24") from error


# Nothing is allowed that is guarded.
_GUARDED = WebhookConfig()


def read_webhook_config(project: Project) -> WebhookConfig:
    """The settings under `[webhooks]`.

    Raises:
        ConfigError: an unknown key, or what is no network.
    """
    return build_config(WebhookConfig, project.table("webhooks"), where="[webhooks]")


def announce(connection: Connection, event: Event, *data: Mapping[str, Any]) -> None:
    """Tell every webhook that asked for this event, once the open transaction is kept.

    Of an event that happened several times, `data` once for each.
    """
    asked = [webhook.id for webhook in hold_webhooks(connection) if event in webhook.events]
    _tell(connection, asked, event, data)


def send_test(store: Store, webhook_id: str) -> bool:
    """Send a webhook the event `webhook.test`, whatever it asked for; False where there is none."""
    with store.writing() as connection:
        asked = [webhook.id for webhook in hold_webhooks(connection) if webhook.id == webhook_id]
        _tell(connection, asked, "webhook.test", [{}])
    return bool(asked)


def _tell(
    connection: Connection, ids: Collection[str], event: str, data: Collection[Mapping[str, Any]]
) -> None:
    if ids and data:
        now = utc_now()
        bodies = [canonical_json({"type": event, "timestamp": now, "data": dict(d)}) for d in data]
        add_deliveries(connection, ids, bodies, next_at=now)


def make_webhook(
    store: Store,
    url: str,
    events: Collection[Event],
    *,
    actor: str,
    config: WebhookConfig = _GUARDED,
) -> Webhook:
    """Keep a webhook with a new secret.

    Raises:
        InputError: no http or https URL with a host, an address nothing is sent to, or no event.
    """
    _check_url(url, config)
    if not events:
        raise InputError("a webhook needs an event", do=f"name some of {', '.join(EVENTS)}")
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    wanted = tuple(event for event in EVENTS if event in events)
    webhook = Webhook(uuid.uuid4().hex, url, secret, wanted, utc_now())
    with store.writing() as connection:
        add_webhook(connection, webhook, actor=actor)
    return webhook


def _check_url(url: str, config: WebhookConfig) -> None:
    import httpx

    try:
        parts = httpx.URL(url)
    except httpx.InvalidURL:
        parts = httpx.URL("")
    has_port = 0 < (parts.port or 80) < 65536
    if parts.scheme not in ("http", "https") or not parts.host or not has_port:
        raise InputError(f"no webhook's URL: {url[:200]!r}", do="write https://HOST/PATH")
    try:
        found = socket.getaddrinfo(parts.host, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return  # a name, which is looked up when something is sent
    _check_addresses(parts.host, found, config)


def signature(secret: str, delivery_id: str, timestamp: int, body: str) -> str:
    """The header `webhook-signature`; `secret` is `whsec_` and base64."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = hmac.digest(key, f"{delivery_id}.{timestamp}.{body}".encode(), hashlib.sha256)
    return "v1," + base64.b64encode(signed).decode()


@contextmanager
def sending_webhooks(store: Store, config: WebhookConfig) -> Iterator[None]:
    """Send what is due from a thread of its own while the block runs."""
    stop = threading.Event()

    def send_until_stopped() -> None:
        while not stop.wait(_POLL):
            try:
                while not stop.is_set() and send_due(store, config, now=datetime.now(UTC)):
                    pass
            except Exception as error:
                # A full disk, a database that restarts: what is due stays due, and is tried again.
                _logger.warning("webhooks wait: %s", str(error).partition("\n")[0])
                stop.wait(_TIMEOUT)

    thread = threading.Thread(target=send_until_stopped, name="burnish-webhooks", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_TIMEOUT)


def send_due(store: Store, config: WebhookConfig, *, now: datetime) -> int:
    """Try each delivery of a batch that is due, and return how many there were.

    A webhook that cannot be reached is not tried again in the batch: its other deliveries wait.
    """
    with store.reading() as connection:
        if not are_deliveries_due(connection, now=timestamp(now)):
            return 0
    with store.writing() as connection:
        until = timestamp(now + _CLAIMED)
        batch = claim_deliveries(connection, now=timestamp(now), until=until, limit=_BATCH)
    faults = _send_batch(batch, config, now)
    with store.writing() as connection:
        for delivery in batch:
            fault = faults.get(delivery.id)
            if fault is None:
                drop_delivery(connection, delivery)
            else:
                left = _DELAYS[delivery.attempts :]
                next_at = timestamp(now + timedelta(seconds=left[0])) if left else None
                keep_delivery(connection, delivery, fault=fault, next_at=next_at)
    return len(batch)


def _send_batch(
    batch: Collection[Delivery], config: WebhookConfig, now: datetime
) -> dict[str, str]:
    """Ids of those that did not arrive, and why."""
    import httpx  # 0.1 s, which a studio that tells nobody need not wait for

    faults: dict[str, str] = {}
    unreachable: dict[str, str] = {}
    # No connection is kept: it was opened, and its certificate checked, for one webhook's host.
    limits = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(trust_env=False, timeout=_TIMEOUT, limits=limits) as client:
        for delivery in batch:
            webhook_id = delivery.webhook.id
            if webhook_id in unreachable:
                faults[delivery.id] = unreachable[webhook_id]
                continue
            try:
                response = client.send(_request(client, delivery, config, now), stream=True)
                response.close()  # what it says, however long, does not matter
            except (httpx.TransportError, InputError) as error:
                fault = unreachable[webhook_id] = str(error) or type(error).__name__
            else:
                fault = "" if response.is_success else f"answered {response.status_code}"
            if fault:
                _logger.warning("webhook %s: %s", webhook_id, fault)
                faults[delivery.id] = fault
    return faults


def _request(
    client: httpx.Client, delivery: Delivery, config: WebhookConfig, now: datetime
) -> httpx.Request:
    url = client.base_url.join(delivery.webhook.url)
    at = int(now.timestamp())
    signed = signature(delivery.webhook.secret, delivery.id, at, delivery.body)
    port = url.port or (443 if url.scheme == "https" else 80)
    return client.build_request(
        "POST",
        # The address that was checked is the one connected to: a name could change in between.
        url.copy_with(host=_checked_address(url.host, port, config)),
        content=delivery.body.encode(),
        headers={
            "content-type": "application/json",
            "host": url.netloc.decode(),
            "webhook-id": delivery.id,
            "webhook-timestamp": str(at),
            "webhook-signature": signed,
        },
        extensions={"sni_hostname": url.host},
    )


def _checked_address(host: str, port: int, config: WebhookConfig) -> str:
    """An address of the host, all of which may be sent to."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InputError(f"the name {host!r} is not known ({error})") from error
    return _check_addresses(host, found, config)


def _check_addresses(host: str, found: Sequence[_AddressInfo], config: WebhookConfig) -> str:
    """The first of the addresses, all of which may be sent to."""
    addresses = [ipaddress.ip_address(info[4][0]) for info in found]
    allowed = [ipaddress.ip_network(network) for network in config.allow]
    for address in addresses:
        if _is_guarded(address) and not any(address in network for network in allowed):
            raise InputError(
                f"{host!r} leads to {address}, which may give away this machine's credentials",
                do="if that is meant, list its network under `allow` in [webhooks] of burnish.toml",
            )
    return str(addresses[0])


def _is_guarded(address: _IPAddress) -> bool:
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    odd = address.is_link_local or address.is_multicast or address.is_unspecified
    return odd or address in _METADATA
