"""What trainings in tests begin with: a tiny network, coloured tiles that it can learn, and a recipe of a second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from made_datasets import SPEC
from made_evaluations import LABELS, coloured

from her2bridge.model.bundle import Bundle, save_bundle
from her2bridge.model.repvgg import NetworkSpec, Stage, build
from her2bridge.training.dataset import Dataset
from her2bridge.training.recipes import MODERN

QUICK = replace(MODERN, epochs=2, batch_size=8, warmup_epochs=0, ema=None, augment=False, mixed_precision=False)

SPLITS = ("train", "train", "val", "val", "test")


def tiny_bundle(folder: Path, *, slides: Sequence[str] = (), size: int = SPEC.size_px, **card: Any) -> Bundle:
    """Random weights; ``slides``: what it says that it learned from."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = build(NetworkSpec((Stage(8, 1, 2), Stage(8, 1, 2)), "gct")).eval()
    told = {
        **{"name": folder.name, "version": "1", "license": "GPL-3.0-or-later", "intended_use": "Tests."},
        **{"patch_size_px": size, "spacing_um_px": SPEC.mpp, "transform": {"mean": [0.4] * 3, "std": [0.5] * 3}},
        **{"training": {"slides": list(slides)}, "metrics": {}, "limits": []},
    }
    return save_bundle(folder, network, {**told, **card})


def tiny_dataset(folder: Path, splits: Sequence[str] = SPLITS, labels: Sequence[str] = LABELS) -> Dataset:
    """A slide and a patient a split, each with three tiles of every label, in its colour."""
    tiles = [(label, label) for label in labels for _ in range(3)]
    return coloured(folder, [tiles] * len(splits), splits=splits)
