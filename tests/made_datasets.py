"""Small datasets for tests: over plain pictures whose pixels are known, or over no picture at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from her2bridge.records import ByteArray, SlideSource, TileClass, TileSpec
from her2bridge.training.dataset import Dataset, LabelledSlide, TileTable, fingerprint_of, save_dataset

SPEC = TileSpec(16, 1.0)
"""At 1 µm/px a tile is 16 px wide: what is read is what is in the picture, unchanged."""

Row = tuple[int, float, float, str]
"""Slide's index, x, y, label."""


def made_slide(name: str, **changes: Any) -> LabelledSlide:
    """A slide without a file."""
    told: dict[str, Any] = {
        "key": name,
        "name": f"{name}.png",
        "patient": f"patient of {name}",
        "source": SlideSource(Path(f"{name}.png")),
        "mpp": 1.0,
        "fingerprint": f"fingerprint of {name}",
    }
    return LabelledSlide(**{**told, **changes})


def drawn_slide(path: Path, width: int = 64, height: int = 64, seed: int = 0) -> tuple[LabelledSlide, ByteArray]:
    """A slide that is a PNG of random pixels, and these, uint8 [height, width, 3]."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    source = SlideSource(path, mpp=(1.0, 1.0))
    return made_slide(path.stem, source=source, fingerprint=fingerprint_of(path)), pixels


def made_tiles(rows: Sequence[Row], **columns: Any) -> TileTable:
    """A table of tiles as wide as ``SPEC`` says at 1 µm/px."""
    count = len(rows)
    told: dict[str, Any] = {
        "slide": np.array([row[0] for row in rows], dtype=np.int64),
        "origins": np.array([row[1:3] for row in rows], dtype=np.float64).reshape(count, 2),
        "sides": np.full(count, SPEC.side(1.0)),
        "labels": np.array([TileClass.from_label(row[3]) for row in rows], dtype=np.int64),
        "regions": tuple(f"region {number}" for number in range(count)),
        "annotators": ("somebody",) * count,
        "splits": ("train",) * count,
        "files": (None,) * count,
    }
    return TileTable(**{**told, **columns})


def made_dataset(
    folder: Path,
    slides: Sequence[LabelledSlide],
    rows: Sequence[Row],
    *,
    more: dict[str, Any] | None = None,
    **columns: Any,
) -> Dataset:
    """A dataset on disk; ``more``: further members of its card."""
    return save_dataset(folder, SPEC, slides, made_tiles(rows, **columns), {"made": "by hand"}, **(more or {}))
