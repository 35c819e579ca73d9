"""How long tiles take to get into a project, and how much memory, by either backend; linear in their number?

    python benchmarks/tiles_in_projects.py [--counts 50000 100000 200000] [--backend files] [--backend paquo] [--json F]

Each line is a process of its own: a project with one image and 50 regions gets N tiles with six measurements, gets
them replaced by N others, and is opened and read. Through paquo, PAQUO_QUPATH_DIR names a QuPath of 0.6 or later: it
opens no slide, so that what is timed is the project alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import shapely
from bench import markdown_table, peak_mb, versions, write_json

from her2bridge import open_project
from her2bridge.qupath.classes import path_classes
from her2bridge.qupath.results import PROBABILITY_NAMES
from her2bridge.qupath.seam import ImageUpdate, NewTiles, PathClassRef, PathObject
from her2bridge.qupath.via_files.create import NewImage, create_project

REGIONS = 50
SIDE = 264.46


def make(folder: Path) -> Path:
    """A project with one image, whose slide is not there, and regions side by side."""
    tumor = PathClassRef(("Tumor",), (200, 0, 0))
    areas = [shapely.box(0, 10_000 * row, 200_000, 10_000 * (row + 1)) for row in range(REGIONS)]
    regions = [
        PathObject("annotation", str(uuid.UUID(int=row, version=4)), None, f"region {row}", tumor, geometry=area)
        for row, area in enumerate(areas)
    ]
    image = NewImage(folder / "slide.tif", "slide.tif", (200_000, 500_000), 0.242, regions, {})
    return create_project(folder, [image])


def tiles(count: int, parents: list[str | None], seed: int) -> NewTiles:
    """``count`` tiles of all classes, below the regions in turn."""
    rng = np.random.default_rng(seed)
    places = np.arange(count)
    return NewTiles(
        origins=np.stack([places % 700, places // 700], axis=1) * SIDE,
        side=SIDE,
        parents=places * len(parents) // count,
        parent_ids=parents,
        classes=rng.integers(0, 6, count),
        path_classes=path_classes(),
        measurement_names=PROBABILITY_NAMES,
        measurements=rng.random((count, 6), dtype=np.float32),
        mark=f"{seed:012x}",
        ids=[str(uuid.UUID(int=(seed << 64) + place, version=4)) for place in range(count)],
    )


def measure(count: int, backend: str) -> dict[str, float]:
    """Seconds of each step, and peak memory of this process in MB."""
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(step: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[step] = time.perf_counter() - began

    with tempfile.TemporaryDirectory() as name:
        path = make(Path(name))
        first = [one.id for one in open_project(path, "files").entries[0].annotations()]
        added, others = (tiles(count, list(first), seed) for seed in (1, 2))
        with timed("open"):
            project = open_project(path, backend)
            entry = project.entries[0]
            assert len(entry.annotations()) == REGIONS
        with project.writing():
            with timed("add"):
                entry.apply(ImageUpdate([], [added], {}, frozenset(), {}))
            with timed("replace"):
                entry.apply(ImageUpdate(added.ids, [others], {}, frozenset(), {}))
        project = open_project(path, backend)
        with timed("read regions"):
            project.entries[0].annotations()
        with timed("read tiles"):
            assert len(project.entries[0].stored_tiles()) == count
        megabytes = (path.parent / "data" / "1" / "data.qpdata").stat().st_size / 1e6
    return {**{f"{step}, s": took for step, took in seconds.items()}, "file, MB": megabytes, "peak, MB": peak_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[50_000, 100_000, 200_000])
    parser.add_argument("--backend", action="append", choices=["files", "paquo"])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    backends = asked.backend or ["files"]
    if asked.one:
        print(json.dumps(measure(asked.one, backends[0])))
        return
    rows = []
    for backend in backends:
        for count in asked.counts:
            command = [sys.executable, __file__, "--one", str(count), "--backend", backend]
            told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
            rows.append({"backend": backend, "tiles": count, **told})
            print(rows[-1], file=sys.stderr, flush=True)
    print(markdown_table(rows))
    if asked.json:
        names = ("her2bridge", "paquo", "numpy", "shapely")
        write_json(
            asked.json,
            "tiles_in_projects",
            rows,
            versions=versions(*names),
            qupath=Path(os.getenv("PAQUO_QUPATH_DIR", "")).name,
        )


if __name__ == "__main__":
    main()
