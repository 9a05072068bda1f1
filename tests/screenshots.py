"""Take the pictures of docs/studio.md: each page at a desktop's and a phone's width.

Run by hand, with Chromium installed: python tests/screenshots.py
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from burnish.label.guidelines import current_guidelines
from burnish.label.order import set_gold
from burnish.label.webhooks import EVENTS, announce, make_webhook
from burnish.project import timestamp
from burnish.store.drafts import Draft, add_drafts
from burnish.store.webhooks import keep_delivery, read_deliveries
from burnish.types import Conversation, Example, Message
from studios import PASSWORD, Studio, browser_page, chromium

OUT = Path(__file__).parents[1] / "docs" / "screenshots"
SIZES = {1280: 800, 360: 740}

TOML = """
[tasks.reply]
kind = "edit"
guidelines = "reply.md"
overlap = 2
base = "starter"
max_length = 128

[tasks.intent]
choices = ["billing", "delivery", "returns", "account", "other"]
overlap = 2

[tasks.topics]
kind = "choose_many"
choices = ["money", "parcel", "tone", "legal"]

[tasks.quality]
kind = "rate"

[tasks.best]
kind = "rank"

[tasks.entities]
kind = "spans"
choices = ["person", "place", "product"]

[tasks.dialogue]
kind = "dialogue"

[tasks.check]
kind = "accept"
"""

REPLY = """\
# Replies

Answer as a careful colleague would: what happens next, and when.

