"""People, passwords, sessions, and who gets in; over a real socket where the browser has a part.

Run: pytest tests/test_sign_in.py
"""

import hashlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import unquote

import httpx
import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.profiles import RFC_9106_LOW_MEMORY
from sqlalchemy import func, select

from burnish.errors import ConfigError, InputError
from burnish.label.people import (
    add_person,
    change_password,
    change_role,
    end_token,
    make_token,
    remove_person,
    session_user,
    sign_in,
    sign_out,
    token_user,
)
from burnish.project import Project, init_project
from burnish.store import Store, open_store
from burnish.store.log import read_log, verify_log
from burnish.store.sessions import add_session
from burnish.store.tables import sessions, sign_in_failures, tokens, users
from burnish.store.users import set_password_hash
from burnish.web.studio import studio
from studios import PASSWORD, Studio, add_people, csrf_of

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)
PEOPLE = {"ann": "admin", "bob": "annotator"}


@pytest.fixture
def quick(tmp_path) -> Iterator[Store]:
    """A store on SQLite, for what is the same on every database."""
    with closing(open_store(f"sqlite:///{tmp_path}/burnish.db")) as opened:
        yield opened


def enter(store, name, password=PASSWORD, *, address="192.0.2.1", now=NOW):
    return sign_in(store, name, password, address=address, now=now)


def begin(store, name, now=NOW):
    """A session, as signing in begins it."""
    secret = secrets.token_urlsafe(32)
    at, until = (t.isoformat(timespec="milliseconds") for t in (now, now + timedelta(days=7)))
    digest = hashlib.sha256(secret.encode()).hexdigest()
    with store.writing() as connection:
        add_session(connection, digest, name, now=at, expires_at=until)
    return secret


def fail(store, *keys, times=1):
    """Failures, as attempts to sign in leave them."""
    rows = [{"key": key, "at": NOW.isoformat(timespec="milliseconds")} for key in keys] * times
    with store.writing() as connection:
        connection.execute(sign_in_failures.insert(), rows)


def column(store, which):
    with store.reading() as connection:
        return connection.execute(select(which)).scalars().all()


# Passwords


def test_passwords_are_kept_as_argon2id_with_the_parameters_of_rfc_9106(quick):
    add_person(quick, "ann", PASSWORD, "admin", actor="test")
    [kept] = column(quick, users.c.password_hash)
    assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
    assert extract_parameters(kept) == RFC_9106_LOW_MEMORY
    PasswordHasher().verify(kept, PASSWORD)


def test_a_hash_with_older_parameters_is_renewed_at_the_next_sign_in(quick):
    add_people(quick, {"ann": "admin"})
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    with quick.writing() as connection:
        set_password_hash(connection, "ann", weak, actor="test")
    assert enter(quick, "ann").session
    [renewed] = column(quick, users.c.password_hash)
    assert extract_parameters(renewed) == RFC_9106_LOW_MEMORY


@pytest.mark.parametrize("password", ["", "nine char", "x" * 1025])
def test_a_password_is_judged_by_its_length_alone(quick, password):
    with pytest.raises(InputError, match="10 to 1024 characters"):
        add_person(quick, "ann", password, "admin", actor="test")
    add_person(quick, "ann", "aaaaaaaaaa", "admin", actor="test")
    assert enter(quick, "ann", "aaaaaaaaaa").session


def test_a_password_typed_on_another_keyboard_is_the_same(quick):
    add_person(quick, "ann", "cafe\u0301 au lait", "admin", actor="test")
    assert enter(quick, "ann", "caf\u00e9 au lait").session
    add_people(quick, {"zo\u00eb": "annotator"})
    assert enter(quick, "zoe\u0308").session
    assert enter(quick, "ann", "half a pair \ud800").session is None


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\nb", "rule:x", "x" * 65])
def test_names_that_cannot_stand_beside_an_answer_are_refused(quick, name):
    with pytest.raises(InputError):
        add_person(quick, name, PASSWORD, "admin", actor="test")


