"""A small labelled dataset whose classes are greys, and networks small enough to be trained on it in a second."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from her2bridge.events import Event
from her2bridge.experiments.plan import Candidate, ExperimentSettings
from her2bridge.model.attention import Attention
from her2bridge.model.repvgg import BlockKind, NetworkSpec, Stage, build
from her2bridge.records import SlideSource, TileClass, TileSpec
from her2bridge.training.dataset import Dataset, LabelledSlide, TileTable, fingerprint_of, save_dataset

SIZE = 32
STAGES = (Stage(16, 1), Stage(16, 2))


def labelled(folder: Path, patients: int = 5, per_class: int = 3, split: str = "train") -> Dataset:
    """``per_class`` tiles of each class of each patient; a class is a grey, with noise on it."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(TileClass)), per_class)
    slides = []
    for number in range(patients):
        grey = 20 + 40 * labels[:, np.newaxis, np.newaxis, np.newaxis]
        tiles = np.clip(grey + rng.normal(0, 6, (len(labels), SIZE, SIZE, 3)), 0, 255).astype(np.uint8)
        path = folder / "slides" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(list(tiles), axis=1)).save(path)
        source = SlideSource(path, mpp=(1.0, 1.0))
        slides.append(LabelledSlide(f"s{number}", path.name, f"P{number}", source, 1.0, fingerprint_of(path)))
    count = patients * len(labels)
    across = np.tile(np.arange(len(labels)) * float(SIZE), patients)
    table = TileTable(
        slide=np.repeat(np.arange(patients), len(labels)),
        origins=np.stack([across, np.zeros(count)], axis=1),
        sides=np.full(count, float(SIZE)),
        labels=np.tile(labels, patients),
        regions=("",) * count,
        annotators=("",) * count,
        splits=(split,) * count,
        files=(None,) * count,
    )
    return save_dataset(folder, TileSpec(SIZE, 1.0), slides, table, {})


def tiny(name: str, attention: Attention = "gct", block: BlockKind = "ecm") -> Candidate:
    """A RepVGG of 16 channels."""
    return Candidate(name, partial(build, NetworkSpec(STAGES, attention, block=block)), smallest_px=8)


def settings(out: Path, **changes: object) -> ExperimentSettings:
    """Two repeats of two epochs on the CPU."""
    told: dict[str, object] = {"repeats": 2, "epochs": 2, "batch_size": 16, "device": "cpu", "precision": "fp32"}
    return ExperimentSettings(out, **{**told, **changes})  # type: ignore[arg-type]


class Heard(list[Event]):
    """The events, in order."""

    def __call__(self, event: Event) -> None:
        self.append(event)


def quiet(event: Event) -> None:
    """Hears nothing."""


def cells(texts: Sequence[str], line: str) -> list[str]:
    """The cells of the first line of a Markdown table that begins so."""
    (found, *_) = [text for text in texts if text.startswith(line)]
    return [cell.strip() for cell in found.strip("|").split("|")]
