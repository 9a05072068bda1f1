"""The studio in a headless Chromium: every kind of answer by keyboard, the outbox, accessibility.

Skipped where Chromium is not installed. Run: pytest tests/test_studio_browser.py
"""

import json
import re

import pytest

from burnish.label.webhooks import EVENTS, make_webhook, send_test
from burnish.store.answers import read_resolutions
from burnish.store.drafts import Draft, add_drafts
from burnish.store.webhooks import keep_delivery, read_deliveries, read_webhooks
from burnish.types import Conversation, Example, Message
from studios import (
    NOW,
    Studio,
    browser_page,
    chromium,
    open_label,
    press,
    ready,
    shown,
    sign_in,
    starting,
    wait_for_next,
)

PEOPLE = {"ada": "admin", "eve": "reviewer", "ann": "annotator", "bob": "annotator"}


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


@pytest.fixture
def page(browser):
    with browser_page(browser) as page:
        yield page


@pytest.fixture
def start(tmp_path):
    with starting(tmp_path / "project", examples=1) as start:
        yield start


def said(*turns: str, **fields) -> Example:
    """An example whose turns are the user's and the assistant's by turns."""
    roles = ("user", "assistant") * len(turns)
    messages = (Message(role, text) for role, text in zip(roles, turns, strict=False))
    return Example(Conversation(tuple(messages)), source="test", **fields)


def answers(one: Studio) -> list[str]:
    return [a.answer for a in one.annotations()]


def finish(page) -> None:
    page.wait_for_selector("text=Nothing left for you")


# Every kind by keyboard


def test_write(start, page):
    one = start(examples=[said("Hi", "\nHello")])
    open_label(page, one)
    # The box is empty: the record's own answer stands beside it.
    assert page.input_value("#text") == ""
    page.fill("#text", " ")
    press(page, "Control+Enter")
    assert "empty" in page.inner_text("#status")
    page.keyboard.type("Good day")
    press(page, "Control+ArrowDown")
    assert page.input_value("#text") == "\nHello"
    press(page, "Control+z")
    assert page.input_value("#text") == " Good day"
    press(page, "Control+Enter")
    finish(page)
    assert answers(one) == [" Good day"]


def test_edit_shows_the_changes_and_notes_the_draft(start, page):
    item = said("Hi")
    one = start('[label]\nkind = "edit"', examples=[item])
    draft = Draft.of(item.id, "answer", "We will look into it.", "gemma")
    with one.store.writing() as connection:
        add_drafts(connection, [draft])
    open_label(page, one)
    assert "Draft by gemma" in page.inner_text("#answer")
    press(page, "End", "Backspace")
    page.keyboard.type(" today.")
    assert page.inner_text(".changes ins").strip() == "today"
    press(page, "Control+Home", "Control+Delete")
    assert page.inner_text(".changes del").strip() == "We"
    press(page, "Control+Enter")
    finish(page)
    [kept] = one.annotations()
    assert (kept.answer, kept.draft_id) == (" will look into it today.", draft.id)
    assert 0 < kept.edit_distance < 1


def test_choose_by_digit_arrow_and_filter(start, page):
    words = "one two three four five six seven eight nine ten"
    names = [f"intent_{word}" for word in re.split(" ", words)]
    one = start(f"[label]\nchoices = {json.dumps([*names, 'refund'])}", examples=5)
    open_label(page, one)
    typed = ["r", "e", "f", "Enter", "Enter"]
    moved = ["ArrowDown", "ArrowDown", "Enter"]
    # After a choice letters still filter: an S is no skip until Esc has been pressed.
    changed_mind = ["3", "ArrowDown", "s", "e", "v", "Enter", "Control+Enter"]
    for keys in (["3", "Enter"], ["0", "Control+Enter"], typed, moved, changed_mind):
        before = shown(page)
        press(page, *keys)
        wait_for_next(page, before)
    assert answers(one) == [
        "intent_three",
        "intent_ten",
        "refund",
        "intent_two",
        "intent_seven",
    ]


