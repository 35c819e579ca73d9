"""Time and peak memory of a whole run against the number of tiles: linear?

    python benchmarks/growth.py [--real 1000 2000 5000] [--constant 20000 100000 200000 500000] [--plot FILE.svg]

Each point is a process of its own: ``her2bridge run`` on a new project whose one image is wholly a Tumor region, by the
files backend, from opening the project to tiles, metadata and side files on disk. ``--real`` points compute the network
that ships; ``--constant`` points read every pixel and write everything, but the network is a constant. The slides
repeat the JPEG segments of a drawn one (``slides.endless``), so no disk is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench import markdown_table, peak_mb, versions, write_json

import her2bridge.inference.runtime.choose as choosing
from her2bridge.inference.runtime.base import Pending
from her2bridge.model.bundle import load_bundle
from her2bridge.records import ByteArray, Float32Array
from her2bridge.run import run_project
from her2bridge.settings import RunSettings

KINDS = ("real", "constant")


class Constant:
    """A network that finds the same in every tile: 3+, mostly. See ``Runtime``."""

    name, device, precision, depth = "constant", "cpu", "fp32", 1
    ROW = np.array([0.02, 0.03, 0.1, 0.8, 0.03, 0.02], dtype=np.float32)

    def __call__(self, tiles: ByteArray) -> Float32Array:
        return np.broadcast_to(self.ROW, (len(tiles), 6))

    def start(self, tiles: ByteArray) -> Pending:
        result = self(tiles)
        return lambda: result


def measure(kind: str, pattern: Path, columns: int, rows: int) -> dict[str, Any]:
    """One run: tiles, seconds, and peak memory of this process in MB."""
    from slides import endless, project_of

    if kind == "constant":
        choosing.choose_runtime = lambda *args, **kwargs: Constant()
    with tempfile.TemporaryDirectory() as name:
        slide = endless(Path(name) / "slide.tif", pattern, columns, rows)
        path = project_of(slide, Path(name))
        began = time.perf_counter()
        told = run_project(path, RunSettings(device="cpu", backend="files"))
        took = time.perf_counter() - began
        if told.scored != 1:
            raise SystemExit(f"the image was not scored: {told}")
    return {"tiles": columns * rows, "s": took, "peak MB": peak_mb()}


def shape(tiles: int) -> tuple[int, int]:
    """Columns and rows of a nearly square slide of about so many tiles."""
    columns = max(1, round(math.sqrt(tiles)))
    return columns, max(1, round(tiles / columns))


def line(tiles: Sequence[float], values: Sequence[float]) -> dict[str, float]:
    """A straight line through points by least squares of relative errors, and how far off it is.

    ``exponent`` is the slope between the logarithms of the first and the last point, the start-up cost (the line's
    value at 0) taken off: 1 where growth is linear.
    """
    x, y = np.asarray(tiles, dtype=float), np.asarray(values, dtype=float)
    slope, start = np.linalg.lstsq(np.stack([x / y, 1 / y], axis=1), np.ones_like(y), rcond=None)[0]
    off = y / (start + slope * x) - 1
    above = y - min(start, 0.99 * float(y.min()))
    exponent = np.log(above[-1] / above[0]) / np.log(x[-1] / x[0])
    return {
        "per 1,000 tiles": 1000 * float(slope),
        "at 0": float(start),
        "largest residual, %": 100 * float(np.abs(off).max()),
        "exponent": float(exponent),
    }


def fits(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """``line`` of seconds and of memory, for each kind with three points or more."""
    found = {}
    for kind in KINDS:
        points = [row for row in rows if row["network"] == kind]
        if len(points) >= 3:
            tiles = [row["tiles"] for row in points]
            found[kind] = {what: line(tiles, [row[what] for row in points]) for what in ("s", "peak MB")}
            del found[kind]["peak MB"]["exponent"]  # memory is nearly all start-up: what is above says nothing
    return found


def draw(rows: Sequence[dict[str, Any]], found: dict[str, dict[str, dict[str, float]]], path: Path) -> None:
    """Time and memory as two charts, with the lines."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "her2bridge"  # equal figures give equal files
    import matplotlib.pyplot as plt

    figure, charts = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    wanted = (("real", "s", "time, s"), ("constant", "s", "time, s"), ("constant", "peak MB", "peak memory, MB"))
    for chart, (kind, what, title) in zip(charts, wanted, strict=True):
        points = [row for row in rows if row["network"] == kind]
        chart.plot([row["tiles"] for row in points], [row[what] for row in points], "o", color="#b03060")
        if kind in found:
            ends = np.array([0, max(row["tiles"] for row in points)])
            fit = found[kind][what]
            chart.plot(ends, fit["at 0"] + fit["per 1,000 tiles"] / 1000 * ends, color="#888", linewidth=1)
        network = "the network that ships" if kind == "real" else "constant network"
        chart.set(xlabel="tiles", ylabel=title, title=network)
        chart.set_xlim(left=0)
        chart.set_ylim(bottom=0)
        chart.locator_params(axis="x", nbins=5)
        chart.xaxis.set_major_formatter("{x:,.0f}")
        chart.tick_params(axis="x", labelsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=int, nargs="*", default=[1_000, 2_000, 5_000], metavar="TILES")
    parser.add_argument("--constant", type=int, nargs="*", default=[20_000, 100_000, 200_000, 500_000], metavar="TILES")
    parser.add_argument("--plot", type=Path, help="an .svg")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        kind, pattern, columns, down = asked.one
        print(json.dumps(measure(kind, Path(pattern), int(columns), int(down))))
        return
    from slides import mosaic

    if asked.real:
        choosing.choose_runtime(load_bundle(), "cpu")  # what is measured once a machine belongs to no point
    rows = []
    with tempfile.TemporaryDirectory() as name:
        pattern = mosaic(Path(name) / "pattern.tif", 16, 16)
        for kind, counts in (("real", asked.real), ("constant", asked.constant)):
            for count in sorted(counts):
                command = [sys.executable, __file__, "--one", kind, str(pattern), *map(str, shape(count))]
                told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
                rows.append({"network": kind, **told, "tiles/s": told["tiles"] / told["s"]})
                print(rows[-1], file=sys.stderr, flush=True)
    found = fits(rows)
    print(markdown_table(rows))
    for kind, fit in found.items():
        print(f"\n{kind}: {json.dumps(fit)}")
    if asked.plot:
        draw(rows, found, asked.plot)
    if asked.json:
        write_json(asked.json, "growth", rows, versions=versions("her2bridge", "torch", "openvino"), fits=found)


if __name__ == "__main__":
    main()
