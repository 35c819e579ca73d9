"""Where a score comes from: the run's id, the digests that tell whether it still stands, and the rule for STALE.

A score stands while three digests stand: of model and settings, of the regions, and of the tiles it left in the
project. The first says that nothing else was asked for, the second that nobody changed a region, the third that nobody
corrected, removed or moved a tile. All three are kept with the score (``qupath.results.RunStamp``).
"""

from __future__ import annotations

import enum
import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from her2bridge.qupath.results import RunStamp
from her2bridge.records import FloatArray, Region

_LENGTH = 12  # hex digits: 48 bits, no accident in any archive


class Standing(enum.StrEnum):
    """What an image's stored score is worth now."""

    NEVER_SCORED = "never scored"
    STANDS = "stands"
    STALE = "STALE: the regions have changed since"
    OTHER_SETTINGS = "other model or settings"
    TILES_CHANGED = "tiles were corrected, moved or removed since"


def new_run_id() -> str:
    """A run's id: 12 hex digits."""
    return secrets.token_hex(_LENGTH // 2)


def now() -> str:
    """ISO 8601, UTC, whole seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def settings_digest(values: Mapping[str, Any]) -> str:
    """Digest of all that a score depends on besides pixels and regions; the order of keys is no matter."""
    return _short(json.dumps(values, sort_keys=True, ensure_ascii=False, allow_nan=False, default=str).encode())


def regions_digest(regions: Sequence[Region], exclusions: Iterable[BaseGeometry]) -> str:
    """Digest of the regions (id and outline) and of what is cut out of them; their order is no matter.

    Outlines are compared as areas, on vertices rounded to 0.01 px: QuPath versions write rings in opposite orders.
    """
    lines = sorted(f"{region.id} {_outline(region.geometry)}" for region in regions)
    lines += sorted(f"cut out {_outline(geometry)}" for geometry in exclusions)
    return _short("\n".join(lines).encode())


def tiles_digest(bounds: FloatArray, class_names: Sequence[str | None]) -> str:
    """Digest of an image's marked tiles: where they lie, to 0.1 px, and what they are called; order is no matter.

    Args:
        bounds: float64 [m, 4], x0, y0, x1, y1.
        class_names: m PathClasses as QuPath prints them.
    """
    distinct = sorted({name or "" for name in class_names})
    number = {name: index for index, name in enumerate(distinct)}
    numbers = np.fromiter((number[name or ""] for name in class_names), dtype=np.int64, count=len(class_names))
    rows = np.column_stack([np.rint(bounds * 10).astype(np.int64).reshape(-1, 4), numbers])
    ordered = rows[np.lexsort(rows.T[::-1])]
    return _short("\n".join(distinct).encode() + np.ascontiguousarray(ordered, dtype="<i8").tobytes())


def standing(stamp: RunStamp | None, *, settings: str, regions: str, tiles: str) -> Standing:
    """What a stored score is worth, the weightiest reason first.

    Args:
        stamp: of the run that wrote it; None where none did.
        settings: the digest of what is asked for now.
        regions: the digest of the regions as they are now.
        tiles: the digest of the marked tiles as they are now.
    """
    if stamp is None:
        return Standing.NEVER_SCORED
    if stamp.regions != regions:
        return Standing.STALE
    if stamp.settings != settings:
        return Standing.OTHER_SETTINGS
    return Standing.STANDS if stamp.tiles == tiles else Standing.TILES_CHANGED


def _outline(geometry: BaseGeometry) -> str:
    rounded = shapely.transform(geometry, lambda points: np.rint(points * 100) / 100 + 0.0)
    return str(shapely.to_wkb(shapely.normalize(rounded), hex=True, byte_order=1))


def _short(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_LENGTH]
