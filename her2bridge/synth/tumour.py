"""Adenocarcinoma with its HER2 staining: glands, cribriform and solid nests, single and signet-ring cells.

Membranes are drawn from the distance to the nearest cell border, with a density, a width, gaps, beads and a basolateral
gradient; cytoplasm and granules may be brown without being membrane. Lengths in µm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from her2bridge.records import BoolArray
from her2bridge.synth import cells
from her2bridge.synth.cells import Epithelium, Places
from her2bridge.synth.noise import enlarge, smooth_noise, step
from her2bridge.synth.nuclei import NucleusKind, press
from her2bridge.synth.stains import F32, Layers
from her2bridge.synth.tissue import Ground, coarse, fill, paint_red_cells, paint_stroma


@dataclass(frozen=True)
class Staining:
    """How tumour cells express HER2 in one field.

    Attributes:
        peak: DAB at the middle of a membrane, optical density.
        complete: the share of membrane that is stained, 0–1.
        width: half the thickness of the stained line, µm.
        cytoplasm: DAB of the cytoplasm.
        basolateral: 0 (all round) to 1 (not at the lumen).
        uneven: spread between neighbouring cells (log scale).
        patchy: spread between parts of the field (log scale).
        beads: how far the line breaks up into grains, 0–1.
        share: the share of cells that are stained at all, 0–1.
        granules: brown grains in the cytoplasm, optical density.
    """

    peak: float
    complete: float
    width: float
    cytoplasm: float
    basolateral: float
    uneven: float
    patchy: float = 0.12
    beads: float = 0.2
    share: float = 1.0
    granules: float = 0.0


@dataclass(frozen=True, eq=False)
class Growth:
    """What ``paint_tumour`` drew, bool on the structure grid.

    Attributes:
        tumour: its cells and their lumens.
        top: the part that shows the staining asked for; elsewhere the tumour shows the lower one.
    """

    tumour: BoolArray
    top: BoolArray


def tumour_cells(rng: np.random.Generator, shape: tuple[int, int], mpp: float, *, dense: bool = False) -> Epithelium:
    """An adenocarcinoma's growth on the structure grid of a field: glands, cribriform or solid nests, single cells.

    ``dense``: with little stroma and small lumens, so that nearly every tile shows tumour.
    """
    small, grid = coarse(shape), 2.0 * mpp
    growth = rng.random()
    cell = rng.uniform(9.0, 14.5)
    share = rng.uniform(0.88 if dense else 0.5, 0.97)
    if growth < 0.26:
        height = rng.uniform(17.0, 34.0)
        gap = rng.uniform(2.0, 10.0 if dense else 20.0)
        gland = 2.0 * height + gap + rng.uniform(6.0, 20.0 if dense else 45.0)
        return cells.glands(rng, small, grid, rng.uniform(0.42, 0.68) * cell, gland, height, gap, rng.uniform(0.3, 1.0))
    if growth < 0.64:
        nests = cells.sheet(rng, small, grid, cell, share, rng.uniform(60.0, 160.0), stretch=rng.uniform(1.2, 2.8))
        return cells.with_lumens(rng, nests, grid, rng.uniform(0.03, 0.12 if dense else 0.28), rng.uniform(14.0, 36.0))
    if growth < 0.86:
        return cells.sheet(rng, small, grid, cell, share, rng.uniform(40.0, 80.0 if dense else 140.0))
    return cells.single_cells(rng, small, grid, cell, rng.uniform(0.85 if dense else 0.6, 0.95))


def paint_tumour(
    rng: np.random.Generator,
    layers: Layers,
    ground: Ground,
    staining: Staining,
    *,
    lower: Staining | None = None,
    dense: bool = False,
) -> Growth:
    """Tumour in stroma (``dense``: little of it); with ``lower`` a part of its cells is stained that way."""
    paint_stroma(rng, layers, ground)
    shape, grid = layers.shape, 2.0 * ground.mpp
    tumour = tumour_cells(rng, shape, ground.mpp, dense=dense)
    count = int(tumour.label.max()) + 1
    tone = np.exp(rng.normal(0.0, 0.08, count)).astype(np.float32)[tumour.label]
    bright_border = rng.uniform(0.2, 0.8) if rng.random() < 0.3 else 0.0
    tone = tone * (1.0 - np.float32(bright_border) * np.exp(-((tumour.membrane / np.float32(0.8)) ** 2)))
    fill(rng, layers, tumour, ground, tone.astype(np.float32), rng.uniform(0.8, 1.7))
    if tumour.lumen.any() and rng.random() < 0.3:
        paint_red_cells(rng, layers, tumour.lumen, ground)
    top = np.ones(tumour.label.shape, dtype=bool)
    amount = _expression(rng, tumour, staining, grid)
    if lower is not None:
        score = cells.means(tumour.label, smooth_noise(rng, tumour.label.shape, rng.uniform(25.0, 90.0) / grid))
        top = (score < cells.normal_quantile(rng.uniform(0.25, 0.8)))[tumour.label]
        amount = np.where(top, amount, amount * np.float32(lower.peak / staining.peak)).astype(np.float32)
    _paint_cells(rng, layers, tumour, ground, staining, amount)
    if amount.any():
        _stain_membranes(rng, layers, tumour, staining, amount, ground.mpp)
    if staining.granules > 0:
        _granules(rng, layers, tumour, staining.granules, ground.mpp)
    return Growth(tumour.inside | tumour.lumen, top)


def _expression(rng: np.random.Generator, tumour: Epithelium, staining: Staining, grid: float) -> F32:
    """Each cell's staining in units of the field's, structure grid."""
    small = tumour.label.shape[0], tumour.label.shape[1]
    if staining.peak <= 0:
        return np.zeros(small, dtype=np.float32)
    count = int(tumour.label.max()) + 1
    each = np.exp(rng.normal(0.0, staining.uneven, count)) * (rng.random(count) < staining.share)
    region = np.exp(np.float32(staining.patchy) * smooth_noise(rng, small, 40.0 / grid))
    return np.asarray(each.astype(np.float32)[tumour.label] * region, dtype=np.float32)


def _paint_cells(
    rng: np.random.Generator, layers: Layers, tumour: Epithelium, ground: Ground, staining: Staining, amount: F32
) -> None:
    """Cytoplasm's DAB, vacuoles, nuclei."""
    grid = 2.0 * ground.mpp
    glandular = bool(tumour.lumen.any())
    spread = rng.uniform(0.05, 0.3) if glandular else 0.0
    places = cells.nuclear_places(tumour, grid, rng.uniform(0.2, 0.55) if glandular else 0.5, spread, rng)
    if staining.cytoplasm > 0:
        _stain_cytoplasm(rng, layers, tumour, staining, amount)
    if rng.random() < 0.2:
        places = _vacuoles(rng, layers, tumour, places, ground)
    kind = NucleusKind.COLUMNAR if rng.random() < (0.65 if glandular else 0.25) else NucleusKind.TUMOUR
    jitter = rng.normal(0.0, 0.2 if kind is NucleusKind.COLUMNAR else 0.5, len(places.angle))
    size = float(rng.choice([0.8, 0.9, 1.0, 1.1]))
    present = rng.random(len(places.x)) < rng.uniform(0.8, 1.0)
    x, y, angle = places.x[present], places.y[present], (places.angle + jitter)[present]
    strength = ground.counterstain * rng.uniform(0.75, 1.1)
    press(rng, layers, kind, x, y, angle, ground.mpp, strength=strength, hides=rng.uniform(0.6, 0.9), size=size)
    dying = rng.random(len(x)) < rng.uniform(0.0, 0.06)
    kind, strength = NucleusKind.PYKNOTIC, ground.counterstain * rng.uniform(0.9, 1.4)
    press(rng, layers, kind, x[dying], y[dying], angle[dying], ground.mpp, strength=strength, hides=0.8)


