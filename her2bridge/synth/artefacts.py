"""What no one can score: glass, debris, pen, tissue out of focus, folds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from her2bridge.records import BoolArray
from her2bridge.synth import tissue, tumour
from her2bridge.synth.noise import enlarge, fractal_noise, smooth_noise, step
from her2bridge.synth.nuclei import NucleusKind, press
from her2bridge.synth.stains import F32, Layers, Stains, transmit
from her2bridge.synth.tissue import Ground
from her2bridge.synth.tumour import Staining


@dataclass(frozen=True, eq=False)
class Artefact:
    """Light [3, h, w] as in ``stains.transmit``, and where it is not assessable (bool, structure grid)."""

    light: F32
    present: BoolArray


Painter = Callable[[np.random.Generator, Layers, Stains, Ground], Artefact]

_INKS = ((0.95, 0.75, 0.15), (0.85, 0.25, 0.75), (0.6, 0.65, 0.7), (0.15, 0.75, 0.7), (0.75, 0.85, 0.4))
"""Optical density of felt pens, RGB: blue, green, black, red, violet."""


def paint_noise(
    rng: np.random.Generator, layers: Layers, stains: Stains, ground: Ground, *, whole: bool = False
) -> Artefact:
    """One artefact that fills the field, or most of it; ``whole``: one that surely fills it and is no glass."""
    kinds: tuple[tuple[float, Painter], ...] = (
        (0.32, paint_glass),
        (0.13, paint_debris),
        (0.11, paint_pen),
        (0.20, paint_blur),
        (0.16, paint_fold),
        (0.04, paint_crush),
        (0.04, paint_necrosis),
    )
    if whole:
        kinds = ((0.3, paint_debris), (0.7, paint_blur))
    chosen = kinds[int(rng.choice(len(kinds), p=[share for share, _ in kinds]))][1]
    return chosen(rng, layers, stains, ground)


def paint_glass(rng: np.random.Generator, layers: Layers, stains: Stains, ground: Ground) -> Artefact:
    """Glass with a little dust, perhaps a shred of tissue."""
    small, grid = tissue.coarse(layers.shape), 2.0 * ground.mpp
    if rng.random() < 0.4:
        _any_tissue(rng, layers, ground)
        shred = fractal_noise(rng, small, rng.uniform(30, 100) / grid, 3) - np.float32(rng.uniform(1.6, 2.6))
        layers.scale(enlarge(step(shred, 0.05), layers.shape))
    dust = smooth_noise(rng, small, rng.uniform(1.0, 3.0) / grid) - np.float32(rng.uniform(3.0, 4.2))
    layers.neutral += enlarge(step(dust, 0.2), layers.shape) * np.float32(rng.uniform(0.1, 0.6))
    layers.neutral += np.float32(rng.uniform(0.0, 0.03))
    return Artefact(transmit(layers, stains), np.ones(small, dtype=bool))


def paint_debris(rng: np.random.Generator, layers: Layers, stains: Stains, ground: Ground) -> Artefact:
    """Mucus, fibrin and shed matter without cells to score, on glass; sometimes brown."""
    small, grid = tissue.coarse(layers.shape), 2.0 * ground.mpp
    cloud = fractal_noise(rng, small, rng.uniform(15, 90) / grid, 5) + np.float32(rng.uniform(-0.8, 0.8))
    threads = np.abs(fractal_noise(rng, small, rng.uniform(10, 40) / grid, 3))
    matter = np.clip(cloud, 0.0, 2.0) * (0.6 + 0.5 * np.exp(-((threads / 0.15) ** 2)))
    thick = enlarge(np.asarray(matter, dtype=np.float32), layers.shape)
    layers.haematoxylin += thick * np.float32(rng.uniform(0.0, 0.22))
    layers.neutral += thick * np.float32(rng.uniform(0.02, 0.22))
    layers.dab += thick * np.float32(rng.choice([0.0, 0.0, rng.uniform(0.05, 0.7)]))
    return Artefact(transmit(layers, stains), np.ones(small, dtype=bool))


def paint_pen(rng: np.random.Generator, layers: Layers, stains: Stains, ground: Ground) -> Artefact:
    """A felt pen's stroke over glass or tissue."""
    small, grid = tissue.coarse(layers.shape), 2.0 * ground.mpp
    if rng.random() < 0.5:
        _any_tissue(rng, layers, ground)
    ink = np.asarray(_INKS[int(rng.integers(len(_INKS)))]) * rng.uniform(0.5, 1.6)
    edge = smooth_noise(rng, small, rng.uniform(150, 400) / grid) + np.float32(rng.uniform(0.3, 1.5))
    streaks = 1.0 + 0.2 * fractal_noise(rng, small, rng.uniform(10, 60) / grid, 2)
    amount = enlarge(np.asarray(step(edge, 0.1) * np.maximum(streaks, 0.3), dtype=np.float32), layers.shape)
    light = transmit(layers, stains)
    for channel in range(3):
        light[channel] *= np.exp(amount * np.float32(-np.log(10.0) * ink[channel]))
    return Artefact(light, np.asarray(edge > 0))


def paint_blur(rng: np.random.Generator, layers: Layers, stains: Stains, ground: Ground) -> Artefact:
    """Tissue so far out of focus that no membrane can be judged."""
    _any_tissue(rng, layers, ground)
    light = transmit(layers, stains)
    sigma = rng.uniform(2.2, 5.0) / ground.mpp
    # A box thrice is a Gaussian, at a cost that does not grow with its width.
    width = max(3, int(np.sqrt(4.0 * sigma**2 + 1.0)) | 1)
    for plane in light:
        for _ in range(3):
            ndimage.uniform_filter(plane, width, output=plane, mode="nearest")
    return Artefact(light, np.ones(tissue.coarse(layers.shape), dtype=bool))