def test_the_first_user_is_an_admin_and_the_last_admin_stays(store):
    with pytest.raises(InputError, match="first user must be an admin"):
        add_person(store, "bob", PASSWORD, "annotator", actor="test")
    add_person(store, "ann", PASSWORD, "admin", actor="test")
    add_person(store, "bob", PASSWORD, "annotator", actor="test")
    for leave in (
        lambda: remove_person(store, "ann", actor="test"),
        lambda: change_role(store, "ann", "reviewer", actor="test"),
    ):
        with pytest.raises(InputError, match="last admin"):
            leave()
    change_role(store, "bob", "admin", actor="test")
    remove_person(store, "ann", actor="test")
    with pytest.raises(InputError, match="no user"):
        change_role(store, "ann", "reviewer", actor="test")


def test_a_name_is_taken_once_and_comes_back_to_who_was_removed(store):
    add_person(store, "ann", PASSWORD, "admin", actor="test")
    add_person(store, "bob", PASSWORD, "reviewer", actor="test")
    with pytest.raises(InputError, match="taken"):
        add_person(store, "bob", PASSWORD, "admin", actor="test")
    remove_person(store, "bob", actor="test")
    assert enter(store, "bob").session is None
    add_person(store, "bob", "another password", "annotator", actor="test")
    assert enter(store, "bob").session is None
    assert enter(store, "bob", "another password").session


# Sessions and tokens


def test_the_store_cannot_be_used_to_sign_in(store):
    add_people(store, {"ann": "admin"})
    session = begin(store, "ann")
    token = make_token(store, "ann", "ci", actor="test", now=NOW)
    [session_hash] = column(store, sessions.c.token_hash)
    [token_hash] = column(store, tokens.c.token_hash)
    assert session_user(store, session, now=NOW).name == token_user(store, token, now=NOW).name
    for stolen in (session_hash, token_hash):
        assert session_user(store, stolen, now=NOW) is None
        assert token_user(store, stolen, now=NOW) is None
    assert session_user(store, token, now=NOW) is None
    assert token_user(store, session, now=NOW) is None


def test_a_session_lasts_while_it_is_used_and_thirty_days_at_most(store):
    add_people(store, {"ann": "admin"})
    session = begin(store, "ann")
    for day in range(6, 30, 6):
        assert session_user(store, session, now=NOW + timedelta(days=day))
    assert session_user(store, session, now=NOW + timedelta(days=30)) is None
    idle = begin(store, "ann")
    assert session_user(store, idle, now=NOW + timedelta(days=7)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda store: change_password(store, "bob", "another password", actor="test"),
        lambda store: change_role(store, "bob", "annotator", actor="test"),
        lambda store: remove_person(store, "bob", actor="test"),
    ],
    ids=["password", "role", "removed"],
)
def test_every_session_of_a_person_ends_with_what_it_rested_on(store, change):
    add_people(store, {"ann": "admin", "bob": "reviewer"})
    of_ann = begin(store, "ann")
    of_bob = [begin(store, "bob") for _ in range(3)]
    change(store)
    assert all(session_user(store, session, now=NOW) is None for session in of_bob)
    assert session_user(store, of_ann, now=NOW)


def test_signing_out_ends_this_session_alone(store):
    add_people(store, {"ann": "admin"})
    one, other = begin(store, "ann"), begin(store, "ann")
    sign_out(store, one)
    sign_out(store, one)
    assert session_user(store, one, now=NOW) is None
    assert session_user(store, other, now=NOW)