def test_a_choice_that_is_a_digit_is_meant_by_that_digit(start, page):
    one = start('[label]\nchoices = ["0", "1", "2"]')
    open_label(page, one)
    press(page, "1", "Enter")
    finish(page)
    assert answers(one) == ["1"]


def test_choose_many_and_none(start, page):
    one = start('[label]\nkind = "choose_many"\nchoices = ["a", "b", "c"]', examples=2)
    open_label(page, one)
    before = shown(page)
    press(page, "3", "1", "2", "2", "Enter")
    wait_for_next(page, before)
    press(page, "Control+Enter")
    assert "none of them fits" in page.inner_text("#status")
    press(page, "Control+Enter")
    finish(page)
    assert answers(one) == ['["a","c"]', "[]"]


def test_rate_with_more_than_one_digit(start, page):
    one = start('[label]\nkind = "rate"\nscale = [0, 12]', examples=3)
    open_label(page, one)
    for keys in (["1", "2", "Enter"], ["7", "8", "Enter"], ["4", "ArrowRight", "Control+Enter"]):
        before = shown(page)
        press(page, *keys)
        wait_for_next(page, before)
    assert answers(one) == ["12", "8", "5"]


def test_rank_with_ties_and_moves(start, page):
    candidates = ["first", "second", "third", "fourth"]
    items = [said(f"Which? {n}", metadata={"candidates": candidates}) for n in range(3)]
    one = start('[label]\nkind = "rank"', examples=items)
    open_label(page, one)
    for keys in (
        ["3", "1", "2", "4", "Enter"],  # The last has its place by itself, or by its digit.
        # The second place shared, by = on the third card.
        ["1", "2", "3", "ArrowDown", "ArrowDown", "ArrowDown", "=", "Control+Enter"],
        # The first card moved down past the second; one taken back and placed last.
        ["1", "2", "3", "ArrowDown", "Shift+ArrowDown", "2", "2", "Enter", "Control+Enter"],
    ):
        before = shown(page)
        press(page, *keys)
        wait_for_next(page, before)
    assert answers(one)[:2] == ["[[2],[0],[1],[3]]", "[[0],[1,2],[3]]"]
    assert sorted(n for place in json.loads(answers(one)[2]) for n in place) == [0, 1, 2, 3]


def test_spans_by_word_by_character_and_by_pointer(start, page):
    text = "Ana Lović 🎉 lives in Zürich-West."
    toml = '[label]\nkind = "spans"\nchoices = ["person", "place"]'
    one = start(toml, examples=[said(text), said(text + " Bye")])
    open_label(page, one)
    before = shown(page)
    press(page, "Shift+ArrowRight", "1")
    # From there over the emoji (a word of its own), "lives", "in" to "Zürich"; one character less.
    press(page, *["ArrowRight"] * 4, "2", "2", "[", "2")
    assert page.get_attribute(".span-list li:nth-child(2) button", "aria-label") == (
        "Remove place: Züric"
    )
    press(page, "Control+Enter")
    wait_for_next(page, before)
    page.click(".marked >> text=Zürich")
    page.click("button.span-label >> text=place")
    press(page, "Backspace")
    assert page.locator(".span-list li").count() == 0
    page.dblclick(".marked >> text=lives")
    press(page, "2", "Control+Enter")
    finish(page)
    first, second = (json.loads(answer) for answer in answers(one))
    place = text.index("Z")
    assert first == [
        {"start": 0, "end": 9, "label": "person"},
        {"start": place, "end": place + 5, "label": "place"},
    ]
    assert second == [{"start": 12, "end": 17, "label": "place"}]


