"""A team's day in a real browser, from signing in to a model tuned on what they labelled.

By keyboard alone. Skipped where Chromium is not installed. Run: pytest tests/test_studio_day.py
"""

import json
import os
import subprocess
import sys

import pytest

from burnish.store.answers import read_resolutions
from burnish.store.log import verify_log
from studios import (
    Studio,
    browser_page,
    chromium,
    example,
    press,
    ready,
    shown,
    sign_in,
    wait_for_next,
)

PEOPLE = {"ada": "admin", "eve": "reviewer", "ann": "annotator", "bob": "annotator"}
TOML = """
[tasks.intent]
choices = ["billing", "delivery", "other"]
overlap = 2
base = "starter"
"""
GUIDELINES = "# Intents\n\nChoose what the message is about. **Billing** is money, also refunds.\n"

SUBJECTS = ("My invoice is wrong", "Where is my parcel", "Do you have a phone shop")
DIGITS = ("1", "2", "3")


@pytest.fixture
def one(tmp_path):
    items = [example(n, f"{SUBJECTS[n % 3]}, order {n}?") for n in range(20)]
    studio = Studio(tmp_path / "project", TOML, examples=items, people=PEOPLE)
    (studio.project.root / "guidelines.md").write_text(GUIDELINES)
    yield studio
    studio.close()


@pytest.fixture(scope="module")
def browser():
    with chromium() as opened:
        yield opened


def subject(page) -> int:
    text = page.inner_text(".turn.user .text")
    return next(n for n, known in enumerate(SUBJECTS) if text.startswith(known))


def label_everything(page) -> int:
    """Until nothing is left; loses the network once on the way."""
    labelled = 0
    while before := shown(page):
        press(page, DIGITS[subject(page)])
        if labelled == 7:
            page.context.set_offline(True)
            press(page, "Enter")
            page.wait_for_selector("text=kept in this browser")
            page.context.set_offline(False)
        else:
            press(page, "Enter")
        wait_for_next(page, before)
        labelled += 1
    return labelled


def test_a_day_from_sign_in_to_a_tuned_model(one, browser, tmp_path):
    with browser_page(browser) as page:
        annotates(page, one)
    for item in one.examples:  # the same day, somewhere else
        n = SUBJECTS.index(item.conversation.messages[0].content.split(",")[0])
        said = "other" if item is one.examples[3] else ("billing", "delivery", "other")[n]
        one.answer("bob", item, said, task="intent", seconds=3)
    with browser_page(browser) as page:
        reviews(page, one)
    with browser_page(browser, accept_downloads=True) as page:
        exported = exports(page, one, tmp_path)
    with one.store.reading() as connection:
        verify_log(connection)
    # One answer was taken back and sent again: the export is the history, the newest counts.
    assert [row["status"] for row in exported].count("withdrawn") == 1
    newest = {(row["annotator"], row["example_id"]): row for row in exported}
    assert len(newest) == 40
    assert {row["status"] for row in newest.values()} == {"submitted"}
    tunes(one)


def annotates(page, one: Studio) -> None:
    sign_in(page, one, "ann")
    press(page, "1")
    ready(page)
    press(page, "Shift+G")
    page.wait_for_selector("text=Billing is money, also refunds")
    press(page, "Enter")
    ready(page)
    # What the tuner will see, in the base's own tokens.
    press(page, DIGITS[subject(page)])
    page.wait_for_function(
        "() => document.querySelector('.token-figures').textContent.includes('of them')",
        timeout=90_000,
    )
    trained = "".join(page.locator(".token-text mark").all_inner_texts())
    assert ("billing", "delivery", "other")[subject(page)] in trained
    assert label_everything(page) == 20
    press(page, "u")
    page.wait_for_selector("text=You took this answer back")
    ready(page)
    before = shown(page)
    press(page, "Enter")
    wait_for_next(page, before)
    press(page, "Shift+S")
    page.wait_for_selector("#password")


def reviews(page, one: Studio) -> None:
    sign_in(page, one, "eve")
    press(page, "1")
    page.wait_for_url("**/label")
    press(page, "Shift+R")
    page.wait_for_selector("#review[data-ready]")
    assert "1 waits for a person" in page.inner_text("main")
    chosen = page.locator(".given .text").all_inner_texts()
    press(page, str(1 + [text.strip() for text in chosen].index("billing")))
    press(page, "Control+Enter")
    page.wait_for_selector("text=Nothing to review")
    with one.store.reading() as connection:
        [kept] = read_resolutions(connection, task="intent")
    assert (kept.answer, kept.resolved_by) == ("billing", "eve")
    press(page, "Shift+O")
    page.wait_for_selector("text=20 of 20 complete")
    press(page, "Shift+A")
    page.wait_for_selector("text=Krippendorff")
    assert "On 20 examples" in page.inner_text("main")
    assert "0.950" in page.inner_text("main")  # percent: 19 of 20 pairs are equal


def exports(page, one: Studio, folder) -> list[dict]:
    sign_in(page, one, "ada")
    press(page, "1")
    page.wait_for_url("**/label")
    press(page, "Shift+X")
    page.wait_for_url("**/exchange")
    with page.expect_download() as download:
        press(page, "1")
    file = folder / "labels.jsonl"
    download.value.save_as(file)
    return [json.loads(line) for line in file.read_text().splitlines()]


def tunes(one: Studio) -> None:
    """Two steps: enough to show that the snapshot of the day can be trained on."""

    def burnish(*arguments: str) -> dict:
        command = [sys.executable, "-c", "from burnish.cli import main; main()", *arguments]
        done = subprocess.run(
            [*command, "--json"],
            cwd=one.project.root,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    frozen = burnish("snapshot")
    assert sum(frozen["examples"].values()) == 20
    tuned = burnish(
        "tune", frozen["snapshot"], "--base", "starter", "--out", "tuned", "--max-steps", "2"
    )
    assert tuned["steps"] == 2
    assert tuned["supervised_tokens"] > 0
