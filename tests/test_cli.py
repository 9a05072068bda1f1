"""Commands as a user runs them: wrong input gives one clear message and exit code 2.

Run: pytest tests/test_cli.py
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from burnish.cli import main
from tiny import tiny_base

ROW = '{"prompt": "balance?", "completion": "100"}\n'


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def burnish(capsys, *arguments: object) -> tuple[int, str, str]:
    """Run a command in this process: (exit code, standard output, standard error)."""
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(end.value.code or 0), captured.out, captured.err


def assert_users_fault(result: tuple[int, str, str], *words: str) -> None:
    code, _, error = result
    assert code == 2, error
    assert "Traceback" not in error
    for word in words:
        assert word in error, error


BAD_DATA = {
    "missing.jsonl": (None, "missing.jsonl"),
    "empty.jsonl": ("", "empty.jsonl"),
    "broken.jsonl": (ROW + '{"prompt": "a", \n', "broken.jsonl"),
    "columns.jsonl": ('{"colour": "red", "size": 3}\n', "colour"),
    "columns.csv": ("colour,size\nred,3\n", "colour"),
    "data.xyz": (ROW, "data.xyz"),
    "latin1.jsonl": (b'{"prompt": "caf\xe9", "completion": "b"}\n', "latin1.jsonl"),
    "list.json": ('"just a text"', "list.json"),
}


@pytest.mark.parametrize("name", BAD_DATA)
def test_data_that_cannot_be_trained_on(base, here, capsys, name):
    content, word = BAD_DATA[name]
    if isinstance(content, bytes):
        (here / name).write_bytes(content)
    elif content is not None:
        (here / name).write_text(content)
    if name == "broken.jsonl":
        (here / name).write_text('{"prompt": "a", \n')  # nothing but a broken line
    result = burnish(capsys, "tune", name, "--base", base, "--out", "tuned", "--max-steps", 1)
    assert_users_fault(result, word)
    assert {p.name for p in here.iterdir()} <= {name}


def test_a_broken_line_is_named_and_kept(base, here, capsys):
    (here / "rows.jsonl").write_text(ROW + "{broken\n" + ROW.replace("100", ""))
    code, _, error = burnish(
        capsys, "tune", "rows.jsonl", "--base", base, "--out", "tuned", "--max-steps", 1
    )
    assert code == 0, error
    kept = [
        json.loads(line) for line in (here / "tuned" / "rejects.jsonl").read_text().splitlines()
    ]
    assert kept[0]["line"] == 2
    assert "JSON" in kept[0]["reason"]
    assert kept[1]["reason"] == "the answer is empty"


def test_bases_options_and_settings_that_are_wrong(base, here, capsys):
    (here / "rows.jsonl").write_text(ROW)
    (here / "notes").mkdir()
    tune = ["tune", "rows.jsonl", "--out", "tuned"]
    assert_users_fault(burnish(capsys, *tune, "--base", "notes"), "no model", "config.json")
    assert_users_fault(burnish(capsys, *tune, "--base", "rows.jsonl"), "no .gguf")
    assert_users_fault(burnish(capsys, *tune, "--base", base, "--epoch", 3), "--epochs")
    assert_users_fault(
        burnish(capsys, *tune, "--base", base, "--set", "lora_rnk=3", "--set", "epochs=many"),
        "did you mean 'lora_rank'",
        "epochs = 'many': must be a number",
    )
    assert_users_fault(burnish(capsys, *tune, "--base", base, "--technique", "loraa"), "'lora'")
    assert_users_fault(burnish(capsys, *tune), "base is missing")
    assert_users_fault(burnish(capsys, "tume"), "tume")
    assert {p.name for p in here.iterdir()} == {"rows.jsonl", "notes"}


def test_settings_of_the_project_file_are_checked_too(base, here, capsys):
    assert burnish(capsys, "init")[0] == 0
    with (here / "burnish.toml").open("a") as file:
        file.write("\n[tune]\nlearning_rat = 1e-3\n")
    (here / "rows.jsonl").write_text(ROW)
    result = burnish(capsys, "tune", "rows.jsonl", "--base", base, "--out", "tuned")
    assert_users_fault(result, "burnish.toml [tune]", "did you mean 'learning_rate'")


def test_commands_outside_a_project_say_so(here, capsys):
    for command in ("collect x.jsonl", "audit", "snapshot", "label status", "trace x", "studio"):
        assert_users_fault(burnish(capsys, *command.split()), "burnish init")


def test_json_is_the_last_line_and_the_run_is_repeatable(base, here, capsys):
    (here / "rows.jsonl").write_text(ROW * 3)
    command = ["tune", "rows.jsonl", "--base", base, "--max-steps", 2, "--json", "--out"]
    code, output, _ = burnish(capsys, *command, "tuned")
    assert code == 0
    metrics = json.loads(output.splitlines()[-1])
    assert metrics["checkpoint"] == "tuned"
    assert metrics["steps"] == 2
    again = burnish(capsys, "tune", "--config", "tuned/run.toml", "--out", "again", "--json")
    assert json.loads(again[1].splitlines()[-1])["losses"] == metrics["losses"]
    code, output, _ = burnish(capsys, *command, "tuned", "--dry-run")
    assert code == 0
    assert json.loads(output.splitlines()[-1])["examples"] == 3


def test_the_loop_of_commands_closes(base, here, capsys):
    """init, collect, label, audit, snapshot, tune, evaluate, generate, export, trace."""
    asked = {"balance": "what is my balance", "pay_bill": "pay my bill", "oos": "who are you"}
    with (here / "rows.jsonl").open("w") as file:
        for n in range(12):
            for text in asked.values():
                turns = [{"role": "user", "content": f"{text} {n}"}]
                split = "train" if n < 8 else "test"
                file.write(json.dumps({"messages": turns, "split": split}) + "\n")
    with (here / "labels.csv").open("w") as file:
        file.write("prompt,answer,annotator\n")
        for n in range(12):
            for label, text in asked.items():
                file.write(f"{text} {n},{label},ada\n")
    road = (
        "init",
        "collect rows.jsonl --licence CC-BY-4.0",
        "label import labels.csv",
        "label import labels.csv",
        "label status --json",
        "audit --fix",
        "snapshot --name first --split-field split --json",
        f"tune first --base {base} --out tuned --technique full --max-steps 3 --json",
        f"evaluate tuned --against {base} --data first --out report --set max_tokens=4 --json",
        "generate tuned --data rows.jsonl --out answers.jsonl --max-tokens 4",
        "label export --out out.jsonl",
        "trace first",
    )
    outputs = {}
    for line in road:
        code, output, error = burnish(capsys, *line.split())
        assert code == 0, (line, error)
        outputs[line.split()[0]] = output
    assert "snapshot-" in outputs["trace"]
    assert "ada" in outputs["trace"]
    assert len((here / "answers.jsonl").read_text().splitlines()) == 36
    assert len((here / "out.jsonl").read_text().splitlines()) == 36
    report = json.loads(outputs["evaluate"].splitlines()[-1])
    assert report["items"] == 12
    assert report["clean"] is True
    example_id = json.loads((here / "out.jsonl").read_text().splitlines()[0])["example_id"]
    code, output, _ = burnish(capsys, "trace", example_id)
    assert code == 0
    for word in ("ada", "snapshot-", "checkpoint-", "report-"):
        assert word in output
    assert_users_fault(burnish(capsys, "trace", "nothing"), "no example, annotation or artefact")


def test_all_sources_that_cannot_be_read_come_in_one_message(here, capsys):
    assert burnish(capsys, "init")[0] == 0
    (here / "reports.jsonl").write_text('{"full_text": "a", "spans": []}\n')
    (here / "odd.jsonl").write_text('{"size": 3}\n')
    missing = ("exports/", "logs/*.jsonl", "http://127.0.0.1:9/faq.json")
    result = burnish(capsys, "collect", *missing, "reports.jsonl", "odd.jsonl")
    assert_users_fault(
        result,
        "5 sources",
        "exports",
        "logs/*.jsonl",
        "faq.json",
        "'text' (there is 'full_text')",
        "odd.jsonl",
        "the plainest format",
    )


def test_short_work_is_silent_where_bars_cannot_be_drawn(here, capsys):
    assert burnish(capsys, "init")[0] == 0
    (here / "rows.jsonl").write_text(ROW * 50)
    assert burnish(capsys, "collect", "rows.jsonl")[::2] == (0, "")


@pytest.mark.parametrize("number", ["nan", "inf", "-1", "many"])
def test_a_number_is_finite_and_in_its_range(here, capsys, number):
    assert burnish(capsys, "init")[0] == 0
    (here / "rows.jsonl").write_text(ROW)
    draft = ("label", "draft", "--model", "m", "--endpoint", "http://127.0.0.1:9/v1")
    tune = ("tune", "rows.jsonl", "--base", "starter", "--out", "tuned")
    for command in (
        (*draft, f"--temperature={number}"),
        (*tune, f"--watts={number}"),
        (*tune, f"--epochs={number}"),
        (*tune, f"--set=learning_rate={number}"),
    ):
        assert_users_fault(burnish(capsys, *command), number)


@pytest.mark.parametrize("command", ["--help", "tune --help", "label status", "label --help"])
def test_a_reader_that_leaves_is_no_failure(here, capsys, command):
    """As in `burnish label status | head -1`, where head is quicker than burnish."""
    assert burnish(capsys, "init")[0] == 0
    process = start(*command.split(), cwd=here)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
    process.stderr.close()


ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["README.md", "docs/label.md"])
def test_the_labelling_walk_works_as_shown(here, page):
    """Its commands as they stand in the page, by a shell; at the studio somebody answers."""
    blocks = re.findall(r"^```\n(source .*?)^```", (ROOT / page).read_text(), re.S | re.M)
    [walk] = [block for block in blocks if "burnish studio" in block]
    requests = here / "clone" / "src" / "burnish" / "demo" / "new_requests.txt"
    requests.parent.mkdir(parents=True)
    requests.write_bytes((ROOT / "src" / "burnish" / "demo" / requests.name).read_bytes())
    asked = len(requests.read_text().splitlines())
    activate = Path(sys.prefix, "bin", "activate")
    walk = walk.replace("source .venv/bin/activate", f"source {activate}")
    before, studio, after = re.split(r"^(burnish studio)\b.*\n", walk, flags=re.M)
    shell(before, cwd=here / "clone")
    process = start(*studio.split()[1:], "--port", "0", cwd=here / "clone" / "bank")
    assert process.stdout is not None
    url = process.stdout.readline().split()[1]
    with httpx.Client(base_url=f"{url}api/v1/tasks/answer", timeout=60) as client:
        for n in range(asked):
            example = client.post("/next").raise_for_status().json()["example"]["id"]
            sent = {"client_id": str(n), "example_id": example, "answer": "card"}
            client.post("/annotations", json=sent).raise_for_status()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    output = shell(f"source {activate}\n{after}", cwd=here / "clone" / "bank")
    assert f"{asked} of {asked} complete" in output
    assert "snapshot-" in output
    assert len((here / "clone" / "bank" / "labels.csv").read_text().splitlines()) == asked + 1


def shell(script: str, cwd: Path) -> str:
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "burnish", *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_ctrl_c_stops_cleanly_and_the_same_command_goes_on(base, here, capsys):
    (here / "rows.jsonl").write_text("".join(ROW.replace("100", str(n)) for n in range(40)))
    command = ["tune", "rows.jsonl", "--base", base, "--epochs", 400, "--out", "tuned"]
    process = start(*command, cwd=here)
    deadline = time.monotonic() + 60
    while not (here / "tuned.partial").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.0)  # into the preflight or the first steps
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 2, error
    assert "stopped by Ctrl-C" in error
    assert "Traceback" not in error
    assert (here / "tuned.partial").exists()
    assert not (here / "tuned").exists()
    shorter = burnish(capsys, *command, "--max-steps", 3)
    assert_users_fault(shorter, "holds another run", "max_steps")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 300 kB: less than the checkpoint needs."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_is_said_and_leaves_nothing_half_written(base, small_disk, here, capsys):
    (here / "rows.jsonl").write_text(ROW * 8)
    out = small_disk / "tuned"
    command = ["tune", "rows.jsonl", "--base", base, "--technique", "full", "--max-steps", 2]
    result = burnish(capsys, *command, "--out", out)
    assert_users_fault(result, "the disk is full", "free some space")
    assert not out.exists()
    left = [p for p in small_disk.rglob("*") if p.suffix == ".tmp" or p.name == "state.pt"]
    assert left == []
    assert burnish(capsys, *command, "--out", "tuned")[0] == 0