def test_a_dialogue_turn_by_turn(start, page):
    one = start('[label]\nkind = "dialogue"', examples=[said("Hello")])
    open_label(page, one)
    page.keyboard.type("Hi, how can I help?")
    press(page, "Control+Shift+Enter")
    page.keyboard.type("My card is lost")
    press(page, "Control+Enter")
    page.wait_for_selector("text=ends with the assistant")
    press(page, "Control+Shift+Enter", "Control+Shift+Enter", "Control+Backspace")
    page.keyboard.type("I have blocked it.")
    press(page, "Control+ArrowUp", "Control+ArrowUp", "Control+ArrowUp", "End")
    page.keyboard.type("!")
    press(page, "Control+Enter")
    finish(page)
    [kept] = answers(one)
    assert [(turn["role"], turn["content"]) for turn in json.loads(kept)] == [
        ("user", "Hello!"),
        ("assistant", "Hi, how can I help?"),
        ("user", "My card is lost"),
        ("assistant", "I have blocked it."),
    ]


def test_accept_and_reject_with_a_reason(start, page):
    one = start('[label]\nkind = "accept"', examples=[said("Hi", "Hello"), said("Bye", "Go away")])
    open_label(page, one)
    before = shown(page)
    assert "Hello" in page.inner_text(".turns")
    press(page, "y", "Enter")
    wait_for_next(page, before)
    press(page, "n", "Enter")
    assert "Say why" in page.inner_text("#status")
    page.keyboard.type("not nice")
    press(page, "Enter")
    finish(page)
    assert list(map(json.loads, answers(one))) == [
        {"verdict": "accept"},
        {"verdict": "reject", "reason": "not nice"},
    ]


# Skip, flag, undo, keys


def test_skip_flag_and_undo(start, page):
    one = start(examples=3)
    open_label(page, one)
    before = shown(page)
    press(page, "Escape", "f")
    page.keyboard.type("private data")
    press(page, "Enter")
    wait_for_next(page, before)
    before = shown(page)
    page.keyboard.type("too quick")
    press(page, "Control+Enter")
    wait_for_next(page, before)
    press(page, "Escape", "u")
    page.wait_for_selector("text=You took this answer back")
    ready(page)
    assert shown(page) == before
    assert page.input_value("#text") == "too quick"
    page.keyboard.type(", now right")
    press(page, "Control+Enter")
    wait_for_next(page, before)
    press(page, "Escape", "s")
    finish(page)
    kept = [(a.status, a.answer) for a in one.annotations()]
    assert ("flagged", "private data") in kept
    assert ("submitted", "too quick, now right") in kept
    assert kept[-1] == ("skipped", "")


def test_every_key_is_listed_and_leads_where_it_says(start, page):
    one = start("[label]\noverlap = 2")
    page.goto(one.url)
    for key, path in (
        ("Shift+L", "/tasks/answer/label"),
        ("Shift+G", "/tasks/answer/guidelines"),
        ("Shift+R", "/tasks/answer/review"),
        ("Shift+O", "/tasks/answer/overview"),
        ("Shift+A", "/tasks/answer/agreement"),
        ("Shift+B", "/tasks/answer/browse"),
        ("Shift+X", "/tasks/answer/exchange"),
        ("Shift+P", "/people"),
        ("Shift+F", "/artefacts"),
        ("Shift+T", "/"),
    ):
        if path == "/tasks/answer/label":
            press(page, "1")
        else:
            if path == "/tasks/answer/guidelines":
                ready(page)
                press(page, "Escape")
            press(page, key)
        page.wait_for_url(one.url + path)
    open_label(page, one)
    press(page, "Escape", "?")
    listed = page.inner_text("#keys")
    for word in ("submit", "skip", "flag", "undo", "guidelines", "record", "Review", "Browse"):
        assert word in listed, word
    press(page, "Escape", "r")
    assert page.evaluate("document.getElementById('record').open")


# The outbox: nothing lost, nothing twice


