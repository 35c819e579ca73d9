"""Settings that cannot be are refused when they are made, for the command line and for library users alike."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from her2bridge.errors import UsageError
from her2bridge.settings import RunSettings


@pytest.mark.parametrize(
    ("field", "value", "option"),
    [
        ("device", "gpu", "--device"),
        ("device", "cuda:", "--device"),
        ("device", "cuda:x", "--device"),
        ("device", "cuda:١", "--device"),
        ("precision", "fp64", "--precision"),
        ("runtime", "onnx", "--runtime"),
        ("whspn", "", "--whspn"),
        ("whspn", "MLP", "--whspn"),
        ("min_overlap", 0.0, "--min-overlap"),
        ("min_overlap", 2.0, "--min-overlap"),
        ("min_overlap", math.nan, "--min-overlap"),
        ("batch_size", 0, "--batch-size"),
        ("mpp", 0.0, "--mpp"),
        ("mpp", math.inf, "--mpp"),
        ("class_prefix", "", "--class-prefix"),
        ("class_prefix", " ", "--class-prefix"),
        ("class_prefix", "HER2: tile", "--class-prefix"),
        ("class_prefix", "HER2\n", "--class-prefix"),
        ("class_prefix", "\nHER2", "--class-prefix"),
        ("relocations", (("/old", "/new"), ("", "/new")), "--relocate"),
    ],
)
def test_what_cannot_be(field: str, value: Any, option: str) -> None:
    with pytest.raises(UsageError) as caught:
        RunSettings(**{field: value})
    assert caught.value.where == option
    assert caught.value.what.startswith(f"{option} cannot be ")
    assert caught.value.next_step
    with pytest.raises(UsageError):
        replace(RunSettings(), **{field: value})


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({"whole_slide": True, "region_classes": ("Tumor",)}, "--whole-slide and --region-class"),
        ({"device": "cpu", "require_gpu": True}, "--device cpu and --require-gpu"),
        ({"runtime": "openvino", "require_gpu": True}, "--runtime openvino and --require-gpu"),
    ],
)
def test_what_cannot_be_together(fields: dict[str, Any], options: str) -> None:
    with pytest.raises(UsageError, match=options):
        RunSettings(**fields)
    for name, value in fields.items():
        RunSettings(**{name: value})


@pytest.mark.parametrize(
    "fields",
    [
        {"device": "cuda"},
        {"device": "cuda:12"},
        {"device": "mps"},
        {"min_overlap": 1.0},
        {"min_overlap": 0.01},
        {"batch_size": 1},
        {"whspn": "svm"},
        {"whspn": "none"},
        {"mpp": 0.25},
        {"class_prefix": "HER2 AI"},
        {"relocations": (("/old", ""),)},
        {"whole_slide": True, "exclude_classes": ("Necrosis",)},
    ],
)
def test_what_can(fields: dict[str, Any]) -> None:
    RunSettings(**fields)
