"""Small projects of scored slides: stored tiles as a run leaves them, a case score, a patient."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import torch
from PIL import Image

from her2bridge.model.bundle import Bundle, save_bundle
from her2bridge.model.repvgg import NetworkSpec, Stage, build
from her2bridge.qupath import results
from her2bridge.qupath.classes import path_classes
from her2bridge.qupath.open import open_project
from her2bridge.qupath.seam import Entry, ImageUpdate, NewTiles, PathClassRef, PathObject
from her2bridge.qupath.via_files.create import NewImage, create_project
from her2bridge.records import Float32Array, IntArray

SIDE = 64
DATASET = "d" * 64
"""Hash of the table that the bundles say they learned from."""

PLACES = 144
"""Tiles of a slide: 12 × 12."""

TYPICAL = ((100, 9, 0, 0), (60, 45, 4, 0), (40, 40, 30, 2), (20, 20, 20, 50))
"""Tiles of a slide of each score; the rest is normal tissue."""


def bundle(
    folder: Path, *, says: int = 0, slides: Sequence[str] = (), mpp: float = 1.0, training: Any = None
) -> Bundle:
    """A tiny network that takes every tile for one class, and says that it learned from these slides."""
    torch.manual_seed(0)
    network = build(NetworkSpec((Stage(8, 1, 2), Stage(8, 1, 2)), "none")).eval()
    state = network.state_dict()
    weight, bias = [name for name, value in state.items() if value.shape[:1] == (6,)]
    state[weight] = torch.zeros_like(state[weight])
    state[bias] = torch.eye(6)[says]
    network.load_state_dict(state)
    card = {
        **{"name": folder.name, "version": "1", "license": "GPL-3.0-or-later", "intended_use": "Tests.", "limits": []},
        **{"patch_size_px": SIDE, "spacing_um_px": mpp, "transform": {"mean": [0.7] * 3, "std": [0.2] * 3}},
        **{"metrics": {}, "temperature": 1.5},
        "training": training or {"data": "nothing", "dataset": DATASET, "slides": list(slides)},
    }
    return save_bundle(folder, network, card)


def probabilities(classes: IntArray) -> Float32Array:
    """Such as a network gives that is sure."""
    return np.where(np.arange(6) == classes[:, None], 0.9, 0.02).astype(np.float32)


def stored(classes: IntArray, *, shown: PathClassRef | None = None) -> NewTiles:
    """Tiles in rows of 12 from the top left corner; ``shown``: the class that a person gave all of them."""
    places = np.arange(len(classes))
    return NewTiles(
        origins=np.stack([places % 12, places // 12], axis=1) * float(SIDE),
        side=float(SIDE),
        parents=np.zeros(len(classes), dtype=np.int64),
        parent_ids=[None],
        classes=classes if shown is None else np.zeros(len(classes), dtype=np.int64),
        path_classes=path_classes() if shown is None else [shown],
        measurement_names=results.PROBABILITY_NAMES,
        measurements=probabilities(classes),
        mark="0123456789ab",
        ids=[str(uuid.uuid4()) for _ in classes],
    )


def tiles_of(score: int, rng: np.random.Generator) -> IntArray:
    """Classes of the tiles of one slide, int64 [144]."""
    shares = np.array([*TYPICAL[score], 12, 2]) + rng.uniform(0, 8, 6)
    return np.repeat(np.arange(6), rng.multinomial(PLACES, shares / shares.sum()))


def project(folder: Path, slides: Sequence[Mapping[str, str]], *, pictures: bool = False) -> Path:
    """A project of images with these metadata; not scored yet."""
    images = []
    for number, metadata in enumerate(slides):
        path = folder / "slides" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if pictures:
            dots = np.random.default_rng(number).integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(dots.repeat(SIDE, axis=0).repeat(SIDE, axis=1)).save(path)
        region = PathObject("annotation", str(uuid.uuid4()), None, path_class=PathClassRef(("Tumor",)))
        region = PathObject(**{**vars(region), "geometry": shapely.box(0, 0, 768, 768)})
        images.append(NewImage(path, f"slide {number}", (768, 768), 1.0, [region], metadata))
    return create_project(folder, images)


def put(entry: Entry, tiles: NewTiles, model: Bundle | None, **metadata: Any) -> None:
    """Leave in an image what a run does."""
    said = {} if model is None else {results.MODEL: f"{model.name} {model.sha256[:12]}"}
    entry.apply(ImageUpdate([], [tiles], {}, frozenset(), {**said, **metadata}))


def scored_project(
    folder: Path, model: Bundle, per_score: int, *, seed: int = 0, first_patient: int = 0, pictures: bool = False
) -> Path:
    """So many slides of each score, each of another patient."""
    scores = np.repeat(np.arange(4), per_score)
    texts = ("HER2 0", "IHC 1+", "2+, ISH negative", "HER2 score 3")
    metadata = [
        {"Case score": texts[score], "Patient": f"P{first_patient + number}"} for number, score in enumerate(scores)
    ]
    path = project(folder, metadata, pictures=pictures)
    rng = np.random.default_rng(seed)
    for entry, score in zip(open_project(path, "files").entries, scores.tolist(), strict=True):
        put(entry, stored(tiles_of(score, rng)), model)
    return path
