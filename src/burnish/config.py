"""Settings: TOML and `--set key=value` into frozen dataclasses.

Every fault is reported in one error, and an unknown key names the nearest known one: a misspelt
setting that is silently ignored costs a whole run (hiyouga/LLaMA-Factory#7577).
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import importlib.util
import math
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w

from burnish.errors import ConfigError, InputError
from burnish.files import replaced_file

T = TypeVar("T")


def build_config(cls: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Make a config dataclass from plain values, checking names and types.

    `where` names the place the values came from in messages, such as `burnish.toml [tune]`.

    Raises:
        ConfigError: unknown, missing or ill-typed keys, all of them in one message.
    """
    assert dataclasses.is_dataclass(cls)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
    faults: list[str] = []
    accepted: dict[str, Any] = {}
    for key, value in values.items():
        if key not in fields:
            faults.append(f"there is no setting {key!r}{did_you_mean(key, fields)}")
            continue
        try:
            accepted[key] = _coerce(value, hints[key])
        except ValueError as error:
            faults.append(f"{key} = {value!r}: {error}")
    for name, f in fields.items():
        no_default = f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if no_default and name not in values:
            faults.append(f"{name} is missing")
    if not faults:
        try:
            return cls(**accepted)
        except ConfigError as error:
            # A config's own __post_init__ checks ranges and what goes with what.
            faults.append(error.what)
    do = "mend each line above; `burnish COMMAND --help` lists the settings"
    raise ConfigError("\n    ".join(faults), where=where, do=do)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or the list of them when none is near."""
    known = sorted(known)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(known)}"


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Read `--set key=value` pairs; a value that is no TOML is taken as a string.

    Raises:
        ConfigError: pairs without `=`, all of them in one message.
    """
    values: dict[str, Any] = {}
    faults = []
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key.strip():
            faults.append(f"{pair!r} is not of the form key=value")
            continue
        try:
            values[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            values[key.strip()] = text.strip()
    if faults:
        raise ConfigError("\n    ".join(faults), where="--set", do="write --set lora_rank=8")
    return values


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; errors name the file and the line."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror})", where=str(path), do="check the path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"is not valid TOML: {error}", where=str(path)) from error


def write_toml(path: Path, config: Any, *, table: str, comment: str) -> None:
    """Write every field of a config, defaults included, under `[table]`, so that a run repeats.

    TOML has no null: a field that is None is left out, and None is its default.
    """
    values = {name: _to_toml(value) for name, value in _fields(config) if value is not None}
    text = f"# {comment}\n\n" + tomli_w.dumps({table: values})
    with replaced_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _fields(config: Any) -> Iterable[tuple[str, Any]]:
    return ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config) if f.init)


def _to_toml(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_to_toml(v) for v in value]
    return value


def _coerce(value: Any, hint: Any) -> Any:
    """`value` as the annotated type, or ValueError saying what would fit."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return _coerce_union(value, args)
    if origin is Literal:
        if value in args:
            return value
        choices = ", ".join(repr(a) for a in args)
        raise ValueError(f"must be one of {choices}")
    if origin is tuple:
        return tuple(_coerce(v, args[0]) for v in (value if isinstance(value, list) else [value]))
    return _coerce_plain(value, hint)


def _coerce_union(value: Any, args: tuple[Any, ...]) -> Any:
    if value is None and type(None) in args:
        return None
    faults = []
    for arg in args:
        if arg is type(None):
            continue
        try:
            return _coerce(value, arg)
        except ValueError as error:
            faults.append(str(error))
    raise ValueError(" or ".join(faults))


def _coerce_plain(value: Any, hint: Any) -> Any:
    # bool is an int in Python; `epochs = true` is a mistake all the same.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # TOML knows nan, which passes every check of a range, and inf.
    if hint is float and is_number and math.isfinite(value):
        return float(value)
    if hint is int and is_number and math.isfinite(value) and float(value).is_integer():
        return int(value)
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str and isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return str(value)
    if hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
    raise ValueError(f"must be {names.get(hint, 'a path')}")


@dataclasses.dataclass(frozen=True, slots=True)
class Setting:
    """One field of a config dataclass, as its source documents it."""

    name: str
    type: str
    default: str | None
    """The default as written in the source; None when the setting is required."""
    doc: str


def settings_of(module: str, class_name: str) -> list[Setting]:
    """The documented fields of a config dataclass, read from source without importing it.

    Importing `burnish.tune` would import torch, which `--help` must not need.
    """
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    [body] = [n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == class_name]
    settings = []
    for node, following in pairwise(body):
        if not isinstance(node, ast.AnnAssign):
            continue
        settings.append(
            Setting(
                ast.unparse(node.target),
                ast.unparse(node.annotation),
                ast.unparse(node.value) if node.value else None,
                " ".join(_docstring(following).split()),
            )
        )
    return settings


def _docstring(node: ast.stmt) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return str(node.value.value)
    return ""
