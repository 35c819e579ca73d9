"""her2bridge for ``end_to_end.py``: tiles alone (``predict``), a slide to GeoJSON (``analyze``), a project (``run``).

``how`` names one of these; ``runtime`` and ``precision`` are those of the command line.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import shapely

from her2bridge import open_project
from her2bridge.analyze import analyze_slide
from her2bridge.inference.engine import SlideJob, predict_slide
from her2bridge.inference.runtime.base import Runtime
from her2bridge.inference.runtime.choose import choose_runtime
from her2bridge.model.bundle import load_bundle
from her2bridge.qupath.classes import class_of
from her2bridge.qupath.geojson import read_tiles
from her2bridge.records import Region, SlideSource
from her2bridge.run import run_project
from her2bridge.settings import RunSettings
from her2bridge.slides import open_slide
from her2bridge.tiling import make_grid

sys.path.insert(0, str(Path(__file__).parent / "peers"))
import protocol
from slides import project_of

_RUNTIMES: dict[tuple[str, str], Runtime] = {}


def work(job: protocol.Job, parts: protocol.Parts) -> int:
    return {"predict": predict, "analyze": analyze, "run": run}[job["how"]](job, parts)


def predict(job: protocol.Job, parts: protocol.Parts) -> int:
    """All tiles of the slide; the runtime is there already."""
    key = job["runtime"], job["precision"]
    bundle = load_bundle(job["bundle"])
    if key not in _RUNTIMES:
        _RUNTIMES[key] = choose_runtime(bundle, "cpu", job["precision"], runtime=job["runtime"])
    with parts.on("classify"):
        source = SlideSource(Path(job["slide"]))
        with open_slide(source) as slide:
            width, height = slide.size
            region = Region("all", None, "Tumor", shapely.box(0, 0, width, height))
            grid = make_grid([region], bundle.spec, bundle.spec.mpp, slide.size)
            found = predict_slide(
                SlideJob(source, grid), _RUNTIMES[key], batch_size=job["batch"], workers=job["workers"], slide=slide
            )
    return protocol.save_tiles(Path(job["out"]), np.rint(grid.origins()), found.classes)


def analyze(job: protocol.Job, parts: protocol.Parts) -> int:
    """``her2bridge analyze --whole-slide``: bundle, runtime, mask, tiles, score, GeoJSON."""
    settings = replace(_settings(job), whole_slide=True)
    output = Path(job["out"]) / "tiles.geojson"
    with parts.on("all"):
        analyze_slide(SlideSource(Path(job["slide"])), [], output, settings)
    (tiles,) = read_tiles(output)
    return protocol.save_tiles(Path(job["out"]), np.rint(tiles.origins), _classes(tiles.class_names()))


def run(job: protocol.Job, parts: protocol.Parts) -> int:
    """``her2bridge run``: a project whose one image is wholly a Tumor region, scored and written."""
    slide = Path(job["slide"])
    path = project_of(slide, Path(job["out"]))
    settings = replace(_settings(job), backend="files")
    with parts.on("all"):
        told = run_project(path, settings)
    if told.scored != 1:
        raise RuntimeError(f"the image was not scored: {told}")
    stored = open_project(path, "files").entries[0].stored_tiles()
    return protocol.save_tiles(Path(job["out"]), np.rint(stored.bounds[:, :2]), _classes(stored.class_names))


def _settings(job: protocol.Job) -> RunSettings:
    return RunSettings(
        model=job["bundle"],
        device="cpu",
        runtime=job["runtime"],
        precision=job["precision"],
        batch_size=job["batch"],
    )


def _classes(names: Sequence[str | None]) -> list[int]:
    """Our classes by the names that tiles have in QuPath."""
    return [class_of(name) for name in names]


if __name__ == "__main__":
    protocol.serve(work)