def test_work_survives_reload_and_a_restarted_server(start, page):
    one = start(examples=3)
    open_label(page, one)
    first = shown(page)
    page.keyboard.type("half an ans")
    page.reload()
    ready(page)
    assert (shown(page), page.input_value("#text")) == (first, "half an ans")
    page.keyboard.type("wer, finished")
    one.stop()
    press(page, "Control+Enter")
    page.wait_for_selector("text=Not sent yet")
    assert page.is_disabled("#text")
    one.start()
    wait_for_next(page, first)
    assert answers(one) == ["half an answer, finished"]


def test_an_answer_whose_confirmation_is_lost_is_kept_once(start, page):
    one = start(examples=2)
    open_label(page, one)
    first = shown(page)
    lost = []

    def lose_the_answer(route):
        if route.request.method == "POST" and not lost:
            lost.append(route.fetch().status)
            route.abort()
        else:
            route.continue_()

    page.route("**/label", lose_the_answer)
    page.keyboard.type("once")
    press(page, "Control+Enter")
    wait_for_next(page, first)
    assert lost == [201]
    assert answers(one) == ["once"]


def test_unsent_work_survives_closing_the_page(start, page):
    one = start(examples=2)
    open_label(page, one)
    first = shown(page)
    page.route("**/label", lambda r: r.abort() if r.request.method == "POST" else r.continue_())
    page.keyboard.type("written offline")
    press(page, "Control+Enter")
    page.wait_for_selector("#status:not([hidden])")
    page.goto("about:blank")
    page.unroute("**/label")
    page.goto(f"{one.url}/tasks/answer/label")
    wait_for_next(page, first)
    assert answers(one) == ["written offline"]


def test_an_expired_session_asks_to_sign_in_and_then_sends(start, page):
    one = start(examples=2, people=PEOPLE)
    sign_in(page, one, "ann", "/tasks/answer/label")
    ready(page)
    first = shown(page)
    page.keyboard.type("worth keeping")
    page.context.clear_cookies()
    press(page, "Control+Enter")
    page.wait_for_selector("text=You are signed out")
    assert one.annotations() == []
    # Somebody else signs in at this browser: it is not theirs, and stays.
    page.click("text=Sign in")
    page.wait_for_selector("#password")
    sign_in(page, one, "bob", "/tasks/answer/label")
    ready(page)
    assert shown(page)
    assert one.annotations() == []
    page.context.clear_cookies()
    sign_in(page, one, "ann", "/tasks/answer/label")
    wait_for_next(page, first)
    [kept] = one.annotations()
    assert (kept.annotator, kept.answer) == ("ann", "worth keeping")


def test_two_tabs_lose_none_of_each_others_answers(start, page):
    one = start(TWO, examples=1)
    open_label(page, one, "reply")
    other = page.context.new_page()
    open_label(other, one, "reply")
    one.stop()
    for tab, text in ((page, "from one tab"), (other, "from the other")):
        tab.keyboard.type(text)
        press(tab, "Control+Enter")
        tab.wait_for_selector("text=Not sent yet")
    kept = page.evaluate("Object.keys(localStorage).filter(k => k.includes(':outbox:')).length")
    assert kept == 2
    one.start()
    for tab in (page, other):
        finish(tab)
    # The second is an amendment: both are kept, the newest counts.
    assert sorted(answers(one)) == ["from one tab", "from the other"]


TWO = '[tasks.reply]\n[tasks.intent]\nchoices = ["billing", "other"]'


# Review


def open_dispute(page, one: Studio, *answers: str) -> None:
    for name, answer in zip(("ann", "bob"), answers, strict=True):
        one.answer(name, one.examples[0], answer)
    page.goto(f"{one.url}/tasks/answer/review")
    page.wait_for_selector("#review[data-ready]")


def test_review_by_keyboard(start, page):
    one = start("[label]\noverlap = 2")
    open_dispute(page, one, "yes", "no")
    press(page, "Control+Enter")
    assert "No answer is chosen" in page.inner_text("#status")
    press(page, "2", "e")
    page.keyboard.type(", thanks")
    press(page, "Control+Enter")
    page.wait_for_selector("text=Nothing to review")
    with one.store.reading() as connection:
        [kept] = read_resolutions(connection, task="answer")
    assert kept.answer == "no, thanks"


