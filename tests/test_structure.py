"""The rules of structure: arrows of imports, a base without torch, the public interface, the docs.

Run: pytest tests/test_structure.py
"""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from burnish.cli.main import burnish
from burnish.config import build_config, read_toml, settings_of
from burnish.project import TABLES

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "burnish"

# Lowest first; a module imports from its own layer's floor down, never up.
LAYERS = (
    {"types", "errors", "config", "hashing", "files", "progress", "units"}
    | {"burnish", "templates"},
    {"project", "tasks", "records", "store", "chat"},
    {"nn"},
    {"collect", "label", "audit", "snapshot", "trace"}
    | {"pretrain", "tune", "evaluate", "serve", "export"},
    {"web"},
    {"console", "demo", "cli", "__main__"},
)
STAGES = LAYERS[3]
TORCH_SIDE = {"nn", "pretrain", "tune", "evaluate", "serve", "export", "demo"}
TORCH = {"torch", "transformers", "peft", "safetensors"}


def room(path: Path) -> str:
    """The package or module under burnish that a file belongs to."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return "burnish" if parts == ("__init__",) else parts[0]


def layer(name: str) -> int:
    [found] = [n for n, layer in enumerate(LAYERS) if name in layer]
    return found


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Modules a file imports, and whether at run time at its top (not inside a function)."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            yield name, node in tree.body


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_arrows_of_imports_point_one_way(path):
    here = room(path)
    for name, _ in imports(path):
        if not name.startswith("burnish."):
            continue
        there = name.split(".")[1]
        assert layer(there) <= layer(here), f"{here} imports {there}, which stands above it"
        if here in STAGES and there in STAGES:
            assert here == there, f"stage {here} imports stage {there}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_torch_is_imported_only_where_tensors_are(path):
    here = room(path)
    for name, at_top in imports(path):
        package = name.split(".")[0]
        if package in TORCH:
            assert here in TORCH_SIDE, f"{here} imports {name}"
        if name.startswith("burnish.") and name.split(".")[1] in TORCH_SIDE and at_top:
            assert here in TORCH_SIDE, f"{here} imports {name} when it starts, and torch with it"


def test_every_file_is_a_room_of_reasonable_size():
    long = {
        str(p.relative_to(SOURCE)): n for p in FILES if (n := len(p.read_text().splitlines())) > 450
    }
    assert not long


BLOCKED = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "peft", "safetensors", "tokenizers"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

sys.meta_path.insert(0, Blocked())
from burnish.cli import main
main(sys.argv[1:])
"""


def without_torch(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", BLOCKED, *arguments], cwd=cwd, capture_output=True, text=True
    )