def _vacuoles(rng: np.random.Generator, layers: Layers, layer: Epithelium, places: Places, ground: Ground) -> Places:
    """Drops of mucin that push the cytoplasm, and where they are large the nucleus, aside: signet-ring cells."""
    grid = 2.0 * ground.mpp
    x, y = cells.plane((layer.label.shape[0], layer.label.shape[1]), grid)
    chosen = np.flatnonzero(rng.random(len(places.x)) < rng.uniform(0.1, 0.6))
    keep = np.ones(layer.label.shape, dtype=np.float32)
    small, large = (0.55, 0.8) if rng.random() < 0.4 else (0.25, 0.6)
    nx, ny = places.x.copy(), places.y.copy()
    for one in chosen:
        cx, cy = places.x[one], places.y[one]
        radius = min(np.sqrt(places.area[one] / np.pi), 8.0) * rng.uniform(small, large)
        rows = slice(max(int((cy - radius) / grid) - 1, 0), int((cy + radius) / grid) + 2)
        columns = slice(max(int((cx - radius) / grid) - 1, 0), int((cx + radius) / grid) + 2)
        distance = np.hypot(x[rows, columns] - cx, y[rows, columns] - cy)
        keep[rows, columns] = np.minimum(keep[rows, columns], np.clip((distance - radius) / 0.8 + 0.5, 0.15, 1.0))
        turn = rng.uniform(0, 2 * np.pi)
        nx[one] += 1.15 * radius * np.cos(turn)
        ny[one] += 1.15 * radius * np.sin(turn)
    layers.scale(enlarge(keep, layers.shape))
    return Places(nx, ny, places.angle, places.area)