- **At most three sentences.** No apology longer than the help.
- Never promise money; say who decides.
- Skip what you cannot judge, flag what should not be here.
"""

MESSAGES = (
    "Hello, Ana Lovrić here. My lamp Aurora arrived in Zürich with a broken shade. Can it go back?",
    "You charged my card twice for order 8841.",
    "Where is my parcel? The tracking has said Lyon for six days.",
    "Please close my account and delete what you know about me.",
    "The chair is fine but the invoice names the wrong company.",
    "Is there a shop in Turin where I can see the Aurora before I buy it?",
    "I was promised a call yesterday. Nobody called.",
    "Can I change the delivery address of an order that has left?",
)
DRAFTS = (
    "Sorry to hear that! You can send the lamp back for free. We refund you when it arrives.",
    "I have refunded you the second payment. It will arrive in three days.",
)
CANDIDATES = (
    "You can return it within 30 days; the label is in your account under Orders.",
    "Sorry!",
    "Please send us a picture of the shade, and we will send a new one today.",
)
SYSTEM = "You answer for a small furniture shop. Be brief, warm and exact."

PAGES = {
    "sign-in": "/sign-in",
    "tasks": "/",
    "label-edit": "/tasks/reply/label",
    "label-choose": "/tasks/intent/label",
    "label-choose-many": "/tasks/topics/label",
    "label-rate": "/tasks/quality/label",
    "label-rank": "/tasks/best/label",
    "label-spans": "/tasks/entities/label",
    "label-dialogue": "/tasks/dialogue/label",
    "label-accept": "/tasks/check/label",
    "guidelines": "/tasks/reply/guidelines",
    "guidelines-version": "/tasks/reply/guidelines/2",
    "guidelines-edit": "/tasks/reply/guidelines/edit",
    "review": "/tasks/intent/review",
    "overview": "/tasks/intent/overview?price=25",
    "agreement": "/tasks/intent/agreement",
    "browse": "/tasks/intent/browse",
    "bulk": "/tasks/intent/browse?text=aurora",
    "exchange": "/tasks/intent/exchange",
    "people": "/people",
    "person": "/people/ben",
    "webhooks": "/webhooks",
    "webhook": "/webhooks",
    "artefacts": "/artefacts",
}
DARK = ("label-edit", "overview")


def shop(folder: Path) -> Studio:
    """A made-up furniture shop and the people who label its mail."""
    items = [record(n, text) for n, text in enumerate(MESSAGES)]
    more = [record(n + 100, f"{MESSAGES[n % 8]} (order {1000 + n})") for n in range(32)]
    people = {"ada": "admin", "eve": "reviewer", "ben": "annotator", "cleo": "annotator"}
    one = Studio(folder / "shop", TOML, examples=[*items, *more], people=people)
    (one.project.root / "burnish.toml").write_text(f'[project]\nname = "Furniture"\n{TOML}')
    guidelines = one.project.root / "reply.md"
    guidelines.write_text(REPLY.replace("three sentences", "five sentences"))
    with one.client("ben") as client:
        client.get("/tasks/reply/guidelines")
    guidelines.write_text(REPLY)
    with one.client("ben") as client:
        client.get("/tasks/reply/guidelines")
    drafts = [
        Draft.of(item.id, "reply", DRAFTS[n % 2], "furniture-tuned-3")
        for n, item in enumerate(items)
    ]
    with one.store.writing() as connection:
        add_drafts(connection, drafts)
    answer_some(one, [*items, *more])
    tell(one)
    return one


def record(number: int, text: str) -> Example:
    messages: tuple[Message, ...] = (Message("system", SYSTEM), Message("user", text))
    if number % 8 == 0:
        messages += (Message("assistant", CANDIDATES[0]),)
    metadata = {"channel": "mail" if number % 3 else "chat", "candidates": list(CANDIDATES)}
    return Example(Conversation(messages), source="mail-2026-01.jsonl", metadata=metadata)


def answer_some(one: Studio, items: list[Example]) -> None:
    intents = ("returns", "billing", "delivery", "account", "billing", "other", "other", "delivery")
    task, guidelines = one.tasks["intent"], one.project.root / "guidelines.md"
    for n, item in enumerate(items[:24]):
        if n % 12 == 0:
            guidelines.write_text(f"# Intents\n\nThe customer's wish, not the cause. ({n})\n")
            version = current_guidelines(one.store, one.project, task).version
        for name, seconds in (("ben", 6), ("cleo", 9)):
            odd = name == "cleo" and n in (5, 8, 11, 23)
            said = "billing" if odd else intents[n % 8]
            timed = {"seconds": float(seconds + (n * 7) % 5), "guideline_version": version}
            one.answer(name, item, said, task="intent", **timed)
    set_gold(one.store, task, {items[30].id: "other"}, "ada")


def tell(one: Studio) -> None:
    """A webhook that everything reaches, and one that is down since Monday."""
    make_webhook(one.store, "https://crm.furniture.example/burnish", EVENTS[:1], actor="ada")
    url = "https://reports.furniture.example/hooks/labels"
    down = make_webhook(one.store, url, ("example.resolved", "labels.exported"), actor="ada")
    now = datetime.now(UTC)
    failed = (
        (9, "answered 503", None),
        (4, "[Errno 111] Connection refused", now + timedelta(hours=5)),
        (2, "[Errno 111] Connection refused", now + timedelta(minutes=30)),
    )
    for attempts, fault, next_at in failed:
        with one.store.writing() as connection:
            announce(connection, "labels.exported", {"task": "intent"})
            *_, newest = read_deliveries(connection, down.id, limit=9)
            again = next_at and timestamp(next_at)
            tried = replace(newest, attempts=attempts)
            keep_delivery(connection, tried, fault=fault, next_at=again)


def act(page: Any, name: str) -> None:
    """What a person has done on the page before the picture is taken."""
    keys = {
        "label-edit": ["End", *" Tell us if"],
        "label-choose": ["3"],
        "label-choose-many": ["1", "2"],
        "label-rate": ["4"],
        "label-rank": ["3", "1"],
        "label-spans": [*["ArrowRight"] * 2, "Shift+ArrowRight", "1", *["ArrowRight"] * 5, "3"],
        "label-dialogue": [],
        "label-accept": ["n", *"too long"],
        "review": ["1"],
    }.get(name, [])
    if name == "bulk":
        page.check("#chosen-1")
        page.check("#chosen-2")
        page.fill("input[name=reason]", "no longer sold")
        page.click("text=Go on")
        page.wait_for_selector("h1:has-text('Exclude 2')")
    if name == "webhook":
        page.click("text=reports.furniture")
        page.wait_for_selector("h2:has-text('Undelivered')")
    if name == "review":
        page.wait_for_selector("#review[data-ready]")
    for key in keys:
        page.keyboard.press(key)
    if name == "label-edit" and page.evaluate("() => document.getElementById('tokens').open"):
        page.wait_for_selector(".token-text > *", timeout=90_000)
        page.wait_for_timeout(1000)


def picture(page: Any, one: Studio, name: str, file: str) -> None:
    page.goto(one.url + PAGES[name])
    page.wait_for_load_state()
    if name.startswith("label"):
        page.wait_for_selector("#answer[data-ready]")
        page.evaluate("document.getElementById('guidelines').open = true")
        page.wait_for_timeout(100)
        page.reload()  # The guidelines have been read.
        page.wait_for_selector("#answer[data-ready]")
    act(page, name)
    # Fifty results would be a picture of their own length; on a phone the actions stay at the
    # bottom of the screen, which has no place in a picture longer than it.
    on_screen = name == "browse" or (name.startswith("label") and page.viewport_size["width"] < 600)
    page.screenshot(path=OUT / file, full_page=not on_screen)
    size = (OUT / file).stat().st_size
    assert size < 150_000, f"{file}: {size:,} bytes"


def main() -> None:
    OUT.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        one = shop(Path(folder))
        for width, height in SIZES.items():
            for scheme in ("light", "dark"):
                shape = {
                    "viewport": {"width": width, "height": height},
                    "color_scheme": scheme,
                    "has_touch": width < 600,
                }
                with browser_page(browser, **shape) as page:
                    if scheme == "light":
                        picture(page, one, "sign-in", f"sign-in-{width}.png")
                    page.goto(f"{one.url}/sign-in")
                    page.fill("#name", "ada")
                    page.fill("#password", PASSWORD)
                    page.keyboard.press("Enter")
                    page.wait_for_url(f"{one.url}/")
                    for name in DARK if scheme == "dark" else list(PAGES)[1:]:
                        tone = "-dark" if scheme == "dark" else ""
                        picture(page, one, name, f"{name}{tone}-{width}.png")
        one.close()


if __name__ == "__main__":
    main()