def test_a_token_ends_in_time_when_removed_and_with_its_user(store):
    add_people(store, PEOPLE)
    short = make_token(store, "bob", "short", actor="test", now=NOW, days=1)
    long = make_token(store, "bob", "long", actor="test", now=NOW)
    with pytest.raises(InputError, match="already"):
        make_token(store, "bob", "long", actor="test", now=NOW)
    assert token_user(store, short, now=NOW).name == "bob"
    assert token_user(store, short, now=NOW + timedelta(days=1)) is None
    end_token(store, "bob", "short", actor="test")
    with pytest.raises(InputError, match="no token"):
        end_token(store, "bob", "short", actor="test")
    change_role(store, "bob", "reviewer", actor="test")
    assert token_user(store, long, now=NOW).role == "reviewer"
    remove_person(store, "bob", actor="test")
    add_people(store, {"bob": "annotator"})
    assert token_user(store, long, now=NOW) is None


def test_what_is_done_to_people_is_in_the_log_and_no_secret_is(store):
    add_person(store, "ann", PASSWORD, "admin", actor="cli")
    session = enter(store, "ann").session
    token = make_token(store, "ann", "ci", actor="ann", now=NOW)
    change_password(store, "ann", "another password", actor="ann")
    with store.reading() as connection:
        verify_log(connection)
        entries = read_log(connection)
    assert [e["action"] for e in reversed(entries)] == [
        "add user",
        "sign in",
        "add token",
        "set password",
    ]
    for secret in (PASSWORD, "another password", session, token, "argon2"):
        assert secret not in str(entries)


# The limits on guessing


def test_a_stranger_is_stopped_and_the_person_is_not(store):
    add_people(store, {"ann": "admin"})
    fail(store, "user:ann address:198.51.100.7", times=4)
    assert enter(store, "ann", "guess", address="198.51.100.7").wait_seconds == 0
    stopped = enter(store, "ann", PASSWORD, address="198.51.100.7")
    assert (stopped.session, stopped.wait_seconds) == (None, 15 * 60)
    assert enter(store, "ann", address="192.0.2.1").session
    later = NOW + timedelta(minutes=15)
    assert enter(store, "ann", address="198.51.100.7", now=later).session


def test_one_address_may_not_try_many_names_nor_many_addresses_one_name(store):
    add_people(store, {"ann": "admin"})
    fail(store, "address:198.51.100.7", times=30)
    fail(store, "user:ann", times=99)
    assert enter(store, "bob", address="198.51.100.7").wait_seconds > 0
    assert enter(store, "ann", "guess", address="203.0.113.1").wait_seconds == 0
    assert enter(store, "ann", address="203.0.113.2").wait_seconds > 0


def test_a_network_of_ipv6_addresses_is_one(quick):
    add_people(quick, {"ann": "admin"})
    fail(quick, "user:ann address:2001:db8:0:7::/64", times=4)
    enter(quick, "ann", "guess", address="2001:db8:0:7::1")
    assert enter(quick, "ann", address="2001:db8:0:7:ffff::1").wait_seconds > 0
    assert enter(quick, "ann", address="2001:db8:0:8::1").session


def test_right_passwords_are_not_counted(quick):
    add_people(quick, {"ann": "admin"})
    fail(quick, "user:ann address:192.0.2.1", "user:ann", "address:192.0.2.1", times=4)
    for _ in range(3):
        assert enter(quick, "ann").session
    assert sorted(set(column(quick, sign_in_failures.c.key))) == [
        "address:192.0.2.1",
        "user:ann",
    ]
    assert len(column(quick, sign_in_failures.c.key)) == 8


def test_failures_are_forgotten(quick):
    for minute in range(0, 40, 20):
        enter(quick, "nobody", now=NOW + timedelta(minutes=minute))
    assert len(column(quick, sign_in_failures.c.key)) == 3


def test_attempts_at_the_same_moment_are_counted_one_by_one(store):
    add_people(store, {"ann": "admin"})
    with ThreadPoolExecutor(8) as pool:
        tried = list(pool.map(lambda _: enter(store, "ann", "guess"), range(12)))
    assert sum(attempt.wait_seconds == 0 for attempt in tried) == 5


