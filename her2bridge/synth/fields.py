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

from her2bridge.records import ByteArray, TileClass
from her2bridge.synth import tissue
from her2bridge.synth.artefacts import paint_noise
from her2bridge.synth.noise import enlarge, fractal_noise, smooth_noise, step
from her2bridge.synth.stains import F32, Layers, Stains, sample_stains, to_bytes, transmit
from her2bridge.synth.tissue import BoolArray, Ground, Staining


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
    """

    pixels: ByteArray
    tumour: BoolArray
    tissue: BoolArray


def sample_staining(rng: np.random.Generator, tile_class: TileClass) -> Staining:
    """HER2 expression of a tumour class, as Table 1 of Han et al. 2022 words it."""
    if tile_class == TileClass.ZERO:
        cytoplasm = rng.uniform(0.0, 0.05) if rng.random() < 0.4 else 0.0
        return Staining(0.0, 0.0, 0.5, cytoplasm, 0.0, 0.0)
    basolateral = rng.uniform(0.5, 1.0) if rng.random() < 0.6 else 0.0
    if tile_class == TileClass.ONE:
        peak, complete, width = rng.uniform(0.15, 0.27), rng.uniform(0.45, 0.85), rng.uniform(0.55, 0.9)
    elif tile_class == TileClass.TWO:
        peak, complete, width = rng.uniform(0.42, 0.70), rng.uniform(0.75, 0.97), rng.uniform(0.6, 1.0)
    else:
        peak, complete, width = rng.uniform(1.05, 1.9), rng.uniform(0.92, 0.995), rng.uniform(0.8, 1.5)
    return Staining(peak, complete, width, peak * rng.uniform(0.03, 0.22), basolateral, rng.uniform(0.05, 0.25))


def sample_ground(rng: np.random.Generator, mpp: float) -> Ground:
    """Counterstain and unspecific staining of a slide."""
    haze = rng.uniform(0.02, 0.10) if rng.random() < 0.35 else rng.uniform(0.0, 0.02)
    return Ground(rng.uniform(0.45, 0.95), rng.uniform(0.07, 0.22), haze, mpp)


def sample_imaging(rng: np.random.Generator) -> Imaging:
    """Some scanner and file format."""
    sharpen = rng.uniform(0.2, 0.8) if rng.random() < 0.4 else 0.0
    return Imaging(rng.uniform(0.12, 0.5), sharpen, rng.uniform(0.5, 3.0), int(rng.integers(70, 96)))


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
    tumour = np.zeros(small, dtype=bool)
    present = np.ones(small, dtype=bool)
    if tile_class == TileClass.NOISE:
        artefact = paint_noise(rng, layers, stains, ground, whole=whole)
        light, present = artefact.light, artefact.present
    else:
        if tile_class == TileClass.NORMAL:
            _sample_normal(rng)(rng, layers, ground)
        else:
            tumour = tissue.paint_tumour(rng, layers, ground, sample_staining(rng, tile_class), dense=whole)
        if not whole and rng.random() < 0.4:
            present = _tear(rng, layers, ground.mpp)
        light = transmit(layers, stains)
    return Field(_picture(rng, light, imaging, mpp), tumour & present, present)


_NORMAL: tuple[tuple[float, Callable[[np.random.Generator, Layers, Ground], None]], ...] = (
    (0.34, tissue.paint_stroma),
    (0.34, tissue.paint_muscle),
    (0.10, tissue.paint_lymphoid),
    (0.17, tissue.paint_normal_glands),
    (0.05, tissue.paint_fat),
)
"""Kinds of non-tumour tissue and how often each is drawn."""


def _sample_normal(rng: np.random.Generator) -> Callable[[np.random.Generator, Layers, Ground], None]:
    shares = np.array([share for share, _ in _NORMAL])
    return _NORMAL[int(rng.choice(len(_NORMAL), p=shares / shares.sum()))][1]


def _tear(rng: np.random.Generator, layers: Layers, mpp: float) -> BoolArray:
    """Glass where tissue has shrunk or ended; returns where tissue is left, on the structure grid."""
    small, grid = tissue.coarse(layers.shape), 2.0 * mpp
    if rng.random() < 0.5:
        field = np.abs(fractal_noise(rng, small, rng.uniform(30, 80) / grid)) - np.float32(rng.uniform(0.03, 0.12))
    else:
        field = fractal_noise(rng, small, rng.uniform(60, 150) / grid, 4) + np.float32(rng.uniform(0.3, 1.5))
    layers.scale(enlarge(step(np.asarray(field, dtype=np.float32), 0.04), layers.shape))
    return np.asarray(field > 0)


def _picture(rng: np.random.Generator, light: F32, imaging: Imaging, mpp: float) -> ByteArray:
    sigma = imaging.blur / mpp
    for plane in light:
        if sigma > 0.25:
            ndimage.gaussian_filter(plane, sigma, output=plane, mode="nearest", truncate=2.5)
        if imaging.sharpen > 0:
            detail = plane - ndimage.uniform_filter(plane, max(3, int(1.0 / mpp) | 1), mode="nearest")
            plane += np.float32(imaging.sharpen) * detail
    light += rng.standard_normal(light.shape[1:], dtype=np.float32) * np.float32(imaging.grain)
    light += smooth_noise(rng, light.shape[1:], 40.0 / mpp) * np.float32(0.8)
    pixels = to_bytes(light)
    return pixels if imaging.jpeg is None else _through_jpeg(pixels, imaging.jpeg)


def _through_jpeg(pixels: ByteArray, quality: int) -> ByteArray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), dtype=np.uint8)
