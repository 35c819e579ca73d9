"""Draw a scored image as QuPath shows it: the slide, the tiles in their classes' colours, the regions.

Needs: a project that her2bridge has scored. Writes: one PNG.

    python examples/draw_tiles.py PROJECT OUT.png [--image NAME] [--width PIXELS]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import shapely
from PIL import Image, ImageDraw

from her2bridge import open_project
from her2bridge.qupath.results import SCORE, STATUS
from her2bridge.qupath.seam import Entry, PathObject, Project
from her2bridge.qupath.server_builder import slide_source
from her2bridge.slides import open_slide

OPACITY = 110  # of 255


def draw(project: Project, entry: Entry, width: int) -> Image.Image:
    """The image, ``width`` pixels wide where it is wider than high."""
    source = slide_source(entry.server_json, folder=project.folder, saved_uri=project.saved_uri)
    with open_slide(source) as slide:
        pixels, downsample = slide.thumbnail(width)
    picture = Image.fromarray(pixels).convert("RGBA")
    layer = Image.new("RGBA", picture.size)
    pen = ImageDraw.Draw(layer)
    for one in entry.objects():
        if one.kind == "tile" and one.path_class is not None and one.geometry is not None:
            box = tuple(np.array(one.geometry.bounds) / downsample)
            pen.rectangle(box, fill=(*(one.path_class.rgb or (128, 128, 128)), OPACITY))
    for annotation in entry.annotations():
        _outline(pen, annotation, downsample)
    return Image.alpha_composite(picture, layer).convert("RGB")


def _outline(pen: ImageDraw.ImageDraw, annotation: PathObject, downsample: float) -> None:
    colour = annotation.path_class.rgb if annotation.path_class is not None else None
    for part in shapely.get_parts(annotation.geometry):
        if isinstance(part, shapely.Polygon):
            for ring in (part.exterior, *part.interiors):
                points = [(x / downsample, y / downsample) for x, y in ring.coords]
                pen.line(points, fill=(*(colour or (200, 0, 0)), 255), width=3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--image", help="name of the image; the first one where it is left out")
    parser.add_argument("--width", type=int, default=1200)
    asked = parser.parse_args()
    project = open_project(asked.project)
    entry = next((one for one in project.entries if asked.image in (None, one.name)), None)
    if entry is None:
        parser.error(f"no image is called {asked.image}; there are: {', '.join(one.name for one in project.entries)}")
    draw(project, entry, asked.width).save(asked.out)
    score, status = (entry.metadata.get(key, "not scored") for key in (SCORE, STATUS))
    print(f"{entry.name}: {score}, {status}. Research use only.")


if __name__ == "__main__":
    main()
