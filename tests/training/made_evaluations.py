"""A network that names a tile by its colour, and datasets of coloured tiles: what it says of each is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from made_datasets import SPEC, made_slide, made_tiles
from PIL import Image

from her2bridge.model.bundle import Bundle, save_bundle
from her2bridge.model.repvgg import NetworkSpec, Stage, build
from her2bridge.records import SlideSource
from her2bridge.training.dataset import Dataset, fingerprint_of, save_dataset

COLOURS = np.array([(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 255, 255)])
LABELS = ("0", "1+", "2+", "3+", "normal", "noise")
SURE = 1.0

Tile = tuple[str, str] | tuple[str, str, float]
"""Its label, what its colour is of, and how pure that is (0.5–1)."""


def colour_bundle(
    folder: Path, *, slides: Sequence[str] | None = (), contrast: float = 4.0, size: int = 16, **card: Any
) -> Bundle:
    """The class whose colour is nearest; ``slides``: what it says that it learned from."""
    network = build(NetworkSpec((Stage(8, 1, 2),), "none", 6, "plain")).eval()
    colours = torch.tensor(COLOURS / 255, dtype=torch.float32)
    with torch.no_grad():
        for value in network.parameters():
            if value.ndim == 4:
                value.zero_()
                value[torch.arange(3), torch.arange(3), 1, 1] = 1.0
            elif value.ndim == 2:
                value.zero_()
                value[:, :3] = 2 * contrast * colours
            else:
                value.copy_(-contrast * (colours**2).sum(dim=1))
    return save_bundle(
        folder,
        network,
        {
            **{"name": folder.name, "version": "1", "license": "GPL-3.0-or-later", "intended_use": "Tests."},
            **{"patch_size_px": size, "spacing_um_px": SPEC.mpp, "transform": {"mean": [0.0] * 3, "std": [1.0] * 3}},
            **{"training": {} if slides is None else {"slides": list(slides)}, "metrics": {}, "limits": []},
            **card,
        },
    )


def coloured(
    folder: Path,
    slides: Sequence[Sequence[Tile]],
    *,
    patients: Sequence[str] | None = None,
    splits: Sequence[str] | None = None,
) -> Dataset:
    """A dataset whose slides are rows of coloured tiles; ``splits``: of each slide, or of each tile."""
    made, rows = [], []
    for number, tiles in enumerate(slides):
        path = folder / "slides" / f"s{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        row = np.concatenate([_paint(number, *tile) for tile in tiles], axis=1)
        Image.fromarray(row).save(path)
        patient = patients[number] if patients else f"p{number}"
        source = SlideSource(path, mpp=(1.0, 1.0))
        made.append(made_slide(f"s{number}", patient=patient, source=source, fingerprint=fingerprint_of(path)))
        rows += [(number, 16.0 * place, 0.0, tile[0]) for place, tile in enumerate(tiles)]
    names = splits or ["test"] * len(slides)
    if len(names) != len(rows):
        names = [names[row[0]] for row in rows]
    return save_dataset(folder / "dataset", SPEC, made, made_tiles(rows, splits=tuple(names)), {})


def _paint(number: int, label: str, seen: str, purity: float = SURE) -> Any:
    """One tile; the pure colours are told apart from slide to slide by their last bit, so that no two files are one."""
    colour = purity * COLOURS[LABELS.index(seen)] + (1 - purity) * 110
    tile = np.tile(np.round(colour).astype(np.uint8), (16, 16, 1))
    tile[0, 0] = (number, number, number)
    return tile
