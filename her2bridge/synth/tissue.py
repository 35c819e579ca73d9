"""Tissues, painted onto layers: tumour with its HER2 staining, stroma, muscle, lymphoid tissue, glands, fat.

Each painter covers the field it is given. Lengths in µm; fields of structure are computed at half the resolution and
enlarged, since nothing there is finer than a micrometre; membranes and nuclei are drawn at full resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from her2bridge.synth import cells
from her2bridge.synth.cells import Epithelium
from her2bridge.synth.noise import enlarge, fibres, fractal_noise, smooth_noise, step
from her2bridge.synth.nuclei import NucleusKind, press
from her2bridge.synth.stains import F32, Layers

BoolArray = npt.NDArray[np.bool_]


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
    """

    peak: float
    complete: float
    width: float
    cytoplasm: float
    basolateral: float
    uneven: float


@dataclass(frozen=True)
class Ground:
    """What all tissues of a field share.

    Attributes:
        counterstain: haematoxylin of nuclei.
        blush: haematoxylin of cytoplasm and fibres.
        haze: unspecific DAB.
        mpp: µm per pixel.
    """

    counterstain: float
    blush: float
    haze: float
    mpp: float


def coarse(shape: tuple[int, int]) -> tuple[int, int]:
    """The shape of the structure grid of a field."""
    return (shape[0] + 1) // 2, (shape[1] + 1) // 2


