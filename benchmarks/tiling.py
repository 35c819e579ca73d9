"""How long it takes to tell which tiles lie in which regions, for regions of many corners.

python benchmarks/tiling.py [--json FILE]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from bench import markdown_table, versions, write_json
from shapely.geometry import Polygon

from her2bridge.records import Region, TileSpec
from her2bridge.tiling import make_grid

SIZE = 81_000  # pixels: 316 × 316 tiles of 256, a hundred thousand


def star(centre: tuple[float, float], radius: float, corners: int, seed: int) -> Polygon:
    """An irregular outline."""
    turn = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    rng = np.random.default_rng(seed)
    waves = sum(rng.normal(0, 0.2 / k) * np.cos(k * turn + rng.uniform(0, 6)) for k in range(2, 40))
    reach = radius * (1 + 0.5 * np.tanh(np.asarray(waves)))
    return Polygon(np.stack([centre[0] + reach * np.cos(turn), centre[1] + reach * np.sin(turn)], axis=1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rng = np.random.default_rng(0)
    rows = []
    for count, corners, radius in ((50, 5_000, 5_500), (1, 5_000, 38_000), (50, 5_000, 38_000)):
        places = rng.uniform(radius, SIZE - radius, (count, 2)) if radius < SIZE / 2 else np.full((count, 2), SIZE / 2)
        regions = [
            Region(str(n), None, "Tumor", star((x, y), radius, corners, n)) for n, (x, y) in enumerate(places.tolist())
        ]
        best = min(_timed(regions) for _ in range(3))
        grid = make_grid(regions, TileSpec(), 0.25, (SIZE, SIZE))
        spans = [np.subtract(r.geometry.bounds[2:], r.geometry.bounds[:2]) / grid.side for r in regions]
        candidates = sum(int(np.prod(span)) for span in spans)
        row = {"regions of 5,000 corners": count, "width, px": 2 * radius, "candidates": candidates}
        rows.append({**row, "tiles": len(grid), "ms, best of 3": 1e3 * best})
    print(markdown_table(rows))
    if asked.json:
        write_json(asked.json, "tiling", rows, versions=versions("her2bridge", "shapely", "numpy"))


def _timed(regions: list[Region]) -> float:
    fresh = [Region(r.id, r.name, r.class_name, Polygon(r.geometry.exterior)) for r in regions]
    began = time.perf_counter()
    make_grid(fresh, TileSpec(), 0.25, (SIZE, SIZE))
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
