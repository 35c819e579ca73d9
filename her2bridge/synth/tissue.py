"""Tissues that are not tumour, painted onto layers: stroma, vessels, muscle, nerve, lymphoid tissue, glands, fat.

Each painter covers the field it is given. Lengths in µm; fields of structure are computed at half the resolution and
enlarged, since nothing there is finer than a micrometre; membranes and nuclei are drawn at full resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from her2bridge.records import BoolArray
from her2bridge.synth import cells
from her2bridge.synth.cells import Epithelium
from her2bridge.synth.noise import enlarge, fibres, fractal_noise, smooth_noise, step
from her2bridge.synth.nuclei import NucleusKind, press
from her2bridge.synth.stains import F32, Layers


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
    """Connective tissue, dense or loose, with spindle nuclei, some lymphocytes, now and then vessels."""
    if rng.random() < 0.5:
        _dense_stroma(rng, layers, ground)
    else:
        paint_loose(rng, layers, ground)
    if rng.random() < 0.6:
        scatter(rng, layers, NucleusKind.LYMPHOCYTE, 10 ** rng.uniform(1.5, 3.3), None, ground, 0.0)
    if rng.random() < 0.3:
        scatter(rng, layers, NucleusKind.PLUMP, 10 ** rng.uniform(1.5, 2.8), None, ground, 0.0)
    if rng.random() < 0.35:
        paint_vessels(rng, layers, ground)


def _dense_stroma(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    """Collagen in bundles, spindle nuclei along them."""
    shape, mpp = layers.shape, ground.mpp
    small, grid = coarse(shape), 2.0 * mpp
    angle = rng.uniform(0, np.pi)
    other = angle + rng.uniform(0.5, 1.6)
    strands = fibres(rng, small, rng.uniform(0.2, 0.5) / grid, angle, rng.uniform(0.1, 0.7))
    crossing = fibres(rng, small, rng.uniform(0.2, 0.5) / grid, other, rng.uniform(0.1, 0.7))
    which = step(smooth_noise(rng, small, rng.uniform(30, 90) / grid) + np.float32(0.3), 0.25)
    weave = strands * which + crossing * (1 - which)
    loose = step(fractal_noise(rng, small, rng.uniform(12, 40) / grid, 2) - rng.uniform(0.6, 2.0), 0.6)
    weave = weave + rng.uniform(0.4, 1.0) * smooth_noise(rng, small, 1.1 / grid)
    body = np.clip(1.0 + rng.uniform(0.2, 0.5) * weave, 0.05, None) * (1.0 - 0.8 * loose)
    matter = enlarge(body.astype(np.float32), shape)
    _add_fibres(rng, layers, matter, ground)
    side = np.where(smooth_noise(rng, small, 60 / grid) > -0.3, angle, other)
    scatter(rng, layers, NucleusKind.FIBROBLAST, rng.uniform(500, 2200), side, ground, 0.35)


def paint_loose(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    """Loose tissue: a net of thin threads in nearly empty ground, with cells of many shapes, often inflamed."""
    shape, grid = layers.shape, 2.0 * ground.mpp
    small = coarse(shape)
    body = np.full(small, rng.uniform(0.05, 0.4), dtype=np.float32)
    for _ in range(int(rng.integers(2, 5))):
        hill = fractal_noise(rng, small, rng.uniform(5.0, 18.0) / grid, 3)
        here = np.clip(0.6 + 0.7 * smooth_noise(rng, small, 12.0 / grid), 0.0, 1.5)
        body += (
            np.exp(-np.square(hill / np.float32(rng.uniform(0.04, 0.11)))) * here * np.float32(rng.uniform(0.4, 1.3))
        )
    if rng.random() < 0.6:
        strands = fibres(rng, small, rng.uniform(0.25, 0.7) / grid, rng.uniform(0, np.pi), rng.uniform(0.2, 0.8))
        body += np.clip(strands - np.float32(rng.uniform(0.3, 1.2)), 0.0, 1.5) * np.float32(rng.uniform(0.3, 0.9))
    _add_fibres(rng, layers, enlarge(body, shape), ground)
    scatter(rng, layers, NucleusKind.FIBROBLAST, rng.uniform(200, 1200), None, ground, 0.0)
    if rng.random() < 0.5:
        scatter(rng, layers, NucleusKind.LYMPHOCYTE, rng.uniform(300, 2500), None, ground, 0.0)
        scatter(rng, layers, NucleusKind.REGULAR, rng.uniform(50, 900), None, ground, 0.0)
        scatter(rng, layers, NucleusKind.PYKNOTIC, rng.uniform(0, 500), None, ground, 0.0)
    if rng.random() < 0.25:
        paint_red_cells(rng, layers, smooth_noise(rng, small, 30.0 / grid) > rng.uniform(0.4, 1.5), ground)


def _add_fibres(rng: np.random.Generator, layers: Layers, matter: F32, ground: Ground) -> None:
    layers.haematoxylin += matter * np.float32(ground.blush * rng.uniform(0.5, 1.1))
    layers.neutral += matter * np.float32(ground.blush * rng.uniform(0.1, 0.6))
    layers.dab += matter * np.float32(ground.haze * rng.uniform(0.5, 1.5))


def paint_red_cells(rng: np.random.Generator, layers: Layers, where: BoolArray, ground: Ground) -> None:
    """Red cells, refractile, grey to brown, on ``where`` (structure grid)."""
    shape, grid = layers.shape, 2.0 * ground.mpp
    small = coarse(shape)
    discs = cells.single_cells(rng, small, grid, rng.uniform(5.0, 7.5), rng.uniform(0.35, 0.95))
    disc = step(discs.membrane - np.float32(0.2), 0.5) * ndimage.uniform_filter(where.astype(np.float32), 3)
    # Light comes from one side: a bright and a dark edge.
    rows, columns = np.gradient(disc)
    turn = rng.uniform(0, 2 * np.pi)
    edge = (rows * np.sin(turn) + columns * np.cos(turn)) * rng.uniform(0.1, 0.8)
    rim = np.exp(-np.square((discs.membrane - 0.7) / 0.6)) * disc * rng.uniform(0.0, 0.35)
    body = enlarge(np.clip(disc * rng.uniform(0.03, 0.25) + rim + edge, 0.0, 0.9).astype(np.float32), shape)
    layers.scale(1.0 - np.float32(0.9) * enlarge(disc.astype(np.float32), shape))
    layers.neutral += body
    layers.dab += body * np.float32(rng.uniform(0.0, 0.6))


def paint_vessels(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    """Vessels cut across: a clear lumen, often with red cells, flat nuclei round it, a thin or muscular wall."""
    shape, grid = layers.shape, 2.0 * ground.mpp
    small = coarse(shape)
    x, y = cells.warped_plane(rng, small, grid, 20.0, 1.5)
    hollow = np.zeros(small, dtype=bool)
    for _ in range(int(rng.integers(1, 4))):
        cx, cy = rng.uniform(0, shape[1] * ground.mpp), rng.uniform(0, shape[0] * ground.mpp)
        a, b, turn = rng.uniform(5.0, 32.0), rng.uniform(3.0, 13.0), rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
        v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
        far = (np.hypot(u / a, v / b) - 1.0) * min(a, b)
        wall = rng.uniform(1.0, 7.0)
        ring = np.exp(-np.square((far - 0.5 * wall) / (0.6 * wall))) * (
            1.0 + 0.3 * smooth_noise(rng, small, 1.5 / grid)
        )
        layers.scale(enlarge(np.clip(0.5 + far, 0.0, 1.0).astype(np.float32), shape))
        layers.haematoxylin += enlarge(ring.astype(np.float32), shape) * np.float32(
            ground.blush * rng.uniform(0.6, 1.5)
        )
        hollow |= far < -0.5
        t = rng.uniform(0, 2 * np.pi, int(rng.integers(4, 9 + int(2 * wall))))
        r = 1.0 + rng.uniform(0.3, 0.4 + wall, len(t)) / min(a, b)
        px, py = a * r * np.cos(t), b * r * np.sin(t)
        along = np.arctan2(b * np.cos(t), -a * np.sin(t)) + turn
        nx, ny = cx + px * np.cos(turn) - py * np.sin(turn), cy + px * np.sin(turn) + py * np.cos(turn)
        press(rng, layers, NucleusKind.FIBROBLAST, nx, ny, along, ground.mpp, strength=ground.counterstain, size=0.8)
    if rng.random() < 0.6:
        paint_red_cells(rng, layers, hollow, ground)


def paint_muscle(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    """Smooth muscle, cut along or across its fibres, in bundles; often wide, nearly empty septa between."""
    angle = rng.uniform(0, np.pi)
    if rng.random() < 0.2:
        _muscle_across(rng, layers, ground)
    else:
        _muscle_along(rng, layers, ground, angle)
    if rng.random() < 0.65:
        _part_bundles(rng, layers, ground, angle)


def _part_bundles(rng: np.random.Generator, layers: Layers, ground: Ground, angle: float) -> None:
    """Septa between muscle bundles: loose tissue or nothing, a thread along their edge, plump cells in them."""
    shape, grid = layers.shape, 2.0 * ground.mpp
    small = coarse(shape)
    if rng.random() < 0.6:
        wide = fibres(rng, small, rng.uniform(3.0, 9.0) / grid, angle, rng.uniform(0.0, 0.15))
    else:
        wide = fractal_noise(rng, small, rng.uniform(25.0, 80.0) / grid, 3)
    away = wide - np.float32(rng.uniform(0.3, 2.0))
    between = Layers.empty(shape)
    if rng.random() < 0.7:
        paint_loose(rng, between, ground)
    if rng.random() < 0.5:
        scatter(rng, between, NucleusKind.PLUMP, rng.uniform(100, 900), None, ground, 0.0)
    layers.blend(between, enlarge(step(away, rng.uniform(0.02, 0.15)), shape))
    edge = np.exp(-np.square((away - np.float32(0.1)) / np.float32(rng.uniform(0.04, 0.12))))
    edge = edge * np.clip(0.3 + smooth_noise(rng, small, 8.0 / grid), 0.0, 1.3)
    _add_fibres(rng, layers, enlarge(edge.astype(np.float32), shape) * np.float32(rng.uniform(0.0, 1.5)), ground)


def _muscle_along(rng: np.random.Generator, layers: Layers, ground: Ground, angle: float) -> None:
    """Fibres along ``angle``: thin dark fibrils and light slits over an even ground, few pale plump nuclei."""
    shape, grid = layers.shape, 2.0 * ground.mpp
    small = coarse(shape)
    wave = rng.uniform(0.0, 0.35)
    fine = fibres(rng, small, rng.uniform(0.25, 0.6) / grid, angle, wave)
    fine = fine + rng.uniform(0.0, 0.7) * smooth_noise(rng, small, 1.1 / grid)
    bundles = fibres(rng, small, rng.uniform(1.2, 3.0) / grid, angle, wave)
    patches = smooth_noise(rng, small, rng.uniform(10.0, 40.0) / grid)
    body = 1.0 + rng.uniform(0.05, 0.35) * fine + rng.uniform(0.0, 0.25) * bundles + rng.uniform(0.0, 0.2) * patches
    cleft = step(np.float32(rng.uniform(-3.0, -1.6)) - bundles, 0.25)
    if rng.random() < 0.6:
        slits = fibres(rng, small, rng.uniform(0.5, 1.2) / grid, angle + rng.normal(0.0, 0.05), wave)
        cleft = np.maximum(cleft, step(slits - np.float32(rng.uniform(1.3, 2.4)), 0.15))
    body = body * (1.0 - rng.uniform(0.5, 0.95) * cleft)
    matter = enlarge(np.clip(body, 0.03, None).astype(np.float32), shape)
    if rng.random() < 0.6:
        matter = matter + _fibrils(rng, shape, ground.mpp, angle, wave)
    _add_muscle(rng, layers, matter, ground)
    sides = np.full(small, angle)
    kind = NucleusKind.MUSCLE if rng.random() < 0.5 else NucleusKind.MUSCLE_PLUMP
    scatter(rng, layers, kind, rng.uniform(250, 1500), sides, ground, 0.12, rng.uniform(0.35, 1.1))


def _fibrils(rng: np.random.Generator, shape: tuple[int, int], mpp: float, angle: float, wave: float) -> F32:
    """Hair-thin dark lines along the fibres, broken, at full resolution."""
    threads = fibres(rng, shape, rng.uniform(0.5, 1.1) / mpp, angle, wave)
    lines = np.exp(-np.square(threads / np.float32(rng.uniform(0.1, 0.3))))
    here = enlarge(np.clip(smooth_noise(rng, coarse(shape), 7.0 / (2.0 * mpp)), 0.0, 1.5), shape)
    return np.asarray(lines * here * np.float32(rng.uniform(0.1, 0.7)), dtype=np.float32)


def paint_nerve(rng: np.random.Generator, layers: Layers, ground: Ground) -> None:
    """A nerve: curly pale fibres with thin curly nuclei, in loose tissue."""
    shape, grid = layers.shape, 2.0 * ground.mpp
    small = coarse(shape)
    angle = rng.uniform(0, np.pi)
    fine = fibres(rng, small, rng.uniform(0.4, 0.8) / grid, angle, rng.uniform(0.5, 1.0))
    body = np.clip(0.8 + rng.uniform(0.2, 0.4) * fine + 0.2 * smooth_noise(rng, small, 1.2 / grid), 0.05, None)
    _add_fibres(rng, layers, enlarge(body.astype(np.float32), shape), ground)
    sides = angle + 0.6 * smooth_noise(rng, small, 20.0 / grid).astype(np.float64)
    scatter(rng, layers, NucleusKind.FIBROBLAST, rng.uniform(900, 2600), sides, ground, 0.25)
    around = Layers.empty(shape)
    paint_loose(rng, around, ground)
    edge = fibres(rng, small, rng.uniform(10.0, 20.0) / grid, angle, 0.1) - np.float32(rng.uniform(0.2, 1.5))
    layers.blend(around, enlarge(step(edge, 0.03), shape))


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
    layers.neutral += matter * np.float32(ground.blush * rng.uniform(0.2, 0.8))
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
    scatter(rng, layers, NucleusKind.FIBROBLAST, rng.uniform(60, 250), None, ground, 0.4)


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
    fill(rng, layers, layer, ground, np.asarray(clear, dtype=np.float32), rng.uniform(0.6, 1.0))
    places = cells.nuclear_places(layer, grid, rng.uniform(0.15, 0.28))
    strength = ground.counterstain
    press(rng, layers, NucleusKind.REGULAR, places.x, places.y, places.angle, ground.mpp, strength=strength)


def fill(
    rng: np.random.Generator, layers: Layers, layer: Epithelium, ground: Ground, tone: F32, strength: float
) -> None:
    """Cytoplasm in place of the stroma that was there, and empty lumens with some secretion."""
    shape, grid = layers.shape, 2.0 * ground.mpp
    small = tone.shape[0], tone.shape[1]
    cover = enlarge(ndimage.uniform_filter(layer.inside.astype(np.float32), 3), shape)
    open_ = ndimage.uniform_filter(layer.lumen.astype(np.float32), 3)
    hollow = enlarge(open_, shape)
    layers.scale((1.0 - np.maximum(cover, hollow)).astype(np.float32))
    grain = 1.0 + 0.18 * smooth_noise(rng, small, 1.6 / grid)
    matter = enlarge((tone * grain * layer.inside).astype(np.float32), shape)
    layers.haematoxylin += matter * np.float32(ground.blush * strength)
    layers.neutral += matter * np.float32(ground.blush * rng.uniform(0.1, 0.6))
    layers.dab += matter * np.float32(ground.haze * rng.uniform(0.3, 1.3))
    if layer.lumen.any():
        brush = enlarge(4.0 * open_ * (1.0 - open_) * layer.inside, shape)
        layers.neutral += brush * np.float32(ground.blush * rng.uniform(0.0, 1.2))
        secretion = step(smooth_noise(rng, small, 15.0 / grid) - np.float32(rng.uniform(-0.5, 2.0)), 0.5)
        if rng.random() < 0.6:
            secretion = secretion * np.clip(smooth_noise(rng, small, 1.6 / grid) + np.float32(0.3), 0.0, None)
        shed = enlarge((secretion * open_).astype(np.float32), shape)
        layers.haematoxylin += shed * np.float32(ground.blush * rng.uniform(0.3, 1.0))
        layers.neutral += shed * np.float32(ground.blush * rng.uniform(0.0, 1.2))


def scatter(
    rng: np.random.Generator,
    layers: Layers,
    kind: NucleusKind,
    per_mm2: float,
    angles: npt.NDArray[np.float64] | None,
    ground: Ground,
    spread: float,
    strength: float = 1.0,
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
    press(rng, layers, kind, x, y, direction, ground.mpp, strength=strength * ground.counterstain)