def test_the_words_side_works_without_torch(tmp_path):
    rows = (f'{{"prompt": "a {n}", "completion": "b"}}\n' for n in range(30))
    (tmp_path / "rows.jsonl").write_text("".join(rows))
    for arguments in (
        ["--help"],
        ["init", "."],
        ["collect", "rows.jsonl"],
        ["label", "status"],
        ["audit"],
        ["snapshot"],
        ["tune", "--help"],
        ["studio", "--help"],
    ):
        result = without_torch(*arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stderr
    result = without_torch("tune", "rows.jsonl", "--base", "starter", "--out", "t", cwd=tmp_path)
    assert result.returncode == 2
    assert "pip install 'burnish[train]'" in result.stderr
    assert "Traceback" not in result.stderr
    # A misspelt base is told before the seconds that importing torch takes.
    result = without_torch("label", "draft", "--model", "nope", cwd=tmp_path)
    assert result.returncode == 2
    assert "there is no such base" in result.stderr


# The interface is stable: a change here is a change for every user and must be argued for.
INTERFACE = {
    "init": "FOLDER",
    "collect": "SOURCES --as --licence --consent --subject",
    "label import": "FILE --annotator --format --task",
    "label export": "--out --format --task",
    "label status": "--task --json",
    "label resolve": "--task",
    "label errors": "--limit --task --json",
    "label quote": "--price-per-hour --task --json",
    "label draft": "--model --endpoint --api-key-env --task --limit --max-tokens --temperature "
    "--seed --chat",
    "label order": "--by --model --task --chat",
    "label pairs": "--out --task",
    "users add": "NAME --role",
    "users list": "",
    "users role": "NAME NEW",
    "users password": "NAME",
    "users token": "NAME PURPOSE --days",
    "users remove-token": "NAME PURPOSE",
    "users remove": "NAME",
    "audit": "--fix --task --json",
    "snapshot": "--name --split-field --task --json",
    "pretrain": "TEXT --out --base --max-steps --json --set --config",
    "tune": "DATA --base --out --technique --epochs --max-steps --price-per-hour --watts "
    "--dry-run --json --set --config",
    "generate": "MODEL --data --out --max-tokens --temperature --seed --chat",
    "evaluate": "MODEL --against --data --score --out --limit --json --chat --set --config",
    "serve": "MODEL --port --host --api-key-env --set --config",
    "export": "MODEL --to --out",
    "trace": "REFERENCE",
    "cache": "--clear",
    "studio": "--host --port --processes",
    "demo": "--out",
}


def commands(group: click.Group = burnish, prefix: str = "") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[f"{prefix}{name}"] = command
    return found


def words_of(command: click.Command) -> set[str]:
    words = set()
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            words.add((parameter.name or "").rstrip("_").upper())
        else:
            words.add(max(parameter.opts, key=len))
    return words


def test_the_public_interface_is_as_written():
    assert {n: words_of(c) for n, c in commands().items()} == {
        n: set(words.split()) for n, words in INTERFACE.items()
    }


@pytest.mark.parametrize("name", INTERFACE)
def test_every_command_and_option_says_what_it_does(name):
    command = commands()[name]
    assert command.help
    assert all(p.help for p in command.params if isinstance(p, click.Option))


DOCS = [ROOT / "README.md", ROOT / "AGENTS.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCS += sorted((ROOT / "recipes").glob("*.md"))


def documented_commands() -> list[tuple[str, str]]:
    """Every `burnish ...` line in a fenced block of the docs, continuation lines joined."""
    found = []
    for path in DOCS:
        for block in re.findall(r"^```[^\n]*\n(.*?)^```", path.read_text(), re.S | re.M):
            for line in block.replace("\\\n", " ").splitlines():
                # What a command does stands behind it, set off by # or three spaces.
                line = re.split(r" #| {3}", line.removeprefix("$ "))[0].strip()
                if line.startswith("burnish "):
                    found.append((path.name, line))
    return found


@pytest.mark.parametrize(("page", "line"), documented_commands())
def test_commands_in_the_docs_exist(page, line):
    words = shlex.split(line.split(" | ")[0].split(" > ")[0])[1:]
    known = commands()
    name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
    if name.startswith("-"):
        return
    assert name in known, f"{page}: {line}"
    options = {opt for p in known[name].params for opt in p.opts} | {"--help", "-h"}
    for word in words:
        if word.startswith("--"):
            assert word.split("=")[0] in options, f"{page}: {line}"


@pytest.mark.parametrize("name", sorted({n.split(" ")[0] for n in INTERFACE}))
def test_every_command_is_documented(name):
    assert any(f"burnish {name}" in path.read_text() for path in DOCS)


def test_links_in_the_docs_lead_somewhere():
    for path in DOCS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


CONFIGS = {
    "pretrain": ("burnish.pretrain", "PretrainConfig"),
    "tune": ("burnish.tune.config", "TuneConfig"),
    "evaluate": ("burnish.evaluate.evaluate", "EvaluateConfig"),
    "serve": ("burnish.serve.serve", "ServeConfig"),
    "label": ("burnish.tasks", "Task"),
    "collect": ("burnish.collect.collect", "CollectConfig"),
    "audit": ("burnish.audit.audit", "AuditConfig"),
    "snapshot": ("burnish.snapshot", "SnapshotConfig"),
}
# The command's arguments and flags say these, and a table's name the task's.
NOT_IN_TABLES = {"collect": {"sources", "rejects"}, "label": {"name"}}


@pytest.mark.parametrize("stage", CONFIGS)
def test_every_setting_is_documented_in_source_and_on_its_page(stage):
    page = (ROOT / "docs" / f"{stage}.md").read_text()
    for setting in settings_of(*CONFIGS[stage]):
        assert setting.doc, f"{stage}.{setting.name} has no docstring"
        assert f"`{setting.name}`" in page, f"docs/{stage}.md does not name {setting.name}"


@pytest.mark.parametrize("stage", CONFIGS)
def test_help_lists_the_settings_of_each_table(stage):
    """As burnish.toml and the error about a misspelt setting promise."""
    assert stage in TABLES
    help_ = burnish.commands[stage].epilog or ""
    listed = {line.split(" [")[0].partition(":")[0] for line in help_.split("\n\n")[1:]}
    settings = {setting.name for setting in settings_of(*CONFIGS[stage])}
    assert listed == settings - NOT_IN_TABLES.get(stage, set())


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda p: p.name)
def test_shipped_recipes_build_their_config(path):
    from importlib import import_module

    tables = read_toml(path)
    assert tables, path
    for stage, values in tables.items():
        module, name = CONFIGS[stage]
        build_config(getattr(import_module(module), name), values, where=path.name)


def test_nothing_names_this_workplace():
    """What is committed reads the same on every machine."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        if path.suffix in {".py", ".md", ".toml", ".html", ".js", ".css", ".jinja", ".txt", ""}:
            text = path.read_text(errors="replace")
            assert not re.search(r"(?<![\w.])/(?:root|home/\w+)/", text), name
            assert not re.search(r"pypi\.org|registry\.npmjs", text), name


def test_the_readmes_tree_has_every_file():
    tree = (ROOT / "README.md").read_text().partition("src/burnish/\n")[2].partition("```")[0]
    words = set(tree.split())
    for path in FILES:
        if path.name != "__init__.py" and "migrations" not in path.parts:
            assert path.name in words, path