def test_an_unknown_name_takes_as_long_as_a_known_one(quick):
    add_people(quick, {"ann": "admin"})

    def seconds(name: str, round_: int) -> float:
        began = time.process_time()
        enter(quick, name, "guess", now=NOW + timedelta(days=round_))
        return time.process_time() - began

    seconds("ann", 0)
    known = sorted(seconds("ann", n) for n in range(3))[1]
    unknown = sorted(seconds("nobody", n) for n in range(3))[1]
    odd = sorted(seconds("no\0body" * 99, n) for n in range(3))[1]
    assert 0.5 < unknown / known < 2
    assert 0.5 < odd / known < 2


# The browser's part


@pytest.fixture
def start(tmp_path):
    """Starts studios and stops them at the end."""
    started = []

    def start_one(name: str = "project", **settings) -> Studio:
        started.append(Studio(tmp_path / name, **settings))
        return started[-1]

    yield start_one
    for one in started:
        one.close()


def test_strangers_get_the_sign_in_page_and_nothing_else(start):
    one = start(people=PEOPLE)
    with one.client() as client:
        for page in ("/", "/people", "/nothing", "/tasks/answer/label", "/sign-in/x", "/x?y=1&z"):
            answer = client.get(page)
            assert answer.status_code == 303
            assert unquote(answer.headers["location"]) == f"/sign-in?back={page}"
        refused = client.get("/api/v1/me", headers={"accept": "*/*"})
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        for header in ("Bearer nonsense", "Bearer", "Basic YW5uOng=", ""):
            headers = {"authorization": header, "accept": "*/*"}
            assert client.get("/api/v1/me", headers=headers).status_code == 401
        assert client.post("/people", data={"name": "eve"}).headers["location"] == "/sign-in?back=/"
        assert client.get("/sign-in").status_code == 200


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(start, scheme):
    one = start(people=PEOPLE)
    # What a proxy that ends TLS says.
    headers = {"x-forwarded-proto": scheme, "x-forwarded-for": "192.0.2.9"}
    with one.client() as client:
        form = {"name": "ann", "password": PASSWORD, "back": "/people"}
        answer = client.post("/sign-in", data=form, headers=headers)
    assert (answer.status_code, answer.headers["location"]) == (303, "/people")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert ("secure" in cookie) == (scheme == "https")
    session = re.match(r"[^=]+=([^;]+)", answer.headers["set-cookie"])[1]
    assert len(session) == 43  # 32 bytes


@pytest.mark.parametrize("back", ["//evil.example", "/\\evil.example", "https://evil.example", ""])
def test_signing_in_leads_to_no_other_site(start, back):
    one = start(people=PEOPLE)
    with one.client() as client:
        form = {"name": "ann", "password": PASSWORD, "back": back}
        assert client.post("/sign-in", data=form).headers["location"] == "/"
        assert "evil" not in client.get("/sign-in", params={"back": back}).text


def test_wrong_passwords_are_refused_then_slowed(start):
    one = start(people=PEOPLE)
    with one.client() as client:
        form = {"name": "ann", "password": "<script>"}
        for _ in range(5):
            answer = client.post("/sign-in", data=form)
            assert answer.status_code == 401
            assert "<script>" not in answer.text
        answer = client.post("/sign-in", data={"name": "ann", "password": PASSWORD})
        assert answer.status_code == 429
        assert 800 < int(answer.headers["retry-after"]) <= 900
        assert "set-cookie" not in answer.headers


