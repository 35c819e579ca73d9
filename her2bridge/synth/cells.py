"""Where cells lie: warped Voronoi cells as sheets, nests, glands round a lumen, or single cells.

All on a coarse grid; lengths in µm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from her2bridge.records import FloatArray, IntArray
from her2bridge.synth.noise import smooth_noise
from her2bridge.synth.stains import F32


@dataclass(frozen=True, eq=False)
class Mosaic:
    """Voronoi cells of a plane.

    Attributes:
        label: the cell of each pixel, int64 [h, w].
        border: distance to the border with the next cell, µm, float32 [h, w].
        u, v: vectors from the cell's seed point to the pixel, µm, float32 [h, w].
    """

    label: IntArray
    border: F32
    u: F32
    v: F32


@dataclass(frozen=True, eq=False)
class Epithelium:
    """Cells with an inside and an outside.

    Attributes:
        label: the cell of each pixel, int64 [h, w].
        membrane: distance to the nearest cell membrane, µm, float32 [h, w]; at most 0 outside cells.
        depth: 0 at the base, 1 at the lumen, float32 [h, w]; 0.5 everywhere where there is neither.
        inside: whether the pixel belongs to a cell, bool [h, w].
        lumen: whether it belongs to a lumen, bool [h, w].
    """

    label: IntArray
    membrane: F32
    depth: F32
    inside: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
    lumen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]


def plane(shape: tuple[int, int], mpp: float) -> tuple[F32, F32]:
    """Coordinates of the pixel centres in µm: x and y, float32 [h, w]."""
    y, x = np.meshgrid(
        (np.arange(shape[0], dtype=np.float32) + np.float32(0.5)) * np.float32(mpp),
        (np.arange(shape[1], dtype=np.float32) + np.float32(0.5)) * np.float32(mpp),
        indexing="ij",
    )
    return x, y


def warped_plane(
    rng: np.random.Generator, shape: tuple[int, int], mpp: float, scale: float, amount: float
) -> tuple[F32, F32]:
    """Coordinates bent by noise of ``scale`` µm, by about ``amount`` µm, so that no border is straight."""
    x, y = plane(shape, mpp)
    x = x + smooth_noise(rng, shape, scale / mpp) * np.float32(amount)
    y = y + smooth_noise(rng, shape, scale / mpp) * np.float32(amount)
    return x, y


def mosaic(rng: np.random.Generator, u: F32, v: F32, spacing: float, jitter: float) -> Mosaic:
    """Voronoi cells of a jittered hexagonal lattice of ``spacing`` µm in the coordinates u, v (float32 [h, w], µm).

    Only the lattice's seven neighbours are asked, enough where cells are not thrown far (jitter ≤ 0.35).
    """
    a, b = u / np.float32(spacing), v / np.float32(spacing)
    row = np.floor(b).astype(np.int64)
    row0 = int(row.min()) - 1
    rows = int(row.max()) - row0 + 2
    shift = np.where(row & 1, np.float32(0.5), np.float32(0.0))
    column0 = int(np.floor(a.min())) - 2
    columns = int(np.floor(a.max())) - column0 + 3
    lattice_row = np.arange(rows)[:, None] + row0
    seeds_u = (
        np.arange(columns)[None, :] + column0 + 0.5 + 0.5 * (lattice_row & 1) + _jitter(rng, rows, columns, jitter)
    )
    seeds_v = lattice_row + 0.5 + _jitter(rng, rows, columns, jitter)
    seeds_u32, seeds_v32 = seeds_u.astype(np.float32).ravel(), seeds_v.astype(np.float32).ravel()
    home = (row - row0) * columns + np.floor(a - shift).astype(np.int64) - column0
    return _nearest_two(a, b, home, (row & 1).astype(bool), columns, seeds_u32, seeds_v32, spacing)


def _jitter(rng: np.random.Generator, rows: int, columns: int, jitter: float) -> FloatArray:
    return rng.uniform(-jitter, jitter, (rows, columns))


def _nearest_two(
    a: F32,
    b: F32,
    home: IntArray,
    odd: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    columns: int,
    seeds_u: F32,
    seeds_v: F32,
    spacing: float,
) -> Mosaic:
    """Nearest and second nearest seed of every pixel among its lattice neighbours."""
    first = np.full(a.shape, np.inf, dtype=np.float32)
    second = first.copy()
    label = home.copy()
    runner_up = home.copy()
    # Rows above and below are shifted by half a cell: two of their seeds can be near, and which two the parity says.
    lean = np.where(odd, 0, -1)
    for dy in (0, -1, 1):
        for dx in (0, -1, 1) if dy == 0 else (0, 1):
            index = home + dx if dy == 0 else home + (dy * columns + dx) + lean
            du, dv = a - seeds_u[index], b - seeds_v[index]
            distance = du * du + dv * dv
            closer = distance < first
            near = np.where(closer, first, distance)
            near_index = np.where(closer, label, index)
            replaces = near < second
            second = np.where(replaces, near, second)
            runner_up = np.where(replaces, near_index, runner_up)
            first = np.where(closer, distance, first)
            label = np.where(closer, index, label)
    gap = np.hypot(seeds_u[label] - seeds_u[runner_up], seeds_v[label] - seeds_v[runner_up])
    border = (second - first) / (2.0 * np.maximum(gap, 0.05)) * spacing
    return Mosaic(
        label,
        border.astype(np.float32),
        ((a - seeds_u[label]) * spacing).astype(np.float32),
        ((b - seeds_v[label]) * spacing).astype(np.float32),
    )


def sheet(
    rng: np.random.Generator,
    shape: tuple[int, int],
    mpp: float,
    cell: float,
    share: float,
    nest: float,
    *,
    stretch: float | None = None,
) -> Epithelium:
    """Solid nests: cells of about ``cell`` µm that fill about ``share`` of the field, in nests of ``nest`` µm.

    ``stretch``: how much longer than wide cells are; their direction then wanders through the field.
    """
    u, v = warped_plane(rng, shape, mpp, 2.2 * cell, 0.16 * cell)
    if stretch is None:
        stretch = rng.uniform(1.0, 1.35)
    else:
        cell = cell / float(np.sqrt(stretch))
        u = u + smooth_noise(rng, shape, 70.0 / mpp) * np.float32(22.0)
        v = v + smooth_noise(rng, shape, 70.0 / mpp) * np.float32(22.0)
    angle = rng.uniform(0, np.pi)
    along = (u * np.cos(angle) + v * np.sin(angle)) / np.float32(stretch)
    cells = mosaic(rng, along, v * np.cos(angle) - u * np.sin(angle), cell, 0.32)
    island = smooth_noise(rng, shape, nest / mpp) + 0.25 * smooth_noise(rng, shape, 0.3 * nest / mpp)
    edge = (island - np.float32(np.quantile(island[::8, ::8], 1.0 - share))) * np.float32(0.45 * nest)
    # A cell is in or out as a whole, by the mean over its pixels: nests end along cell borders.
    inside = means(cells.label, edge)[cells.label] > 0
    inside = ndimage.uniform_filter(inside.astype(np.float32), max(3, int(3.5 / mpp) | 1)) > 0.5
    membrane = np.where(inside, cells.border, -cells.border)
    none = np.zeros(shape, dtype=bool)
    return Epithelium(cells.label, membrane.astype(np.float32), np.full(shape, 0.5, np.float32), inside, none)


def with_lumens(rng: np.random.Generator, nests: Epithelium, mpp: float, share: float, size: float) -> Epithelium:
    """Nests with holes, as in cribriform glands: ``share`` of the field is lumen, in holes of about ``size`` µm."""
    shape = nests.label.shape[0], nests.label.shape[1]
    hill = smooth_noise(rng, shape, size / mpp) + 0.3 * smooth_noise(rng, shape, 0.3 * size / mpp)
    far = (np.float32(np.quantile(hill[::8, ::8], 1.0 - share)) - hill) * np.float32(0.55 * size)
    # Cells end at the hole; only a hole that cells surround is a lumen.
    core = ndimage.uniform_filter(nests.inside.astype(np.float32), max(3, int(6.0 / mpp))) > 0.85
    lumen = (far < 0) & core
    inside = nests.inside & ~lumen
    depth = np.clip(1.0 - far / np.float32(0.9 * size), 0.0, 1.0)
    membrane = np.where(inside, np.minimum(nests.membrane, np.abs(far) + np.float32(0.4)), nests.membrane)
    membrane = np.where(lumen, -np.abs(far), membrane)
    return Epithelium(nests.label, membrane.astype(np.float32), depth.astype(np.float32), inside, lumen)


def single_cells(rng: np.random.Generator, shape: tuple[int, int], mpp: float, cell: float, share: float) -> Epithelium:
    """Discohesive round cells in stroma; ``share`` of the places hold one."""
    u, v = warped_plane(rng, shape, mpp, 1.6 * cell, 0.12 * cell)
    cells = mosaic(rng, u, v, cell * 1.08, 0.33)
    count = int(cells.label.max()) + 1
    radius = rng.uniform(0.42, 0.56, count).astype(np.float32) * np.float32(cell)
    crowd = means(cells.label, smooth_noise(rng, shape, 45.0 / mpp))
    present = crowd + rng.normal(0.0, 0.7, count) < normal_quantile(share) * np.hypot(1.0, 0.7)
    membrane = np.minimum(cells.border, radius[cells.label] - np.hypot(cells.u, cells.v))
    membrane = np.where(present[cells.label], membrane, np.minimum(membrane, -1.0)).astype(np.float32)
    none = np.zeros(shape, dtype=bool)
    return Epithelium(cells.label, membrane, np.full(shape, 0.5, np.float32), membrane > 0, none)


def glands(
    rng: np.random.Generator,
    shape: tuple[int, int],
    mpp: float,
    cell: float,
    gland: float,
    height: float,
    gap: float,
    rough: float,
) -> Epithelium:
    """Tubes cut across: one layer of columnar cells, ``cell`` µm wide and ``height`` µm high, round a lumen.

    ``gland``: µm from one to the next; ``gap``: µm of stroma between; ``rough``: 0 for round glands, 1 for ragged ones.
    """
    u, v = warped_plane(rng, shape, mpp, 0.5 * gland, (0.04 + 0.12 * rough) * gland)
    tubes = mosaic(rng, u, v, gland, 0.3)
    base = tubes.border - np.float32(0.5 * gap) + smooth_noise(rng, shape, 12.0 / mpp) * np.float32(0.8 + 1.5 * rough)
    tall = height * (1.0 + 0.18 * rough * smooth_noise(rng, shape, 40.0 / mpp))
    depth = base / tall
    count = int(tubes.label.max()) + 1
    girth = np.float32(0.33 * gland)
    turn = np.arctan2(tubes.v, tubes.u) * girth + rng.uniform(0, 50.0 * cell, count).astype(np.float32)[tubes.label]
    turn = turn + smooth_noise(rng, shape, 9.0 / mpp) * np.float32(0.12 * cell)
    rows = np.clip(depth, -0.5, 1.5) * np.float32(0.9 * cell)
    columns = mosaic(rng, turn.astype(np.float32), rows.astype(np.float32), cell, 0.25)
    label = tubes.label * (int(columns.label.max()) + 1) + columns.label
    inside = (depth > 0) & (depth < 1)
    membrane = np.minimum(np.minimum(columns.border, base), (1.0 - depth) * tall + np.float32(0.4))
    membrane = np.where(inside, membrane, -np.abs(np.minimum(base, (1.0 - depth) * tall))).astype(np.float32)
    return Epithelium(label, membrane, depth.astype(np.float32), inside, np.asarray(depth >= 1))


@dataclass(frozen=True, eq=False)
class Places:
    """Where nuclei go.

    Attributes:
        x, y: centres in µm, float64 [n].
        angle: the cell's long axis, radians, float64 [n].
        area: the cell's area, µm², float64 [n].
    """

    x: FloatArray
    y: FloatArray
    angle: FloatArray
    area: FloatArray


def nuclear_places(
    epithelium: Epithelium,
    mpp: float,
    towards: float,
    spread: float = 0.0,
    rng: np.random.Generator | None = None,
) -> Places:
    """A place in each cell, where ``depth`` is about ``towards``; the long axis from the cell's second moments.

    ``spread``: how much ``towards`` differs from cell to cell (stratified nuclei), drawn from ``rng``.
    """
    label = epithelium.label[epithelium.inside]
    if label.size == 0:
        nothing = np.empty(0)
        return Places(nothing, nothing, nothing, nothing)
    x, y = (axis[epithelium.inside].astype(np.float64) for axis in plane(epithelium.label.shape, mpp))
    depth = epithelium.depth[epithelium.inside]
    level = np.full(int(label.max()) + 1, towards, dtype=np.float32)
    if rng is not None and spread > 0:
        level += rng.normal(0.0, spread, len(level)).astype(np.float32)
    weight = np.exp(-(((depth - level[label]) / 0.22) ** 2)) * np.maximum(epithelium.membrane[epithelium.inside], 0.05)
    count = int(label.max()) + 1
    pixels = np.bincount(label, minlength=count)
    real = np.flatnonzero(pixels * mpp * mpp > 12.0)
    total = np.maximum(np.bincount(label, weight, count), 1e-9)
    cx, cy = np.bincount(label, weight * x, count) / total, np.bincount(label, weight * y, count) / total
    n = np.maximum(pixels, 1)
    mx, my = np.bincount(label, x, count) / n, np.bincount(label, y, count) / n
    dx, dy = x - mx[label], y - my[label]
    xx, yy = np.bincount(label, dx * dx, count), np.bincount(label, dy * dy, count)
    angle = 0.5 * np.arctan2(2.0 * np.bincount(label, dx * dy, count), xx - yy)
    area = pixels[real].astype(np.float64) * mpp * mpp
    return Places(cx[real], cy[real], np.asarray(angle[real], dtype=np.float64), area)


def means(label: IntArray, values: F32) -> FloatArray:
    """The mean of a field over each cell, float64 by label."""
    flat = label.ravel()
    sums = np.bincount(flat, values.ravel())
    return np.asarray(sums / np.maximum(np.bincount(flat), 1), dtype=np.float64)


def normal_quantile(share: float) -> float:
    """The normal distribution's quantile, by a logistic approximation good to 0.02."""
    share = min(max(share, 1e-3), 1 - 1e-3)
    return float(np.log(share / (1 - share)) / 1.702)
