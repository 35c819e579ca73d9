"""What a model makes of the five real development cores: scores, drawn labels, and how both bear a worse picture.

    python benchmarks/model_on_cores.py CORES [--model BUNDLE] [--pictures DIR]

CORES is the folder ``her2_cores`` (projects ``analysis`` and ``labels``, ``images``). Nothing is written to it. Labels
were drawn roughly and not by a pathologist: the table says how a model behaves, not how good it is. ``--pictures``
writes ``robustness.svg`` and ``failures.jpg``.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from her2bridge import open_project
from her2bridge.inference.runtime.base import Runtime
from her2bridge.inference.runtime.choose import choose_runtime
from her2bridge.model.bundle import load_bundle
from her2bridge.qupath.regions import RegionChoice, choose_regions
from her2bridge.qupath.seam import PathObject
from her2bridge.qupath.server_builder import calibration_of, slide_source
from her2bridge.records import ByteArray, IntArray, Region, TileClass, TileCounts, TileSpec
from her2bridge.scoring.rule import resection_score
from her2bridge.slides import open_slide
from her2bridge.synth.stains import Stains, optical_density
from her2bridge.tiling import make_grid

LABELS = {"Negative": 0, "1+": 1, "2+": 2, "3+": 3, "Normal": 4, "Noise": 5, "Noise*": 5}
SIZE = 256


@dataclass(frozen=True, eq=False)
class Tiles:
    """Tiles of one image, uint8 [n, 256, 256, 3], and what a person drew there, int64 [n]; −1 where nothing."""

    name: str
    pixels: ByteArray
    labels: IntArray


def read(project_path: Path, spec: TileSpec, *, labelled: bool) -> list[Tiles]:
    """The tiles of the ``Tumor`` regions, or of the labelled ones."""
    project = open_project(project_path, "files")
    found = []
    for entry in project.entries:
        source = slide_source(entry.server_json, folder=project.folder, saved_uri=project.saved_uri)
        mpp = (calibration_of(entry.server_json) or (spec.mpp,))[0]
        annotations = entry.annotations()
        with open_slide(source) as slide:
            if labelled:
                regions = _labelled(annotations)
            else:
                regions = list(choose_regions(annotations, RegionChoice(), where=entry.name).regions)
            grid = make_grid(regions, spec, mpp, slide.size)
            pixels = [slide.read(x, y, grid.side, grid.side, SIZE, SIZE) for x, y in grid.origins().tolist()]
        classes = [LABELS.get(str(regions[owner].class_name), -1) for owner in grid.owner.tolist()]
        found.append(Tiles(entry.name, np.stack(pixels), np.array(classes, dtype=np.int64)))
    return found


def _labelled(annotations: Sequence[PathObject]) -> list[Region]:
    return [
        Region(one.id, one.name, str(one.path_class), one.geometry)
        for one in annotations
        if one.geometry is not None and str(one.path_class) in LABELS
    ]


def classify(runtime: Runtime, pixels: ByteArray) -> IntArray:
    """The class of each tile, int64 [n]."""
    parts = [runtime(pixels[start : start + 32]).argmax(axis=1) for start in range(0, len(pixels), 32)]
    return np.concatenate(parts).astype(np.int64)


def blur(sigma: float) -> Callable[[Image.Image], Image.Image]:
    return lambda tile: tile.filter(ImageFilter.GaussianBlur(sigma))


def jpeg(quality: float) -> Callable[[Image.Image], Image.Image]:
    def change(tile: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        tile.save(buffer, "JPEG", quality=int(quality))
        return Image.open(buffer).convert("RGB")

    return change


def density(gain: float) -> Callable[[Image.Image], Image.Image]:
    """All stains ``gain`` times as dense: a thicker section, or a darker scan."""

    def change(tile: Image.Image) -> Image.Image:
        stains = Stains()
        thick = optical_density(np.asarray(tile), stains) * gain
        light = np.asarray(stains.background, dtype=np.float32) * 10.0 ** (-thick)
        return Image.fromarray(np.clip(light + 0.5, 0, 255).astype(np.uint8))

    return change


def warmth(shift: float) -> Callable[[Image.Image], Image.Image]:
    """White balance: red up and blue down by so many per cent."""

    def change(tile: Image.Image) -> Image.Image:
        gains = np.array([1 + shift / 100, 1.0, 1 - shift / 100])
        return Image.fromarray(np.clip(np.asarray(tile) * gains + 0.5, 0, 255).astype(np.uint8))

    return change


def coarser(mpp: float) -> Callable[[Image.Image], Image.Image]:
    """As if scanned at ``mpp`` µm/px and enlarged again."""

    def change(tile: Image.Image) -> Image.Image:
        side = round(SIZE * 0.25 / mpp)
        return tile.resize((side, side), Image.Resampling.BOX).resize((SIZE, SIZE), Image.Resampling.BILINEAR)

    return change


CHANGES: dict[str, tuple[Callable[[float], Callable[[Image.Image], Image.Image]], tuple[float, ...]]] = {
    "blur, sigma in px": (blur, (0.5, 1.0, 1.5, 2.0)),
    "JPEG quality": (jpeg, (80, 60, 40, 20)),
    "density of all stains, times": (density, (0.7, 0.85, 1.15, 1.4)),
    "white balance, red up by %": (warmth, (-10, -5, 5, 10)),
    "scanned at µm/px": (coarser, (0.3, 0.35, 0.4, 0.5)),
}


def tell_scores(cores: list[Tiles], found: list[IntArray]) -> None:
    print("| core | 0 | 1+ | 2+ | 3+ | normal | noise | tumour tiles | tile H-score | rule |")
    print("|---|" + "---:|" * 8 + "---|")
    for core, classes in zip(cores, found, strict=True):
        counts = TileCounts.of(classes)
        rule = resection_score(counts).label if counts.tumour >= 50 else "not assessable"
        numbers = " | ".join(map(str, counts.by_class))
        print(f"| `{core.name}` | {numbers} | {counts.tumour} | {counts.h_score:.1f} | {rule} |")


def tell_labels(cores: list[Tiles], found: list[IntArray]) -> None:
    confusion = np.zeros((6, 6), dtype=np.int64)
    for core, classes in zip(cores, found, strict=True):
        known = core.labels >= 0
        np.add.at(confusion, (core.labels[known], classes[known]), 1)
    print("| drawn as | " + " | ".join(one.label for one in TileClass) + " | found as drawn |")
    print("|---|" + "---:|" * 7)
    for one, row in zip(TileClass, confusion, strict=True):
        share = f"{100 * row[one] / row.sum():.0f} %" if row.sum() else ""
        print(f"| {one.label} | {' | '.join(map(str, row))} | {share} |")
    print(f"\n{confusion.trace()} of {confusion.sum()} tiles as drawn.")


def tell_robustness(
    runtime: Runtime, cores: list[Tiles], plain: list[IntArray]
) -> dict[str, list[tuple[float, float]]]:
    """Prints H-scores under each change; returns the share of tiles that keep their class."""
    print("| change | " + " | ".join(f"`{core.name}`" for core in cores) + " | tiles of the same class |")
    print("|---|" + "---:|" * (len(cores) + 1))
    print(f"| none | {_h_scores(plain)} | |")
    curves: dict[str, list[tuple[float, float]]] = {}
    for title, (make, amounts) in CHANGES.items():
        for amount in amounts:
            change = make(amount)
            changed = [np.stack([np.asarray(change(Image.fromarray(one))) for one in core.pixels]) for core in cores]
            found = [classify(runtime, pixels) for pixels in changed]
            same = np.concatenate([a == b for a, b in zip(found, plain, strict=True)]).mean()
            curves.setdefault(title, []).append((amount, float(same)))
            print(f"| {title}: {amount:g} | {_h_scores(found)} | {100 * same:.0f} % |", flush=True)
    return curves


def _h_scores(found: list[IntArray]) -> str:
    counts = [TileCounts.of(classes) for classes in found]
    return " | ".join(f"{one.h_score:.0f}" if one.tumour else "–" for one in counts)


WIDTH, HEIGHT, GAP, TOP = 162, 120, 52, 24  # of a chart in pixels, and of what lies between and above them


def draw_curves(curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """One small chart a change: the share of tiles that keep their class."""
    size = f'width="{len(curves) * (WIDTH + GAP)}" height="{HEIGHT + 60}"'
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">']
    for number, (title, points) in enumerate(curves.items()):
        parts += _chart(title, points, number * (WIDTH + GAP) + 14)
    path.write_text("\n".join([*parts, "</svg>", ""]), encoding="utf-8")


def _chart(title: str, points: list[tuple[float, float]], left: int) -> list[str]:
    amounts = [amount for amount, _ in points]
    low, high = min(amounts), max(amounts)
    places = [(left + (a - low) / (high - low) * WIDTH, TOP + (1 - share) * HEIGHT) for a, share in points]
    parts = [f'<text x="{left}" y="14">{title}</text>']
    for share in (0.0, 0.5, 1.0):
        y = TOP + (1 - share) * HEIGHT
        parts.append(f'<line x1="{left}" x2="{left + WIDTH}" y1="{y}" y2="{y}" stroke="#ddd"/>')
        parts.append(f'<text x="{left + WIDTH + 4}" y="{y + 4}" fill="#888">{share:.0%}</text>')
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    parts.append(f'<polyline points="{line}" fill="none" stroke="#b03060" stroke-width="2"/>')
    for amount, (x, _) in zip(amounts, places, strict=True):
        y = TOP + HEIGHT + 16
        parts.append(f'<text x="{x:.1f}" y="{y}" text-anchor="middle" fill="#555">{amount:g}</text>')
    return parts


def draw_failures(cores: list[Tiles], found: list[IntArray], path: Path, most: int = 18) -> None:
    """Tiles whose class is not the drawn one, each with both classes written on it."""
    wrong = [
        (core.pixels[row], int(core.labels[row]), int(classes[row]))
        for core, classes in zip(cores, found, strict=True)
        for row in np.flatnonzero((core.labels >= 0) & (core.labels != classes))
    ]
    order = np.random.default_rng(0).permutation(len(wrong))[:most]
    side, columns = 150, 6
    sheet = Image.new("RGB", (columns * side, -(-len(order) // columns) * side), "white")
    pen = ImageDraw.Draw(sheet)
    for place, number in enumerate(order):
        pixels, drawn, said = wrong[number]
        x, y = place % columns * side, place // columns * side
        sheet.paste(Image.fromarray(pixels).resize((side - 4, side - 4)), (x, y))
        pen.rectangle((x, y, x + side - 5, y + 13), fill="white")
        pen.text((x + 3, y + 1), f"drawn {TileClass(drawn).label}, found {TileClass(said).label}", fill="black")
    sheet.save(path, quality=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cores", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--pictures", type=Path)
    asked = parser.parse_args()
    bundle = load_bundle(asked.model)
    runtime = choose_runtime(bundle, "cpu")
    print(f"{bundle.name} {bundle.sha256[:12]}, {runtime.name}, {runtime.precision}\n")
    cores = read(asked.cores / "analysis", bundle.spec, labelled=False)
    plain = [classify(runtime, core.pixels) for core in cores]
    tell_scores(cores, plain)
    drawn = read(asked.cores / "labels", bundle.spec, labelled=True)
    found = [classify(runtime, core.pixels) for core in drawn]
    print()
    tell_labels(drawn, found)
    if asked.pictures is None:
        return
    print()
    draw_curves(tell_robustness(runtime, cores, plain), asked.pictures / "robustness.svg")
    draw_failures(drawn, found, asked.pictures / "failures.jpg")


if __name__ == "__main__":
    main()