def test_a_write_without_the_sessions_token_is_refused(start):
    one = start(people=PEOPLE)
    with one.client("ann") as client, one.client("bob") as other:
        theirs, mine = csrf_of(other), csrf_of(client)
        assert theirs != mine
        form = {"name": "eve", "password": PASSWORD, "role": "annotator"}
        for attempt in (
            {"data": form},
            {"data": form | {"csrf": theirs}},
            {"data": form | {"csrf": ""}},
            {"data": form, "headers": {"x-csrf-token": theirs}},
            {"data": form | {"csrf": mine}, "headers": {"sec-fetch-site": "cross-site"}},
            {"data": form | {"csrf": mine}, "headers": {"sec-fetch-site": "same-site"}},
            {"data": form | {"csrf": mine}, "headers": {"origin": "http://evil.example"}},
            {"data": form | {"csrf": mine}, "headers": {"origin": "null"}},
        ):
            assert client.post("/people", **attempt).status_code == 403, attempt
        with one.store.reading() as connection:
            assert connection.scalar(select(func.count()).select_from(users)) == 2
        assert client.post("/people", data=form | {"csrf": mine}).status_code == 303
        headers = {"x-csrf-token": mine, "origin": one.url, "sec-fetch-site": "same-origin"}
        assert client.post("/sign-out", headers=headers).status_code == 303
        assert client.get("/account").status_code == 303


def test_a_changed_password_ends_every_session(start):
    one = start(people=PEOPLE)
    with one.client("bob") as client, one.client("bob") as elsewhere:
        form = {"csrf": csrf_of(client), "old": "wrong", "new": "a new password"}
        assert client.post("/account", data=form).status_code == 422
        form["old"] = PASSWORD
        assert client.post("/account", data=form | {"new": "short"}).status_code == 422
        assert client.post("/account", data=form).headers["location"] == "/sign-in"
        for signed_out in (client, elsewhere):
            assert signed_out.get("/account").status_code == 303
        entered = client.post("/sign-in", data={"name": "bob", "password": "a new password"})
        assert entered.status_code == 303


