"""The front door: a curated list, every name of it there, and nothing heavy loaded on the way in."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import her2bridge

HEAVY = ("torch", "jpype", "paquo", "tiffslide", "sklearn", "openvino")
CURATED = [
    "Bundle",
    "Her2BridgeError",
    "Region",
    "RunSettings",
    "ScoreSettings",
    "SlideScore",
    "SlideSource",
    "Specimen",
    "Status",
    "TileClass",
    "TileCounts",
    "TileGrid",
    "TilePredictions",
    "TileSpec",
    "load_bundle",
    "open_project",
    "run_project",
]


def heavy_modules_after(statement: str) -> list[str]:
    """Which of the heavy packages a fresh interpreter has loaded after a statement."""
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted({{m.partition('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    loaded = json.loads(done.stdout)
    assert "her2bridge" in loaded
    return [name for name in HEAVY if name in loaded]


def test_the_list_is_curated() -> None:
    """Who adds a name here promises to keep it."""
    assert her2bridge.__all__ == CURATED
    assert dir(her2bridge) == sorted(CURATED)


def test_the_lazy_table_offers_the_same() -> None:
    assert sorted(her2bridge._HOME_OF) == sorted(her2bridge.__all__)


def test_type_checkers_see_the_same() -> None:
    """What stands under ``if TYPE_CHECKING`` names the same homes as the table."""
    tree = ast.parse(Path(her2bridge.__file__).read_bytes())
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {
        alias.asname or alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert homes == her2bridge._HOME_OF


@pytest.mark.parametrize("name", CURATED)
def test_every_name_resolves(name: str) -> None:
    offered = getattr(her2bridge, name)
    assert isinstance(offered, type | types.FunctionType)
    assert offered.__name__ == name
    assert offered.__doc__


def test_other_names_are_told() -> None:
    with pytest.raises(AttributeError, match="'her2bridge' has no attribute 'nonsense'"):
        her2bridge.nonsense  # noqa: B018


def test_importing_loads_nothing_heavy() -> None:
    assert heavy_modules_after("import her2bridge") == []


def test_the_nouns_load_nothing_heavy() -> None:
    assert heavy_modules_after("from her2bridge import Her2BridgeError, SlideScore, ScoreSettings, TileSpec") == []


def test_the_measure_can_fail() -> None:
    assert heavy_modules_after("import her2bridge, tiffslide") == ["tiffslide"]
