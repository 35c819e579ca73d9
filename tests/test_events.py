"""Events as lines: names, fields, and JSON that any reader takes."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import re
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import box

from her2bridge import events
from her2bridge.events import Event, ImageScored, Progress, RunStarted, Warned, counts_by_label, region_rows, to_json
from her2bridge.records import Region, TileCounts

ALL = [one for _, one in inspect.getmembers(events, inspect.isclass) if issubclass(one, Event) and one is not Event]
DOCS = (Path(__file__).parents[1] / "docs" / "events.md").read_text(encoding="utf-8")
VALUES: dict[Any, Any] = {
    str: "µ “x”\n",
    int: 3,
    float: 0.5,
    bool: True,
    types.NoneType: None,
    tuple[str, ...]: ("a", "b"),
    tuple[Mapping[str, Any], ...]: ({"id": "r", "tile_h_score": math.nan, "counts": {"0": 1}},),
    Mapping[str, int]: {"0": 1},
    Mapping[str, float]: {"classifying": 0.5},
    Mapping[str, str]: {"HER2 AI score": "2+"},
}


def made(kind: type[Event]) -> Event:
    """An event whose fields have a value of their type."""
    hints = typing.get_type_hints(kind)
    values = {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        is_union = isinstance(hint, types.UnionType)
        values[field.name] = VALUES[typing.get_args(hint)[0] if is_union else hint]
    return kind(**values)


def test_names_are_the_classes_in_lower_case() -> None:
    assert {one.name for one in ALL} == {
        "run_started",
        "runtime_chosen",
        "image_started",
        "progress",
        "warned",
        "image_timed",
        "image_scored",
        "image_skipped",
        "image_planned",
        "image_failed",
        "restored",
        "restore_finished",
        "run_finished",
        "task_progress",
        "labels_read",
        "dataset_written",
        "training_started",
        "epoch_finished",
        "bundle_written",
        "evaluated",
        "experiment_finished",
        "failed",
    }


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_an_event_is_one_line_of_strict_json(kind: type[Event]) -> None:
    line = to_json(made(kind))
    assert "\n" not in line
    content = json.loads(line, parse_constant=_refuse)
    assert list(content) == ["type", *(field.name for field in dataclasses.fields(kind))]
    assert content["type"] == kind.name


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_events_are_frozen_and_documented(kind: type[Event]) -> None:
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert kind.__doc__
    assert not kind.__doc__.startswith(f"{kind.__name__}(")  # what dataclass writes where there is none


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.name)
def test_the_docs_show_every_event_with_its_fields(kind: type[Event]) -> None:
    section = DOCS.partition(f"\n## `{kind.name}`\n")[2].partition("\n## ")[0]
    fields = [field.name for field in dataclasses.fields(kind)]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == fields
    example = json.loads(section.partition("```json\n")[2].partition("\n```")[0])
    assert list(example) == ["type", *fields]
    assert example["type"] == kind.name


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_what_is_no_number_becomes_null(value: float) -> None:
    content = json.loads(to_json(Progress("a", 1, 2, value, 0.0)), parse_constant=_refuse)
    assert content["tiles_per_second"] == (value if math.isfinite(value) else None)


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    line = to_json(Warned(text, text))
    assert len(line.encode("utf-8", "surrogatepass").split(b"\n")) == 1
    assert json.loads(line) == {"type": "warned", "image": text, "message": text}


def test_nan_is_null_however_deep() -> None:
    event = made(ImageScored)
    content = json.loads(to_json(event), parse_constant=_refuse)
    assert content["regions"] == [{"id": "r", "tile_h_score": None, "counts": {"0": 1}}]
    assert content["review"] == ["a", "b"]


def test_the_first_event_carries_the_schema() -> None:
    content = json.loads(to_json(RunStarted("id", "0.1.0", "files", "m", 1, dry_run=False)))
    assert content["schema"] == events.SCHEMA == 1
    assert content["dry_run"] is False


def test_counts_and_regions() -> None:
    counts = TileCounts((1, 2, 3, 4, 5, 6))
    assert counts_by_label(counts) == {"0": 1, "1+": 2, "2+": 3, "3+": 4, "normal": 5, "noise": 6}
    region = Region("id", None, "Tumor", box(0, 0, 1, 1))
    assert region_rows([region], [counts]) == (
        {"id": "id", "name": None, "class": "Tumor", "counts": counts_by_label(counts), "tile_h_score": 200.0},
    )
    with pytest.raises(ValueError, match="shorter"):
        region_rows([region], [])


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")
