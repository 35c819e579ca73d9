"""The example that sets the border of 3+ by labelled tiles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
sys.path[:0] = [str(EXAMPLES), str(Path(__file__).parent / "training")]

from made_evaluations import colour_bundle, coloured  # noqa: E402
from made_samples import tiny_network  # noqa: E402
from set_border import leave_one_out, mixed, raised, rise_of  # noqa: E402


def logits(*rows: tuple[float, float]) -> np.ndarray:
    """Of 2+ and 3+; all other classes are far."""
    return np.array([(-9, -9, two, three, -9, -9) for two, three in rows], dtype=np.float32)


def test_the_rise_stops_short_of_the_nearest_tile_below() -> None:
    found = logits((3.0, 0.0), (3.0, 1.0), (2.0, 1.9))
    labels = np.array([2, 1, 3])
    assert rise_of(found, labels, 0.0) == pytest.approx(2.0)
    assert rise_of(found, labels, 0.25) == pytest.approx(1.75)
    assert raised(found, 1.75).tolist() == [2, 2, 3]
    assert rise_of(logits((1.0, 2.0)), np.array([2]), 0.0) == 0  # it is 3+ already: the border is not pushed up
    assert rise_of(found[2:], labels[2:], 0.0) == 0  # tiles of 3+ have no say


def test_each_slide_gets_the_border_of_the_others() -> None:
    found = logits((3.0, 0.0), (3.0, 2.9), (3.0, 2.0), (3.0, 1.5))
    labels, slide = np.array([2, 3, 2, 3]), np.array([0, 0, 1, 1])
    classes, rises = leave_one_out(found, labels, slide, 0.0)
    assert rises == {"0": 1.0, "1": 3.0}
    assert classes.tolist() == [2, 3, 3, 3]


def test_weights_are_mixed() -> None:
    one, other = tiny_network(1), tiny_network(2)
    expected = 0.75 * one.state_dict()["head.weight"] + 0.25 * other.state_dict()["head.weight"]
    assert np.allclose(mixed(one, other, 0.25).state_dict()["head.weight"], expected)


def test_the_command_tells_before_and_after(tmp_path: Path) -> None:
    """Pale 3+ is taken for 2+; tiles of 2+ leave room for it."""
    slides = [[("2+", "2+"), ("0", "0"), ("3+", "2+", 0.6)], [("2+", "2+"), ("1+", "1+"), ("3+", "3+")]]
    dataset = coloured(tmp_path, slides)
    bundle = colour_bundle(tmp_path / "bundle")
    command = [sys.executable, str(EXAMPLES / "set_border.py"), str(bundle.path), str(dataset.folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert told.startswith("as it is: macro-F1 ")
    assert "6 tiles" in told
    assert "with one slide left out" in told
