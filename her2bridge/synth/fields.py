"""Fields: pictures of one tile class, of any size, with what is tumour and what is tissue in them.

A field is what one microscope view would show of one kind of tissue; tiles are cut from fields (``tiles``), slides are
put together from them (``slide``).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from her2bridge.records import BoolArray, ByteArray, TileClass
from her2bridge.synth import tissue, tumour
from her2bridge.synth.artefacts import paint_noise
from her2bridge.synth.noise import enlarge, fractal_noise, smooth_noise, step
from her2bridge.synth.stains import F32, Layers, Stains, sample_stains, to_bytes, transmit
from her2bridge.synth.tissue import Ground
from her2bridge.synth.tumour import Growth, Staining


@dataclass(frozen=True)
class Imaging:
    """What scanner and file make of the light.

    Attributes:
        blur: width (σ) of the point spread, µm.
        sharpen: how much of the picture's own detail is added again, 0–1.
        grain: noise of the camera, grey levels.
        jpeg: quality, or None for no compression.
    """

    blur: float
    sharpen: float
    grain: float
    jpeg: int | None


@dataclass(frozen=True, eq=False)
class Field:
    """A picture and its truth.

    Attributes:
        pixels: RGB, uint8 [h, w, 3].
        tumour: where tumour cells and their lumens are, bool on a grid of half the resolution.
        tissue: where there is tissue (for the noise class: the artefact), bool on the same grid.
        top: where tumour, if there is any, shows the field's own class and not a lower one, bool on the same grid.
    """

    pixels: ByteArray
    tumour: BoolArray
    tissue: BoolArray
    top: BoolArray


def sample_staining(rng: np.random.Generator, tile_class: TileClass) -> Staining:
    """HER2 expression of a tumour class, as Table 1 of Han et al. 2022 words it."""
    granules = rng.uniform(0.1, 0.8) if rng.random() < (0.12 if tile_class == TileClass.ZERO else 0.4) else 0.0
    basolateral = rng.uniform(0.5, 1.0) if rng.random() < 0.6 else 0.0
    uneven, patchy, beads = rng.uniform(0.08, 0.4), rng.uniform(0.08, 0.4), rng.uniform(0.05, 0.6)
    if tile_class == TileClass.ZERO:
        # No membrane, or that of a few cells: fewer than one in ten.
        few = rng.uniform(0.01, 0.06) if rng.random() < 0.15 else 0.0
        peak = rng.uniform(0.12, 0.4) if few else 0.0
        cytoplasm = rng.uniform(0.0, 0.06) if rng.random() < 0.35 else 0.0
        return Staining(peak, 0.6, 0.6, cytoplasm, 0.0, uneven, 0.1, beads, few, granules)
    if tile_class == TileClass.ONE:
        peak, complete, width = rng.uniform(0.10, 0.22), rng.uniform(0.3, 0.85), rng.uniform(0.4, 0.85)
        cytoplasm, share = peak * rng.uniform(0.03, 0.25), rng.uniform(0.6, 1.0)
    elif tile_class == TileClass.TWO:
        peak, complete, width = rng.uniform(0.32, 0.58), rng.uniform(0.5, 0.97), rng.uniform(0.4, 0.95)
        cytoplasm, share = peak * rng.uniform(0.03, 0.22), rng.uniform(0.6, 1.0)
        patchy *= 1.4
    else:
        peak, complete, width = (
            float(np.exp(rng.uniform(-0.28, 0.55))),
            rng.uniform(0.85, 0.995),
            rng.uniform(0.55, 1.45),
        )
        cytoplasm, share = peak * rng.uniform(0.06, 0.35), rng.uniform(0.85, 1.0)
        patchy = min(patchy, 0.25)
    granules *= min(1.5 * peak, 0.7)
    return Staining(peak, complete, width, cytoplasm, basolateral, uneven, patchy, beads, share, granules)


def sample_ground(rng: np.random.Generator, mpp: float) -> Ground:
    """Counterstain and unspecific staining of a slide: from barely blue to dark."""
    haze = rng.uniform(0.02, 0.10) if rng.random() < 0.3 else rng.uniform(0.0, 0.015)
    counterstain = float(np.exp(rng.uniform(np.log(0.17), np.log(0.9))))
    return Ground(counterstain, counterstain * rng.uniform(0.14, 0.42), haze, mpp)


def sample_imaging(rng: np.random.Generator) -> Imaging:
    """Some scanner and file format."""
    sharpen = rng.uniform(0.2, 1.3) if rng.random() < 0.6 else 0.0
    return Imaging(rng.uniform(0.1, 0.48), sharpen, rng.uniform(0.5, 3.5), int(rng.integers(68, 97)))


def render_field(
    tile_class: TileClass,
    rng: np.random.Generator,
    shape: tuple[int, int],
    mpp: float = 0.25,
    *,
    stains: Stains | None = None,
    ground: Ground | None = None,
    imaging: Imaging | None = None,
    whole: bool = False,
) -> Field:
    """A field of ``shape`` (height, width) pixels at ``mpp`` µm per pixel.

    What is not given is drawn from ``rng``. ``whole``: the class fills the field (no tears, little stroma between
    tumour cells, artefacts that leave nothing free), as the areas of a slide want it; tiles for training are less tidy.
    """
    stains = stains if stains is not None else sample_stains(rng)
    ground = ground if ground is not None else sample_ground(rng, mpp)
    imaging = imaging if imaging is not None else sample_imaging(rng)
    layers = Layers.empty(shape)
    small = tissue.coarse(shape)
    growth = Growth(np.zeros(small, dtype=bool), np.ones(small, dtype=bool))
    present = np.ones(small, dtype=bool)
    if tile_class == TileClass.NOISE:
        artefact = paint_noise(rng, layers, stains, ground, whole=whole)
        light, present = artefact.light, artefact.present
    else:
        if tile_class == TileClass.NORMAL:
            growth = _paint_normal(rng, layers, ground, whole=whole)
        else:
            growth = _paint_tumour(rng, layers, ground, tile_class, whole=whole)
        if not whole and rng.random() < 0.35:
            present = _tear(rng, layers, ground.mpp)
        _roughen(rng, layers, mpp)
        light = transmit(layers, stains)
    return Field(_picture(rng, light, imaging, mpp), growth.tumour & present, present, growth.top)


def _paint_tumour(
    rng: np.random.Generator, layers: Layers, ground: Ground, tile_class: TileClass, *, whole: bool
) -> Growth:
    """Tumour of a class; unless ``whole``, often with a part of a lower class, or beside other tissue."""
    lower = None
    if not whole and tile_class != TileClass.ZERO and rng.random() < 0.3:
        below = TileClass(int(rng.integers(0, int(tile_class))))
        lower = sample_staining(rng, below)
    staining = sample_staining(rng, tile_class)
    growth = tumour.paint_tumour(rng, layers, ground, staining, lower=lower, dense=whole)
    if whole or rng.random() > 0.3:
        return growth
    beside = _put_beside(rng, layers, ground, rng.uniform(-0.4, 1.0))
    return Growth(growth.tumour & ~beside, growth.top)


def _paint_normal(rng: np.random.Generator, layers: Layers, ground: Ground, *, whole: bool) -> Growth:
    """Tissue without tumour; unless ``whole``, often of two kinds, now and then with a little tumour at one side."""
    small = tissue.coarse(layers.shape)
    nothing = Growth(np.zeros(small, dtype=bool), np.ones(small, dtype=bool))
    if not whole and rng.random() < 0.08:
        staining = sample_staining(rng, TileClass(int(rng.integers(0, 4))))
        growth = tumour.paint_tumour(rng, layers, ground, staining)
        beside = _put_beside(rng, layers, ground, rng.uniform(-1.8, -0.8))
        return Growth(growth.tumour & ~beside, growth.top)
    _sample_normal(rng)(rng, layers, ground)
    if not whole and rng.random() < 0.3:
        _put_beside(rng, layers, ground, rng.uniform(-0.5, 0.5))
    return nothing


def _put_beside(rng: np.random.Generator, layers: Layers, ground: Ground, level: float) -> BoolArray:
    """Other tissue in place of a part of the field, the larger the lower ``level``; returns where, structure grid."""
    small, grid = tissue.coarse(layers.shape), 2.0 * ground.mpp
    other = Layers.empty(layers.shape)
    _sample_normal(rng)(rng, other, ground)
    edge = fractal_noise(rng, small, rng.uniform(50, 140) / grid, 3) - np.float32(level)
    layers.blend(other, enlarge(step(edge, 0.02), layers.shape))
    return np.asarray(edge > 0)


def _roughen(rng: np.random.Generator, layers: Layers, mpp: float) -> None:
    """Fine grain of all matter: sections are not smooth at the size of a pixel."""
    grain = smooth_noise(rng, layers.shape, rng.uniform(0.5, 0.9) / mpp) * np.float32(rng.uniform(0.05, 0.28))
    layers.scale(np.maximum(grain + np.float32(1.0), np.float32(0.1)))


_NORMAL: tuple[tuple[float, Callable[[np.random.Generator, Layers, Ground], None]], ...] = (
    (0.28, tissue.paint_stroma),
    (0.38, tissue.paint_muscle),
    (0.09, tissue.paint_lymphoid),
    (0.16, tissue.paint_normal_glands),
    (0.04, tissue.paint_fat),
    (0.05, tissue.paint_nerve),
)
"""Kinds of non-tumour tissue and how often each is drawn."""


def _sample_normal(rng: np.random.Generator) -> Callable[[np.random.Generator, Layers, Ground], None]:
    shares = np.array([share for share, _ in _NORMAL])
    return _NORMAL[int(rng.choice(len(_NORMAL), p=shares / shares.sum()))][1]


def _tear(rng: np.random.Generator, layers: Layers, mpp: float) -> BoolArray:
    """Glass where tissue has shrunk or ended; returns where tissue is left, on the structure grid."""
    small, grid = tissue.coarse(layers.shape), 2.0 * mpp
    if rng.random() < 0.25:
        field = np.abs(fractal_noise(rng, small, rng.uniform(30, 80) / grid)) - np.float32(rng.uniform(0.03, 0.12))
    else:
        field = fractal_noise(rng, small, rng.uniform(60, 150) / grid, 4) + np.float32(rng.uniform(0.3, 1.5))
    field = np.asarray(field, dtype=np.float32)
    if rng.random() < 0.15:
        # Edge artefact: reagents pool where tissue ends.
        edge = np.exp(-np.square(field / np.float32(rng.uniform(0.05, 0.2)))) * np.float32(rng.uniform(0.05, 0.5))
        layers.dab += enlarge(edge, layers.shape)
    layers.scale(enlarge(step(field, 0.04), layers.shape))
    return np.asarray(field > 0)


def _picture(rng: np.random.Generator, light: F32, imaging: Imaging, mpp: float) -> ByteArray:
    sigma = imaging.blur / mpp
    for plane in light:
        if sigma > 0.25:
            ndimage.gaussian_filter(plane, sigma, output=plane, mode="nearest", truncate=2.5)
        if imaging.sharpen > 0:
            detail = plane - ndimage.uniform_filter(plane, max(3, int(rng.uniform(0.6, 1.3) / mpp) | 1), mode="nearest")
            plane += np.float32(imaging.sharpen) * detail
    light += rng.standard_normal(light.shape[1:], dtype=np.float32) * np.float32(imaging.grain)
    light += smooth_noise(rng, light.shape[1:], 40.0 / mpp) * np.float32(0.8)
    pixels = to_bytes(light)
    return pixels if imaging.jpeg is None else _through_jpeg(pixels, imaging.jpeg)


def _through_jpeg(pixels: ByteArray, quality: int) -> ByteArray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), dtype=np.uint8)
