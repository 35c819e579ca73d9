"""her2bridge: the bridge between QuPath and a Python engine that scores HER2 immunohistochemistry of gastric cancer.

Research use only: it assists, it does not diagnose.

The front door. Names are loaded when they are first asked for, so that importing the package costs nothing: no torch,
no JVM, no slide reader.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from her2bridge.errors import Her2BridgeError
    from her2bridge.model.bundle import Bundle, load_bundle
    from her2bridge.qupath.open import open_project
    from her2bridge.records import (
        Region,
        SlideScore,
        SlideSource,
        Specimen,
        Status,
        TileClass,
        TileCounts,
        TileGrid,
        TilePredictions,
        TileSpec,
    )
    from her2bridge.run import run_project
    from her2bridge.scoring import ScoreSettings
    from her2bridge.settings import RunSettings

_HOME_OF = {
    "Bundle": "her2bridge.model.bundle",
    "Her2BridgeError": "her2bridge.errors",
    "Region": "her2bridge.records",
    "RunSettings": "her2bridge.settings",
    "ScoreSettings": "her2bridge.scoring",
    "SlideScore": "her2bridge.records",
    "SlideSource": "her2bridge.records",
    "Specimen": "her2bridge.records",
    "Status": "her2bridge.records",
    "TileClass": "her2bridge.records",
    "TileCounts": "her2bridge.records",
    "TileGrid": "her2bridge.records",
    "TilePredictions": "her2bridge.records",
    "TileSpec": "her2bridge.records",
    "load_bundle": "her2bridge.model.bundle",
    "open_project": "her2bridge.qupath.open",
    "run_project": "her2bridge.run",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