def _stain_cytoplasm(
    rng: np.random.Generator, layers: Layers, tumour: Epithelium, staining: Staining, amount: F32
) -> None:
    small = tumour.label.shape[0], tumour.label.shape[1]
    patches = np.clip(1.0 + 0.35 * smooth_noise(rng, small, 12.0) + 0.35 * smooth_noise(rng, small, 2.0), 0.0, None)
    patches = patches * (1.0 - staining.basolateral * 0.6 * np.clip(tumour.depth, 0.0, 1.0))
    own = np.minimum(amount, 2.0) if staining.peak > 0 else np.float32(1.0)
    layers.dab += enlarge((patches * own * tumour.inside).astype(np.float32), layers.shape) * np.float32(
        staining.cytoplasm
    )


def _stain_membranes(
    rng: np.random.Generator, layers: Layers, tumour: Epithelium, staining: Staining, amount: F32, mpp: float
) -> None:
    """The brown lines: strongest at the border of two cells, broken where staining is incomplete."""
    small, grid = (tumour.label.shape[0], tumour.label.shape[1]), 2.0 * mpp
    gaps = smooth_noise(rng, small, 5.0 / grid) + np.float32(cells.normal_quantile(staining.complete))
    strength = amount * step(gaps, 0.35)
    if staining.basolateral > 0 and tumour.lumen.any():
        strength = strength * (1.0 - staining.basolateral * step(tumour.depth - np.float32(0.85), 0.12))
    strength = strength * ndimage.uniform_filter(ndimage.binary_dilation(tumour.inside).astype(np.float32), 3)
    distance = enlarge(tumour.membrane, layers.shape)
    thick = np.exp(np.float32(0.25) * smooth_noise(rng, small, 6.0 / grid)) * np.float32(staining.width)
    line = np.exp(-np.square(distance / enlarge(thick.astype(np.float32), layers.shape)))
    beads = 1.0 + np.float32(staining.beads) * smooth_noise(rng, layers.shape, 0.9 / mpp)
    line *= np.clip(beads, 0.1, 2.2)
    layers.dab += line * enlarge(strength.astype(np.float32), layers.shape) * np.float32(staining.peak)


def _granules(rng: np.random.Generator, layers: Layers, tumour: Epithelium, density: float, mpp: float) -> None:
    """Brown grains, in patches, on membranes or off: pigment, secretion, unspecific precipitate."""
    small, grid = (tumour.label.shape[0], tumour.label.shape[1]), 2.0 * mpp
    where = step(smooth_noise(rng, small, 25.0 / grid) - np.float32(rng.uniform(0.5, 1.4)), 0.4) * tumour.inside
    grains = step(smooth_noise(rng, layers.shape, rng.uniform(0.6, 1.4) / mpp) - np.float32(rng.uniform(0.9, 1.7)), 0.4)
    layers.dab += grains * enlarge(where.astype(np.float32), layers.shape) * np.float32(density)