def test_a_blind_reviewer_writes_first_and_keeps_it_when_asking(start, page):
    one = start('[label]\noverlap = 2\nblind_review = true\nchoices = ["x", "y", "z"]')
    open_dispute(page, one, "x", "y")
    assert page.locator(".given").count() == 0
    press(page, "3", "Escape", "v")
    page.wait_for_selector(".given")
    page.wait_for_selector("#review[data-ready]")
    assert page.is_checked("#own")
    press(page, "Control+Enter")
    page.wait_for_selector("text=Nothing to review")
    with one.store.reading() as connection:
        [kept] = read_resolutions(connection, task="answer")
    assert kept.answer == "z"


# On a phone


@pytest.mark.parametrize("size", [(390, 844), (360, 740)])
def test_a_short_item_needs_no_scrolling_on_a_phone(start, browser, size):
    width, height = size
    item = said("Where is my order? It was due on Monday.", "It comes tomorrow.")
    one = start(every_kind(), examples=[item])
    shape = {"viewport": {"width": width, "height": height}, "has_touch": True}
    with browser_page(browser, **shape) as page:
        for task in ("write", "edit", "choose", "rate", "spans", "accept"):
            open_label(page, one, task)
            ends = "#answer textarea, #answer .choices, #answer .scale, #answer .span-labels"
            for part in page.locator(f"section[aria-label=Example], {ends}").all():
                box = page.locator("#submit").bounding_box()
                place = part.bounding_box()
                assert place["y"] >= 0, task
                assert place["y"] + place["height"] <= box["y"], task
                assert box["y"] + box["height"] <= height, task
            assert page.evaluate("scrollY") == 0


def test_spans_by_touch(start, browser):
    toml = '[label]\nkind = "spans"\nchoices = ["person", "place"]'
    one = start(toml, examples=[said("Ana Lovric lives in Lyon", "Hello Ana")])
    with browser_page(browser, has_touch=True, viewport={"width": 390, "height": 844}) as page:
        open_label(page, one)
        assert "Tap a word" in page.inner_text("#marked-help")
        for word in ("lives", "in", "Ana", "Lovric"):  # The third tap begins anew.
            page.tap(f".marked >> text=/^{word}$/")
        page.tap("button.span-label >> text=person")
        page.tap(".marked >> text=/^Lyon$/")
        page.tap("button.span-label >> text=place")
        page.tap("#submit")
        finish(page)
    assert json.loads(answers(one)[0]) == [
        {"start": 0, "end": 10, "label": "person"},
        {"start": 20, "end": 24, "label": "place"},
    ]


# For everybody: names, contrast, small screens


# What HTML takes a control's accessible name from (W3C, HTML Accessibility API Mappings).
UNNAMED = """() => [...document.querySelectorAll(
    "button, a[href], input, select, textarea, summary")]
  .filter(e => e.type !== "hidden" && e.checkVisibility())
  .filter(e => !(e.getAttribute("aria-label")
    || e.labels?.length && [...e.labels].some(l => l.textContent.trim())
    || !e.matches("input, select, textarea") && e.textContent.trim()))
  .map(e => e.outerHTML.slice(0, 200))"""

# WCAG 2.2, relative luminance and contrast ratio, of each visible text against what is behind it.
TOO_FAINT = """() => {
  const parse = c => { const m = c.match(/[\\d.]+/g).map(Number);
    const k = c.startsWith("color(") ? 255 : 1;
    return [m[0] * k, m[1] * k, m[2] * k, m[3] ?? 1]; };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3]));
  const light = rgb => { const [r, g, b] = rgb.map(v => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const behind = e => { if (!e) return [255, 255, 255];
    const own = parse(getComputedStyle(e).backgroundColor);
    return own[3] === 1 ? own.slice(0, 3) : over(own, behind(e.parentElement)); };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility({ opacityProperty: true })) continue;
    if (e.closest(".visually-hidden, [disabled], option, datalist, .skip-link, script")) continue;
    const back = behind(e);
    const [a, b] = [light(over(parse(getComputedStyle(e).color), back)), light(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push([ratio.toFixed(2), e.outerHTML.slice(0, 120)]);
  }
  return faint;
}"""

