"""Nuclei as stamps: drawn once for each kind and resolution, then pressed onto the layers."""

from __future__ import annotations

import enum
import functools
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from her2bridge.records import FloatArray
from her2bridge.synth.stains import F32, Layers

_ANGLES = 16


@dataclass(frozen=True)
class Form:
    """What nuclei of a kind look like; lengths are half axes in µm, densities in units of the kind's own staining.

    Attributes:
        length, width: ranges of the half axes.
        base: staining of the plain, between rim and clumps.
        rim: how much darker the rim is.
        clumps: how coarse the chromatin is.
        nucleoli: up to how many dark spots.
        lumpy: deviation from an ellipse.
    """

    length: tuple[float, float]
    width: tuple[float, float]
    base: float
    rim: float
    clumps: float
    nucleoli: int
    lumpy: float


class NucleusKind(enum.Enum):
    """The kinds that are told apart."""

    TUMOUR = Form((3.8, 6.2), (3.2, 4.6), 0.45, 0.32, 0.16, 2, 0.13)
    COLUMNAR = Form((4.0, 6.6), (2.1, 3.1), 0.45, 0.30, 0.16, 2, 0.10)
    PYKNOTIC = Form((2.0, 4.8), (1.4, 3.0), 1.15, 0.0, 0.20, 0, 0.25)
    REGULAR = Form((3.0, 4.0), (2.5, 3.1), 0.62, 0.15, 0.16, 0, 0.05)
    LYMPHOCYTE = Form((2.5, 3.3), (2.4, 3.0), 0.85, 0.15, 0.25, 0, 0.06)
    FIBROBLAST = Form((4.0, 9.0), (0.9, 2.1), 0.65, 0.14, 0.15, 0, 0.12)
    MUSCLE = Form((6.5, 11.0), (1.1, 1.9), 0.55, 0.15, 0.12, 0, 0.06)
    MUSCLE_PLUMP = Form((4.5, 9.0), (1.6, 2.7), 0.42, 0.22, 0.18, 1, 0.10)
    PLUMP = Form((3.4, 5.5), (1.9, 2.9), 0.42, 0.28, 0.18, 1, 0.14)
    MUSCLE_ROUND = Form((1.5, 2.4), (1.3, 2.0), 0.65, 0.15, 0.12, 0, 0.06)


@dataclass(frozen=True, eq=False)
class Stamp:
    """Staining and coverage (0–1) of one nucleus, float32 [k, k], the centre in the middle."""

    staining: F32
    cover: F32


@functools.lru_cache(maxsize=32)
def stamps(kind: NucleusKind, mpp: float) -> tuple[tuple[Stamp, ...], ...]:
    """Variants of a nucleus for each of 16 angles over half a turn; the same in every process."""
    rng = np.random.default_rng([sum(kind.name.encode()), 7])
    return tuple(
        tuple(_draw(rng, kind.value, np.pi * index / _ANGLES, mpp) for _ in range(20)) for index in range(_ANGLES)
    )


def _draw(rng: np.random.Generator, form: Form, angle: float, mpp: float) -> Stamp:
    a, b = rng.uniform(*form.length), rng.uniform(*form.width)
    half = int(np.ceil(1.35 * max(a, b) / mpp)) + 1
    axis = np.arange(-half, half + 1) * mpp
    y, x = np.meshgrid(axis, axis, indexing="ij")
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    turn = np.arctan2(v / b, u / a)
    waves = sum(rng.normal(0, form.lumpy / k) * np.cos(k * turn + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4))
    radius = np.hypot(u / a, v / b) / (1.0 + np.asarray(waves))
    edge = min(a, b)
    cover = np.clip((1.0 - radius) * edge / 0.4 + 0.5, 0.0, 1.0)
    rim = np.exp(-(((radius - 0.9) * edge / 0.42) ** 2))
    clumps = ndimage.gaussian_filter(rng.standard_normal(x.shape), 0.5 / mpp)
    clumps /= clumps.std()
    staining = form.base + form.rim * rim + form.clumps * clumps * (radius < 0.95)
    for _ in range(int(rng.integers(0, form.nucleoli + 1))):
        r, t = rng.uniform(0, 0.5), rng.uniform(0, 2 * np.pi)
        spot = np.hypot(u - a * r * np.cos(t), v - b * r * np.sin(t)) / rng.uniform(0.55, 1.0)
        staining = staining + 0.55 * np.exp(-(spot**2))
    return Stamp(np.maximum(staining, 0.12).astype(np.float32), cover.astype(np.float32))


def press(
    rng: np.random.Generator,
    layers: Layers,
    kind: NucleusKind,
    x: FloatArray,
    y: FloatArray,
    angle: FloatArray,
    mpp: float,
    *,
    strength: float,
    hides: float = 0.8,
    size: float = 1.0,
) -> None:
    """Draw nuclei at x, y (µm) with their long axis at ``angle``.

    ``strength``: haematoxylin of a staining of 1. ``hides``: the share of what lay there before (DAB, cytoplasm) that a
    nucleus takes the place of. ``size``: a factor on the kind's lengths.
    """
    # The same stamp at another resolution is a larger nucleus; few sizes keep the bank small.
    bank = stamps(kind, mpp / size)
    height, width = layers.shape
    slot = np.rint(angle / np.pi * _ANGLES).astype(np.int64) % _ANGLES
    choice = rng.integers(0, len(bank[0]), len(x))
    force = strength * np.exp(rng.normal(0.0, 0.22, len(x)))
    columns, rows = np.floor(x / mpp).astype(np.int64), np.floor(y / mpp).astype(np.int64)
    for index in range(len(x)):
        stamp = bank[slot[index]][choice[index]]
        size = stamp.cover.shape[0]
        top, left = int(rows[index]) - size // 2, int(columns[index]) - size // 2
        y0, y1, x0, x1 = max(top, 0), min(top + size, height), max(left, 0), min(left + size, width)
        if y0 >= y1 or x0 >= x1:
            continue
        cut = (slice(y0 - top, y1 - top), slice(x0 - left, x1 - left))
        cover = stamp.cover[cut]
        view = (slice(y0, y1), slice(x0, x1))
        keep = 1.0 - np.float32(hides) * cover
        layers.haematoxylin[view] *= keep
        layers.haematoxylin[view] += cover * stamp.staining[cut] * np.float32(force[index])
        layers.dab[view] *= keep
        layers.neutral[view] *= keep
