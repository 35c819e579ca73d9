"""Thresholds from a file's table: what is taken and what is refused."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest

from her2bridge.errors import UsageError
from her2bridge.scoring import ScoreSettings

SHARES = ("doubt_low", "doubt_high", "max_noise", "max_normal", "biopsy_certainty", "min_whspn_margin")
NUMBERS = ("min_tumour_tiles", "min_tumour_mm2", "biopsy_focus_um2")


def test_every_setting_is_a_share_or_a_number() -> None:
    assert {field.name for field in dataclasses.fields(ScoreSettings)} == {*SHARES, *NUMBERS}


def test_defaults_are_the_designs() -> None:
    assert ScoreSettings() == ScoreSettings(50, 0.2, 0.05, 0.15, 0.20, 0.60, 0.9, 1500.0, 0.2)


def test_an_empty_table_gives_the_defaults() -> None:
    assert ScoreSettings.from_mapping({}, where="run.toml") == ScoreSettings()


def test_a_table() -> None:
    settings = ScoreSettings.from_mapping({"min_tumour_tiles": 20, "max_noise": 0.5}, where="run.toml")
    assert settings == dataclasses.replace(ScoreSettings(), min_tumour_tiles=20, max_noise=0.5)


@pytest.mark.parametrize("name", SHARES + NUMBERS)
@pytest.mark.parametrize("value", [0, 1, 0.5])
def test_taken(name: str, value: float) -> None:
    wide = {"doubt_low": 0, "doubt_high": 1, name: value}
    assert getattr(ScoreSettings.from_mapping(wide, where="x"), name) == value


@pytest.mark.parametrize("name", SHARES + NUMBERS)
@pytest.mark.parametrize("value", [-1, -1e-9, math.nan, math.inf, "0.5", None, True, [0.5]])
def test_refused(name: str, value: Any) -> None:
    with pytest.raises(UsageError) as caught:
        ScoreSettings.from_mapping({name: value}, where="run.toml")
    assert caught.value.where == "run.toml"
    assert name in caught.value.what
    assert str(getattr(ScoreSettings(), name)) in caught.value.next_step


@pytest.mark.parametrize("name", SHARES)
def test_a_share_is_no_percentage(name: str) -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        ScoreSettings.from_mapping({name: 10}, where="run.toml")


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_may_be_large(name: str) -> None:
    assert getattr(ScoreSettings.from_mapping({name: 5000}, where="x"), name) == 5000


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'min_tumor_tiles'") as caught:
        ScoreSettings.from_mapping({"min_tumor_tiles": 20}, where="run.toml")
    assert "min_tumour_tiles" in caught.value.next_step


def test_doubt_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(UsageError, match="doubt_high"):
        ScoreSettings.from_mapping({"doubt_low": 0.3}, where="run.toml")
