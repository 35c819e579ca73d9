"""Random fields that tissue is made of: smooth noise, fibres. All float32 [h, w], lengths in pixels of the field."""

from __future__ import annotations

import functools

import numpy as np
from scipy import ndimage

from her2bridge.synth.stains import F32

_SPLINE_POWER = 151.0 / 315.0
"""Mean sum of squares of the cubic B-spline's weights: the variance that white noise keeps per axis."""


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float) -> F32:
    """Noise of mean 0 and variance 1 whose features are about ``scale`` pixels wide.

    White noise on a coarse grid, interpolated with cubic B-splines: two matrix products, so that large fields are
    cheap. Scales below 2 pixels come out as 2.
    """
    rows = _spline_matrix(shape[0], max(scale, 2.0), float(rng.random()))
    columns = _spline_matrix(shape[1], max(scale, 2.0), float(rng.random()))
    coarse = rng.standard_normal((rows.shape[1], columns.shape[1]), dtype=np.float32)
    return np.asarray(rows @ coarse @ columns.T / np.float32(_SPLINE_POWER), dtype=np.float32)


def fractal_noise(rng: np.random.Generator, shape: tuple[int, int], scale: float, octaves: int = 3) -> F32:
    """Sum of octaves of smooth noise, each half as wide and 0.6 as strong; variance 1."""
    weights = [0.6**octave for octave in range(octaves)]
    total = sum(w * smooth_noise(rng, shape, scale / 2**octave) for octave, w in enumerate(weights))
    return np.asarray(total / np.float32(np.sqrt(sum(w * w for w in weights))), dtype=np.float32)


def _spline_matrix(size: int, scale: float, phase: float) -> F32:
    """Weights float32 [size, knots] of the cubic B-spline at each pixel."""
    position = np.arange(size) / scale + phase
    base = np.floor(position).astype(np.int64)
    t = position - base
    weights = np.stack(
        [(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3],
        axis=1,
    )
    matrix = np.zeros((size, int(base[-1]) + 4), dtype=np.float32)
    matrix[np.arange(size)[:, None], base[:, None] + np.arange(4)] = weights / 6.0
    return matrix


@functools.lru_cache(maxsize=1)
def _strands() -> F32:
    """A periodic texture of strands along x, 1024 × 1024, variance 1; the same in every process."""
    rng = np.random.default_rng(20220601)
    white = rng.standard_normal((1024, 1024), dtype=np.float32)
    thin = ndimage.gaussian_filter(white, (1.0, 14.0), mode="wrap")
    thick = ndimage.gaussian_filter(np.roll(white, 333, axis=0), (2.6, 28.0), mode="wrap")
    texture = thin / thin.std() + 0.8 * thick / thick.std()
    return np.asarray(texture / texture.std(), dtype=np.float32)


def fibres(rng: np.random.Generator, shape: tuple[int, int], scale: float, angle: float, wave: float) -> F32:
    """Strands about ``2 · scale`` pixels thick that run along ``angle`` (radians) and wander; variance 1.

    ``wave``: how far they wander, 0 (straight) to 1 (curly).
    """
    y, x = np.meshgrid(
        np.arange(shape[0], dtype=np.float32), np.arange(shape[1], dtype=np.float32), indexing="ij", sparse=True
    )
    along = (x * np.cos(angle) + y * np.sin(angle)) / scale + rng.uniform(0, 1024)
    across = (y * np.cos(angle) - x * np.sin(angle)) / scale + rng.uniform(0, 1024)
    across = across + smooth_noise(rng, shape, 60.0 * scale) * np.float32(22.0 * wave)
    across = across + smooth_noise(rng, shape, 22.0 * scale) * np.float32(5.0 * wave)
    return sample_strands(np.asarray(across, dtype=np.float32), np.asarray(along, dtype=np.float32))


def sample_strands(across: F32, along: F32) -> F32:
    """The strands at any coordinates, to the nearest quarter pixel across and whole pixel along."""
    texture = _strands_fine()
    rows = (across * np.float32(4.0)).astype(np.int32) & 4095
    columns = along.astype(np.int32) & 1023
    return np.asarray(texture[rows, columns], dtype=np.float32)


@functools.lru_cache(maxsize=1)
def _strands_fine() -> F32:
    texture = _strands()
    following = np.roll(texture, -1, axis=0)
    steps = np.arange(4, dtype=np.float32)[None, :, None] / np.float32(4.0)
    fine = texture[:, None, :] * (1 - steps) + following[:, None, :] * steps
    return np.ascontiguousarray(fine.reshape(4096, 1024))


def enlarge(field: F32, shape: tuple[int, int]) -> F32:
    """A field on a grid of half the resolution, linearly between, cut to ``shape``."""
    return _double(_double(field, shape[0]).T, shape[1]).T


def _double(field: F32, size: int) -> F32:
    """Twice as many rows, pixel centres kept: each new row is 3/4 of the nearer and 1/4 of the farther one."""
    before = np.concatenate([field[:1], field[:-1]])
    after = np.concatenate([field[1:], field[-1:]])
    near = field * np.float32(0.75)
    out = np.empty((2 * field.shape[0], field.shape[1]), dtype=np.float32)
    out[0::2] = near + before * np.float32(0.25)
    out[1::2] = near + after * np.float32(0.25)
    return np.ascontiguousarray(out[:size])


def step(values: F32, softness: float) -> F32:
    """0 below zero, 1 above, linear over ± ``softness``."""
    return np.asarray(np.clip(values / np.float32(2 * softness) + np.float32(0.5), 0.0, 1.0), dtype=np.float32)