KINDS = ("write", "edit", "choose", "choose_many", "rate", "rank", "spans", "dialogue", "accept")


def every_kind() -> str:
    """A task of each kind."""
    tables = []
    for kind in KINDS:
        choices = kind in ("choose", "choose_many", "spans")
        tables.append(f"[tasks.{kind}]\nkind = '{kind}'\noverlap = 2")
        if choices:
            tables.append(f'choices = ["one", "{"long_" * 12}", "three"]')
    return "\n".join(tables)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A studio with something on every page."""
    items = [
        said(f"Say {n} {'word ' * 60}", "w" * 120, metadata={"candidates": ["a", "b" * 90]})
        for n in range(3)
    ]
    one = Studio(tmp_path_factory.mktemp("studio") / "project", every_kind(), examples=items)
    for task, pair in (
        ("write", ["Good day", "Hello"]),
        ("choose", ["one", "three"]),
        ("spans", ['[{"start":0,"end":3,"label":"one"}]', "[]"]),
    ):
        for name, answer in zip(("A person with a name of some length", "bob"), pair, strict=True):
            one.answer(name, items[0], answer, task=task, seconds=4)
    url = f"https://{'long-' * 11}name.example.org/{'hook/' * 20}"
    webhook = make_webhook(one.store, url, EVENTS, actor="test")
    for fault, next_at in (("answered 500", NOW.isoformat()), ("f" * 200, None)):
        send_test(one.store, webhook.id)
        with one.store.writing() as connection:
            *_, newest = read_deliveries(connection, webhook.id, limit=9)
            keep_delivery(connection, newest, fault=fault, next_at=next_at)
    yield one
    one.close()


def pages_of(one: Studio) -> list[str]:
    label = [f"/tasks/{kind}/label" for kind in KINDS]
    review = [f"/tasks/{kind}/review" for kind in ("write", "choose", "spans")]
    names = ("overview", "agreement", "browse", "exchange", "guidelines", "guidelines/edit")
    names += ("guidelines/1",)
    others = ["/", "/people", "/webhooks", "/artefacts", "/account", "/nothing"]
    with one.store.reading() as connection:
        others += [f"/webhooks/{webhook.id}" for webhook in read_webhooks(connection)]
    return label + review + [f"/tasks/choose/{name}" for name in names] + others


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_read_and_its_controls_have_names(everything, browser, scheme):
    with browser_page(browser, color_scheme=scheme) as page:
        for path in pages_of(everything):
            answer = page.goto(everything.url + path)
            assert answer.status < 500, path
            page.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
            assert page.evaluate(UNNAMED) == [], path
            assert page.evaluate(TOO_FAINT) == [], path
            assert page.locator("h1:not(.prose *)").count() == 1, path


@pytest.mark.parametrize("width", [1280, 360])
def test_no_page_is_wider_than_the_screen(everything, browser, width):
    with browser_page(browser, viewport={"width": width, "height": 800}) as page:
        for path in pages_of(everything):
            page.goto(everything.url + path)
            page.wait_for_load_state()
            assert page.evaluate("document.documentElement.scrollWidth") <= width, path
            # Nor is anything cut off at the edge.
            beyond = page.evaluate(
                """width => [...document.querySelectorAll("main *")]
                  .filter(e => e.checkVisibility() && !e.closest(".visually-hidden, thead"))
                  .filter(e => e.getBoundingClientRect().right > width + 1)
                  .map(e => e.outerHTML.slice(0, 150))""",
                width,
            )
            assert beyond == [], path