def paint_stroma(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    """Collagen in bundles, spindle nuclei along them, some lymphocytes."""
    shape, mpp = layers.shape, ground.mpp
    small, grid = coarse(shape), 2.0 * mpp
    angle = rng.uniform(0, np.pi)
    other = angle + rng.uniform(0.5, 1.6)
    strands = fibres(rng, small, rng.uniform(0.2, 0.5) / grid, angle, rng.uniform(0.3, 1.0))
    crossing = fibres(rng, small, rng.uniform(0.2, 0.5) / grid, other, rng.uniform(0.3, 1.0))
    which = step(smooth_noise(rng, small, rng.uniform(30, 90) / grid) + np.float32(0.3), 0.25)
    weave = strands * which + crossing * (1 - which)
    loose = step(fractal_noise(rng, small, rng.uniform(12, 40) / grid, 2) - rng.uniform(0.6, 2.0), 0.6)
    weave = weave + rng.uniform(0.2, 0.8) * smooth_noise(rng, small, 1.3 / grid)
    body = np.clip(1.0 + rng.uniform(0.2, 0.5) * weave, 0.05, None) * (1.0 - 0.8 * loose)
    matter = enlarge(body.astype(np.float32), shape)
    layers.haematoxylin += matter * np.float32(ground.blush * rng.uniform(0.5, 1.1))
    layers.neutral += matter * np.float32(rng.uniform(0.03, 0.08))
    layers.dab += matter * np.float32(ground.haze * rng.uniform(0.5, 1.5))
    side = np.where(smooth_noise(rng, small, 60 / grid) > -0.3, angle, other)
    _scatter(rng, layers, NucleusKind.FIBROBLAST, rng.uniform(500, 2200), side, ground, 0.35)
    if rng.random() < 0.6:
        _scatter(rng, layers, NucleusKind.LYMPHOCYTE, 10 ** rng.uniform(1.5, 3.3), None, ground, 0.0)


def paint_muscle(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    """Smooth muscle, cut along or across its fibres, in bundles with thin septa."""
    if rng.random() < 0.35:
        _muscle_across(rng, layers, ground)
    else:
        _muscle_along(rng, layers, ground)


def _muscle_along(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    shape, grid = layers.shape, 2.0 * ground.mpp
    small = coarse(shape)
    angle = rng.uniform(0, np.pi)
    wave = rng.uniform(0.05, 0.4)
    fine = fibres(rng, small, rng.uniform(0.3, 0.7) / grid, angle, wave)
    fine = fine + rng.uniform(0.2, 0.8) * smooth_noise(rng, small, 1.3 / grid)
    bundles = fibres(rng, small, rng.uniform(1.2, 3.0) / grid, angle, wave)
    body = 1.0 + rng.uniform(0.10, 0.28) * fine + rng.uniform(0.05, 0.22) * bundles
    cleft = step(np.float32(rng.uniform(-3.0, -1.6)) - bundles, 0.25)
    matter = enlarge(np.clip(body * (1.0 - 0.8 * cleft), 0.03, None).astype(np.float32), shape)
    _add_muscle(rng, layers, matter, ground)
    sides = np.full(small, angle)
    _scatter(rng, layers, NucleusKind.MUSCLE, rng.uniform(400, 1500), sides, ground, 0.12)


def _muscle_across(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    shape, grid = layers.shape, 2.0 * ground.mpp
    small = coarse(shape)
    u, v = cells.warped_plane(rng, small, grid, 18.0, 1.5)
    tile = cells.mosaic(rng, u, v, rng.uniform(4.5, 8.0), 0.33)
    tone = rng.normal(1.0, 0.12, int(tile.label.max()) + 1).astype(np.float32)[tile.label]
    line = np.exp(-((tile.border / np.float32(0.7)) ** 2)) * np.float32(rng.uniform(0.1, 0.7))
    matter = enlarge((tone * (1.0 - line)).astype(np.float32), shape)
    _add_muscle(rng, layers, matter, ground)
    sheet = Epithelium(tile.label, tile.border, np.full(small, 0.5, np.float32), tile.border >= 0, tile.border < 0)
    places = cells.nuclear_places(sheet, grid, 0.5)
    chosen = rng.random(len(places.x)) < rng.uniform(0.08, 0.28)
    angle = rng.uniform(0, np.pi, int(chosen.sum()))
    strength = ground.counterstain
    kind = NucleusKind.MUSCLE_ROUND
    press(rng, layers, kind, places.x[chosen], places.y[chosen], angle, ground.mpp, strength=strength)


def _add_muscle(rng: np.random.Generator, layers: Layers, matter: F32, ground: Ground) -> None:
    layers.haematoxylin += matter * np.float32(ground.blush * rng.uniform(0.7, 1.6))
    layers.neutral += matter * np.float32(rng.uniform(0.04, 0.12))
    layers.dab += matter * np.float32(ground.haze * rng.uniform(0.6, 2.0))


def paint_lymphoid(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    """Lymphocytes side by side over faint stroma."""
    paint_stroma(rng, layers, ground)
    shape, grid = layers.shape, 2.0 * ground.mpp
    nest = cells.single_cells(rng, coarse(shape), grid, rng.uniform(6.5, 9.0), rng.uniform(0.5, 0.95))
    places = cells.nuclear_places(nest, grid, 0.5)
    strength = 1.1 * ground.counterstain
    press(
        rng, layers, NucleusKind.LYMPHOCYTE, places.x, places.y, places.angle, ground.mpp, strength=strength, hides=0.9
    )


def paint_fat(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    """Empty round cells with thin walls."""
    shape, grid = layers.shape, 2.0 * ground.mpp
    small = coarse(shape)
    u, v = cells.warped_plane(rng, small, grid, 40.0, 5.0)
    tile = cells.mosaic(rng, u, v, rng.uniform(35.0, 60.0), 0.3)
    wall = np.exp(-((tile.border / np.float32(rng.uniform(0.8, 2.0))) ** 2)).astype(np.float32)
    matter = enlarge(wall, shape)
    layers.haematoxylin += matter * np.float32(ground.blush * 1.2)
    layers.neutral += matter * np.float32(0.08)
    layers.dab += matter * np.float32(ground.haze)
    _scatter(rng, layers, NucleusKind.FIBROBLAST, rng.uniform(60, 250), None, ground, 0.4)


def paint_normal_glands(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    """Mucosa that is not tumour: even glands, small nuclei at the base, pale mucin above them."""
    paint_stroma(rng, layers, ground)
    shape, grid = layers.shape, 2.0 * ground.mpp
    height = rng.uniform(16.0, 26.0)
    gap = rng.uniform(4.0, 14.0)
    gland = 2.0 * height + gap + rng.uniform(4.0, 26.0)
    layer = cells.glands(rng, coarse(shape), grid, rng.uniform(6.0, 8.5), gland, height, gap, rng.uniform(0.0, 0.25))
    mucin = rng.uniform(0.3, 0.9)
    clear = 1.0 - mucin * step(layer.depth - np.float32(0.45), 0.12)
    _fill(rng, layers, layer, ground, np.asarray(clear, dtype=np.float32), rng.uniform(0.6, 1.0))
    places = cells.nuclear_places(layer, grid, rng.uniform(0.15, 0.28))
    strength = ground.counterstain
    press(rng, layers, NucleusKind.REGULAR, places.x, places.y, places.angle, ground.mpp, strength=strength)


def tumour_cells(rng: np.random.Generator, shape: tuple[int, int], mpp: float, *, dense: bool = False) -> Epithelium:
    """An adenocarcinoma's growth on the structure grid of a field: glands, solid nests or single cells.

    ``dense``: with little stroma and small lumens, so that nearly every tile shows tumour.
    """
    small, grid = coarse(shape), 2.0 * mpp
    growth = rng.random()
    cell = rng.uniform(9.5, 14.5)
    if growth < 0.45:
        height = rng.uniform(17.0, 30.0)
        gap = rng.uniform(3.0, 10.0 if dense else 20.0)
        gland = 2.0 * height + gap + rng.uniform(0.0, 20.0 if dense else 45.0)
        return cells.glands(rng, small, grid, 0.62 * cell, gland, height, gap, rng.uniform(0.35, 1.0))
    if growth < 0.82:
        return cells.sheet(
            rng,
            small,
            grid,
            cell,
            rng.uniform(0.88 if dense else 0.62, 0.97),
            rng.uniform(40.0, 80.0 if dense else 140.0),
        )
    return cells.single_cells(rng, small, grid, cell, rng.uniform(0.85 if dense else 0.6, 0.95))


def paint_tumour(
    rng: np.random.Generator, layers: Layers, ground: Ground, staining: Staining, *, dense: bool = False
) -> BoolArray:
    """Tumour in stroma (``dense``: little of it); returns where its cells and lumens are, bool, structure grid."""
    paint_stroma(rng, layers, ground)
    shape, grid = layers.shape, 2.0 * ground.mpp
    tumour = tumour_cells(rng, shape, ground.mpp, dense=dense)
    count = int(tumour.label.max()) + 1
    tone = np.exp(rng.normal(0.0, 0.12, count)).astype(np.float32)[tumour.label]
    bright_border = rng.uniform(0.3, 0.8) if rng.random() < 0.35 else 0.0
    tone = tone * (1.0 - np.float32(bright_border) * np.exp(-((tumour.membrane / np.float32(0.8)) ** 2)))
    _fill(rng, layers, tumour, ground, tone.astype(np.float32), rng.uniform(0.9, 1.7))
    if rng.random() < 0.25:
        _vacuoles(rng, layers, tumour, ground)
    glandular = bool(tumour.lumen.any())
    places = cells.nuclear_places(tumour, grid, rng.uniform(0.25, 0.5) if glandular else 0.5)
    jitter = rng.normal(0.0, 0.12 if glandular else 0.5, len(places.angle))
    strength = ground.counterstain * rng.uniform(0.8, 1.1)
    kind = NucleusKind.TUMOUR
    _stain_cytoplasm(rng, layers, tumour, staining)
    press(rng, layers, kind, places.x, places.y, places.angle + jitter, ground.mpp, strength=strength, hides=0.75)
    _stain_membranes(rng, layers, tumour, staining, grid)
    return tumour.inside | tumour.lumen


def _fill(
    rng: np.random.Generator, layers: Layers, layer: Epithelium, ground: Ground, tone: F32, strength: float
) -> None:
    """Cytoplasm in place of the stroma that was there, and empty lumens with some secretion."""
    shape, grid = layers.shape, 2.0 * ground.mpp
    small = tone.shape[0], tone.shape[1]
    cover = enlarge(ndimage.uniform_filter(layer.inside.astype(np.float32), 3), shape)
    hollow = enlarge(layer.lumen.astype(np.float32), shape)
    layers.scale((1.0 - np.maximum(cover, hollow)).astype(np.float32))
    grain = 1.0 + 0.18 * smooth_noise(rng, small, 1.6 / grid)
    matter = enlarge((tone * grain * layer.inside).astype(np.float32), shape)
    layers.haematoxylin += matter * np.float32(ground.blush * strength)
    layers.neutral += matter * np.float32(rng.uniform(0.03, 0.09))
    layers.dab += matter * np.float32(ground.haze * rng.uniform(0.3, 1.3))
    if layer.lumen.any():
        secretion = step(smooth_noise(rng, small, 15.0 / grid) - np.float32(rng.uniform(0.0, 2.0)), 0.5)
        layers.haematoxylin += enlarge((secretion * layer.lumen).astype(np.float32), shape) * np.float32(
            0.6 * ground.blush
        )


def _vacuoles(rng: np.random.Generator, layers: Layers, layer: Epithelium, ground: Ground) -> None:
    """Drops of mucin that push the cytoplasm aside (signet ring cells where they are large)."""
    grid = 2.0 * ground.mpp
    x, y = cells.plane((layer.label.shape[0], layer.label.shape[1]), grid)
    places = cells.nuclear_places(layer, grid, 0.75)
    chosen = rng.random(len(places.x)) < rng.uniform(0.1, 0.5)
    keep = np.ones(layer.label.shape, dtype=np.float32)
    for cx, cy, area in zip(places.x[chosen], places.y[chosen], places.area[chosen], strict=True):
        radius = np.sqrt(area / np.pi) * rng.uniform(0.35, 0.7)
        rows = slice(max(int((cy - radius) / grid) - 1, 0), int((cy + radius) / grid) + 2)
        columns = slice(max(int((cx - radius) / grid) - 1, 0), int((cx + radius) / grid) + 2)
        distance = np.hypot(x[rows, columns] - cx, y[rows, columns] - cy)
        keep[rows, columns] = np.minimum(keep[rows, columns], np.clip((distance - radius) / 0.8 + 0.5, 0.15, 1.0))
    layers.scale(enlarge(keep, layers.shape))


def _stain_cytoplasm(rng: np.random.Generator, layers: Layers, tumour: Epithelium, staining: Staining) -> None:
    if staining.cytoplasm <= 0:
        return
    small = tumour.label.shape[0], tumour.label.shape[1]
    patches = np.clip(1.0 + 0.3 * smooth_noise(rng, small, 12.0) + 0.2 * smooth_noise(rng, small, 2.5), 0.0, None)
    layers.dab += enlarge((patches * tumour.inside).astype(np.float32), layers.shape) * np.float32(staining.cytoplasm)


def _stain_membranes(
    rng: np.random.Generator, layers: Layers, tumour: Epithelium, staining: Staining, grid: float
) -> None:
    """The brown lines: strongest at the border of two cells, broken where staining is incomplete."""
    if staining.peak <= 0:
        return
    small = tumour.label.shape[0], tumour.label.shape[1]
    count = int(tumour.label.max()) + 1
    each = np.exp(rng.normal(0.0, staining.uneven, count)).astype(np.float32)[tumour.label]
    region = np.exp(np.float32(0.12) * smooth_noise(rng, small, 40.0 / grid))
    gaps = smooth_noise(rng, small, 5.0 / grid) + np.float32(cells.normal_quantile(staining.complete))
    strength = each * region * step(gaps, 0.35)
    if staining.basolateral > 0 and tumour.lumen.any():
        strength = strength * (1.0 - staining.basolateral * step(tumour.depth - np.float32(0.85), 0.12))
    strength = strength * ndimage.uniform_filter(ndimage.binary_dilation(tumour.inside).astype(np.float32), 3)
    distance = enlarge(tumour.membrane, layers.shape)
    line = np.exp(-np.square(distance / np.float32(staining.width)))
    layers.dab += line * enlarge(strength.astype(np.float32), layers.shape) * np.float32(staining.peak)


def _scatter(
    rng: np.random.Generator,
    layers: Layers,
    kind: NucleusKind,
    per_mm2: float,
    angles: npt.NDArray[np.float64] | None,
    ground: Ground,
    spread: float,
) -> None:
    """Nuclei at random places, along the local direction (``angles`` on the structure grid) or any."""
    height, width = layers.shape[0] * ground.mpp, layers.shape[1] * ground.mpp
    count = int(rng.poisson(per_mm2 * height * width / 1e6))
    x, y = rng.uniform(0, width, count), rng.uniform(0, height, count)
    if angles is None:
        direction = rng.uniform(0, np.pi, count)
    else:
        grid = 2.0 * ground.mpp
        rows = np.minimum((y / grid).astype(np.int64), angles.shape[0] - 1)
        columns = np.minimum((x / grid).astype(np.int64), angles.shape[1] - 1)
        direction = angles[rows, columns] + rng.normal(0.0, spread, count)
    press(rng, layers, kind, x, y, direction, ground.mpp, strength=ground.counterstain)
