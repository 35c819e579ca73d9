"""Tiny tiles whose classes differ in colour, and a tiny network."""

from __future__ import annotations

import numpy as np
import torch

from her2bridge.model.repvgg import NetworkSpec, RepVGG, Stage, build
from her2bridge.records import IntArray
from her2bridge.training.samples import Samples

TINY = NetworkSpec((Stage(8, 1, 2), Stage(16, 1, 2)), "gct")
COLOURS = [(235, 235, 240), (220, 200, 180), (190, 160, 130), (120, 80, 50), (230, 170, 200), (128, 128, 128)]


def made_samples(count: int, seed: int = 0, side: int = 32, labels: IntArray | None = None) -> Samples:
    """Tiles of one colour a class, with noise."""
    rng = np.random.default_rng(seed)
    given = rng.integers(0, 6, count) if labels is None else labels
    pixels = np.array(COLOURS)[given][:, None, None, :] + rng.normal(0, 12, (count, side, side, 3))
    return Samples(np.clip(pixels, 0, 255).astype(np.uint8), given.astype(np.int64))


def tiny_network(seed: int = 0) -> RepVGG:
    torch.manual_seed(seed)
    return build(TINY)