def test_a_session_or_token_of_another_project_means_nothing(start):
    here, there = start("here", people=PEOPLE), start("there", people=PEOPLE)
    token = make_token(there.store, "ann", "ci", actor="test", now=datetime.now(UTC))
    with there.client("ann") as client:
        assert client.get(f"{there.url}/account").status_code == 200
        assert client.get(f"{here.url}/account").status_code == 303
    for one, status in ((there, 200), (here, 401)):
        answer = httpx.get(f"{one.url}/api/v1/me", headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == status


def test_without_users_only_who_sits_here_is_let_in(start):
    one = start()
    with one.client() as client:
        assert client.get("/").status_code == 200
        assert client.get("/api/v1/me").json()["role"] == "admin"
        for foreign in (
            {"host": "evil.example"},
            {"host": "127.0.0.1.evil.example"},
            {"host": "[::1"},
            {"x-forwarded-for": "192.0.2.1"},
            {"x-forwarded-for": "127.0.0.1"},
            {"forwarded": "for=192.0.2.1"},
            {"via": "1.1 proxy"},
        ):
            refused = client.get("/api/v1/me", headers={"accept": "*/*", **foreign})
            assert refused.status_code == 401, foreign
        assert client.get("/", headers={"host": "localhost"}).status_code == 200
        assert "no users" in client.get("/sign-in").text
        add_person(one.store, "ann", PASSWORD, "admin", actor="test")
        assert client.get("/").status_code == 303
        remove = {"name": "ann", "password": PASSWORD}
        assert client.post("/sign-in", data=remove).status_code == 303


def test_a_body_too_large_is_refused_with_and_without_its_length(start):
    one = start()
    large = b"x" * (16 * 1024 * 1024 + 1)

    def chunks() -> Iterator[bytes]:
        yield from (large[n : n + 65536] for n in range(0, len(large), 65536))

    with one.client() as client:
        headers = {"content-type": "application/json", "accept": "*/*"}
        for content in (large, chunks()):
            url = "/api/v1/tasks/answer/annotations"
            assert client.post(url, content=content, headers=headers).status_code == 413


def test_only_an_admins_upload_may_be_large(start):
    one = start(people=PEOPLE)
    large = {"file": ("labels.csv", b"x" * (16 * 1024 * 1024 + 1))}
    for name in PEOPLE:
        with one.client(name) as client:
            form = {"csrf": csrf_of(client)}
            for path in ("/tasks/answer/import", "/api/v1/tasks/answer/import"):
                headers = {"x-csrf-token": form["csrf"]}
                answer = client.post(path, files=large, data=form, headers=headers)
                assert (answer.status_code == 413) == (name == "bob"), path


# The commands


def burnish(folder, *arguments: str, say: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "burnish", *arguments]
    return subprocess.run(command, cwd=folder, input=say, capture_output=True, text=True)


def test_users_are_managed_from_the_command_line(tmp_path):
    project = init_project(tmp_path / "project")
    added = burnish(project.root, "users", "add", "ann", "--role", "admin", say=f"{PASSWORD}\n")
    assert added.returncode == 0, added.stderr
    assert burnish(project.root, "users", "add", "bob", say="short\n").returncode == 2
    token = burnish(project.root, "users", "token", "ann", "ci", "--days", "1").stdout.strip()
    assert burnish(project.root, "users", "role", "ann", "reviewer").returncode == 2
    listed = burnish(project.root, "users", "list").stdout
    assert "ann" in listed
    assert "admin" in listed
    assert burnish(project.root, "users", "add", "eve", PASSWORD).returncode == 2
    with closing(open_store(project.store_url)) as store:
        assert enter(store, "ann").session
        assert token_user(store, token, now=datetime.now(UTC)).name == "ann"
    assert re.search(r"ann +ci +2", burnish(project.root, "users", "list").stdout)
    wrong = burnish(project.root, "users", "remove-token", "ann", "c")
    assert (wrong.returncode, "has no token 'c'; did you mean 'ci'?" in wrong.stderr) == (2, True)
    assert burnish(project.root, "users", "remove-token", "ann", "ci").returncode == 0
    assert "ci" not in burnish(project.root, "users", "list").stdout
    with closing(open_store(project.store_url)) as store:
        assert token_user(store, token, now=datetime.now(UTC)) is None


def test_other_machines_are_let_in_only_where_somebody_can_sign_in(tmp_path):
    project = init_project(tmp_path / "project")
    with pytest.raises(ConfigError, match="nobody could sign in"):
        studio(project, host="0.0.0.0", port=0)
    for wrong in ({"port": 70000}, {"processes": 0}):
        with pytest.raises(ConfigError):
            studio(project, **wrong)


@contextmanager
def processes(project: Project, count: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "burnish", "studio", "--port", "0", "--processes", str(count)]
    running = subprocess.Popen(
        command, cwd=project.root, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert running.stdout is not None
    try:
        yield running, running.stdout.readline().split()[1]
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


def workers(parent: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True)
    return [int(line) for line in found.stdout.split()]


def is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until(condition, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_processes_share_a_port_replace_the_dead_and_end_together(tmp_path, end):
    project = init_project(tmp_path / "project")
    with processes(project, 3) as (parent, url):
        wait_until(lambda: len(workers(parent.pid)) == 3)
        assert httpx.get(f"{url}sign-in", timeout=20).status_code == 200
        first = workers(parent.pid)
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: len(set(workers(parent.pid)) - {first[0]}) == 3)
        assert httpx.get(f"{url}sign-in", timeout=20).status_code == 200
        last = workers(parent.pid)
        # Ctrl-C reaches all of a terminal's processes, the others the parent alone.
        os.killpg(parent.pid, end) if end == signal.SIGINT else parent.send_signal(end)
        wait_until(lambda: not any(map(is_running, last)))
        assert parent.wait(10) == (0 if end == signal.SIGINT else -end)


def test_the_limits_hold_over_processes(tmp_path):
    project = init_project(tmp_path / "project")
    with closing(open_store(project.store_url)) as store:
        add_person(store, "ann", PASSWORD, "admin", actor="test")
    with processes(project, 4) as (_, url):

        def guess(_: int) -> int:
            form = {"name": "ann", "password": "guess"}
            return httpx.post(f"{url}sign-in", data=form, timeout=30).status_code

        with ThreadPoolExecutor(8) as pool:
            tried = list(pool.map(guess, range(16)))
    assert sorted(tried) == [401] * 5 + [429] * 11
