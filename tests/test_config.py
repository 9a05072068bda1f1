"""Settings: typed, checked all at once, read back as written. Run: pytest tests/test_config.py"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from burnish.config import build_config, parse_overrides, read_toml, settings_of, write_toml
from burnish.errors import ConfigError, InputError


@dataclass(frozen=True)
class Oven:
    bread: str
    """What is baked."""
    degrees: float = 220.0
    steam: bool = False
    loaves: int = 1
    mode: Literal["top", "bottom"] = "top"
    timers: tuple[int, ...] = ()
    note: str | None = None
    place: Path = Path("kitchen")


def test_values_become_the_annotated_types():
    oven = build_config(
        Oven,
        {"bread": "rye", "degrees": 200, "timers": [5, 10], "place": "cellar", "loaves": 2.0},
        where="test",
    )
    assert oven == Oven("rye", 200.0, loaves=2, timers=(5, 10), place=Path("cellar"))
    assert isinstance(oven.degrees, float)
    assert isinstance(oven.loaves, int)


def test_every_fault_is_reported_at_once():
    with pytest.raises(ConfigError) as error:
        build_config(
            Oven,
            {"degres": 1, "steam": 1, "loaves": 1.5, "mode": "side", "timers": ["x"]},
            where="burnish.toml [oven]",
        )
    text = str(error.value)
    assert "burnish.toml [oven]" in text
    assert "did you mean 'degrees'" in text
    assert "steam = 1: must be true or false" in text
    assert "loaves = 1.5: must be a whole number" in text
    assert "must be one of 'top', 'bottom'" in text
    assert "timers" in text
    assert "bread is missing" in text


@pytest.mark.parametrize("value", [True, "7", None, float("nan"), float("inf"), -float("inf")])
def test_a_number_is_a_number(value):
    for name in ("degrees", "loaves"):
        with pytest.raises(ConfigError, match=name):
            build_config(Oven, {"bread": "rye", name: value}, where="test")


def test_overrides_are_toml_or_text():
    pairs = ["a=1", "b=1e-3", "c=true", "d=all-linear", "e=[1, 2]", 'f="1"', "g = x = y "]
    assert parse_overrides(pairs) == {
        "a": 1,
        "b": 1e-3,
        "c": True,
        "d": "all-linear",
        "e": [1, 2],
        "f": "1",
        "g": "x = y",
    }
    with pytest.raises(ConfigError, match="'lora_rank' is not of the form"):
        parse_overrides(["lora_rank", "=3"])


def test_what_is_written_reads_back(tmp_path):
    oven = Oven('a "quoted" \\ one\nand é', timers=(1, 2), place=tmp_path)
    write_toml(tmp_path / "run.toml", oven, table="oven", comment="a test")
    values = read_toml(tmp_path / "run.toml")["oven"]
    assert build_config(Oven, values, where="run.toml") == oven


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "bad.toml").write_text("[oven\n")
    with pytest.raises(ConfigError, match=r"bad.toml: is not valid TOML"):
        read_toml(tmp_path / "bad.toml")
    with pytest.raises(InputError, match="No such file"):
        read_toml(tmp_path / "none.toml")


def test_settings_are_read_from_source_without_an_import():
    settings = {s.name: s for s in settings_of("burnish.tune.config", "TuneConfig")}
    assert settings["lora_rank"].default == "16"
    assert settings["data"].default is None
    assert all(s.doc for s in settings.values())