def paint_fold(rng: np.random.Generator, layers: Layers, stains: Stains, ground: Ground) -> Artefact:
    """Tissue folded over itself: two or three layers on each other, dark, partly out of focus."""
    small, grid = tissue.coarse(layers.shape), 2.0 * ground.mpp
    _any_tissue(rng, layers, ground)
    above = Layers.empty(layers.shape)
    _any_tissue(rng, above, ground)
    ridge = smooth_noise(rng, small, rng.uniform(120, 300) / grid) + np.float32(rng.uniform(0.4, 1.5))
    cover = enlarge(step(ridge, 0.06), layers.shape)
    crease = np.exp(-((fractal_noise(rng, small, rng.uniform(30, 80) / grid, 2) / 0.2) ** 2))
    more = enlarge(np.asarray(1.0 + rng.uniform(0.5, 2.0) * crease, dtype=np.float32), layers.shape)
    extra = rng.uniform(1.2, 2.5)
    for below, over in (
        (layers.haematoxylin, above.haematoxylin),
        (layers.dab, above.dab),
        (layers.neutral, above.neutral),
    ):
        over += below * np.float32(0.6)
        ndimage.gaussian_filter(over, rng.uniform(0.6, 1.8) / ground.mpp, output=over, mode="nearest", truncate=2.0)
        below *= 1.0 - np.float32(0.5) * cover
        below += over * more * cover * np.float32(extra)
    layers.neutral += cover * np.float32(rng.uniform(0.05, 0.3))
    return Artefact(transmit(layers, stains), np.asarray(ridge > 0))


def paint_crush(rng: np.random.Generator, layers: Layers, stains: Stains, ground: Ground) -> Artefact:
    """Squeezed tissue: all of it drawn out in one direction, nuclei dark and without structure."""
    _any_tissue(rng, layers, ground)
    tissue.scatter(rng, layers, NucleusKind.PYKNOTIC, rng.uniform(1500, 5000), None, ground, 0.0)
    length = int(rng.uniform(4.0, 10.0) / ground.mpp) | 1
    axis = int(rng.integers(0, 2))
    shift = smooth_noise(rng, layers.shape, 40.0 / ground.mpp) * np.float32(10.0 / ground.mpp)
    rows, columns = np.indices(layers.shape, dtype=np.int64)
    rows = np.clip(rows + shift.astype(np.int64) * axis, 0, layers.shape[0] - 1)
    columns = np.clip(columns + shift.astype(np.int64) * (1 - axis), 0, layers.shape[1] - 1)
    for layer in (layers.haematoxylin, layers.dab, layers.neutral):
        drawn = ndimage.uniform_filter1d(layer, length, axis=1 - axis, mode="nearest")
        drawn = ndimage.uniform_filter1d(drawn, length, axis=1 - axis, mode="nearest")
        layer[:] = 1.2 * drawn[rows, columns]
    return Artefact(transmit(layers, stains), np.ones(tissue.coarse(layers.shape), dtype=bool))


def paint_necrosis(rng: np.random.Generator, layers: Layers, stains: Stains, ground: Ground) -> Artefact:
    """Dead tissue: crumbs and shadows of cells, dark fragments of nuclei, no membrane to judge."""
    small, grid = tissue.coarse(layers.shape), 2.0 * ground.mpp
    crumbs = fractal_noise(rng, small, rng.uniform(3.0, 7.0) / grid, 2) * np.float32(rng.uniform(0.3, 0.6))
    cloud = fractal_noise(rng, small, rng.uniform(30, 90) / grid, 3) * np.float32(0.25)
    matter = enlarge(np.clip(crumbs + cloud + np.float32(0.9), 0.0, 2.5).astype(np.float32), layers.shape)
    layers.haematoxylin += matter * np.float32(ground.blush * rng.uniform(0.5, 1.2))
    layers.neutral += matter * np.float32(ground.blush * rng.uniform(0.2, 1.0))
    layers.dab += matter * np.float32(rng.choice([ground.haze, rng.uniform(0.0, 0.25)]))
    for size in (0.35, 0.6):
        count = int(rng.poisson(rng.uniform(500, 4000) * layers.shape[0] * layers.shape[1] * ground.mpp**2 / 1e6))
        x = rng.uniform(0, layers.shape[1] * ground.mpp, count)
        y = rng.uniform(0, layers.shape[0] * ground.mpp, count)
        turn = rng.uniform(0, np.pi, count)
        press(rng, layers, NucleusKind.PYKNOTIC, x, y, turn, ground.mpp, strength=0.8 * ground.counterstain, size=size)
    return Artefact(transmit(layers, stains), np.ones(small, dtype=bool))


def _any_tissue(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    """Some tissue, stained or not: what an artefact covers says nothing of it."""
    choice = rng.random()
    if choice < 0.25:
        tissue.paint_muscle(rng, layers, ground)
    elif choice < 0.45:
        tissue.paint_stroma(rng, layers, ground)
    else:
        peak = float(rng.choice([0.0, 0.2, 0.55, 1.4])) * rng.uniform(0.8, 1.2)
        staining = Staining(peak, 0.9, 0.9, 0.15 * peak, 0.0, 0.15)
        tumour.paint_tumour(rng, layers, ground, staining)
