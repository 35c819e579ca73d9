"""Tiny slides in scanner makers' formats, written by hand: each byte that OpenSlide or tmapslide asks for, no more."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tifffile
from coordinate_slide import halved
from PIL import Image

Pixels = npt.NDArray[np.uint8]

FIELD = 64
"""Pixels on a side of a camera field, a DICOM frame, a TMAP tile."""


def _picture(pixels: Pixels, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def write_mirax(
    path: Path, fields: Mapping[tuple[int, int], Pixels], across: int, down: int, *, fill: tuple[int, int, int]
) -> Path:
    """3DHISTECH MIRAX: PNG fields at (column, row) of a grid, 0.25 µm/px, and a second level of half the size.

    Args:
        fields: uint8 [FIELD, FIELD, 3] each; where one lacks, nothing was scanned.
        fill: the colour that such places are to have.
    """
    folder = path.with_suffix("")
    folder.mkdir()
    canvas = np.zeros((FIELD * down, FIELD * across, 3), np.uint8)
    canvas[:] = fill
    for (column, row), pixels in fields.items():
        canvas[FIELD * row : FIELD * (row + 1), FIELD * column : FIELD * (column + 1)] = pixels
    small = halved(canvas)
    halves = {(column // 2 * 2, row // 2 * 2) for column, row in fields}
    levels: list[dict[tuple[int, int], Pixels]] = [
        dict(fields),
        {(x, y): small[FIELD * y // 2 :, FIELD * x // 2 :][:FIELD, :FIELD] for x, y in halves},
    ]
    data, pages = b"", []
    for level in levels:
        records = b""
        for (column, row), pixels in sorted(level.items()):
            png = _picture(pixels, "png")
            records += struct.pack("<4i", row * across + column, len(data), len(png), 0)
            data += png
        pages.append(struct.pack("<2i", len(level), 0) + records)
    (folder / "Data0000.dat").write_bytes(data)
    slide_id = "0" * 32
    start = len("01.02" + slide_id) + 8  # behind the two root pointers
    index, tables = b"", b""
    for page in pages:  # a zoom level's pointer leads to a zero and the pointer to its page
        at = start + 4 * len(pages) + len(index)
        tables += struct.pack("<i", at)
        index += struct.pack("<2i", 0, at + 8) + page
    roots = struct.pack("<2i", start, 0)
    (folder / "Index.dat").write_bytes(b"01.02" + slide_id.encode() + roots + tables + index)
    red, green, blue = fill
    general = {"SLIDE_ID": slide_id, "IMAGENUMBER_X": across, "IMAGENUMBER_Y": down, "OBJECTIVE_MAGNIFICATION": 40}
    hierarchical = {
        **{"HIER_COUNT": 1, "NONHIER_COUNT": 0, "INDEXFILE": "Index.dat"},
        **{"HIER_0_NAME": "Slide zoom level", "HIER_0_COUNT": len(levels)},
        **{f"HIER_0_VAL_{number}_SECTION": f"LEVEL_{number}" for number in range(len(levels))},
    }
    sections: dict[str, dict[str, object]] = {
        "GENERAL": general,
        "HIERARCHICAL": hierarchical,
        "DATAFILE": {"FILE_COUNT": 1, "FILE_0": "Data0000.dat"},
    }
    for number in range(len(levels)):
        sections[f"LEVEL_{number}"] = {
            **{"IMAGE_CONCAT_FACTOR": min(number, 1), "OVERLAP_X": 0, "OVERLAP_Y": 0},
            **{"MICROMETER_PER_PIXEL_X": 0.25 * 2**number, "MICROMETER_PER_PIXEL_Y": 0.25 * 2**number},
            **{"IMAGE_FILL_COLOR_BGR": blue << 16 | green << 8 | red, "IMAGE_FORMAT": "PNG"},
            **{"DIGITIZER_WIDTH": FIELD, "DIGITIZER_HEIGHT": FIELD},
        }
    lines = [
        line for name, keys in sections.items() for line in (f"[{name}]", *(f"{k} = {v}" for k, v in keys.items()))
    ]
    (folder / "Slidedat.ini").write_text("\n".join(lines) + "\n", encoding="utf-8-sig")
    path.write_bytes(_picture(np.zeros((30, 20, 3), np.uint8), "jpeg"))  # as the scanner does
    return path


def _element(group: int, number: int, kind: str, value: bytes) -> bytes:
    """One data element, explicit VR, little endian."""
    value += b"\0" * (len(value) % 2)
    head = struct.pack("<HH2s", group, number, kind.encode())
    if kind in ("OB", "SQ"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def _text(group: int, number: int, kind: str, value: str) -> bytes:
    return _element(group, number, kind, value.encode() + (b" " if len(value) % 2 and kind != "UI" else b""))


def _sequence(group: int, number: int, item: bytes) -> bytes:
    return _element(group, number, "SQ", struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item)


def write_dicom(path: Path, pixels: Pixels, *, mpp: float) -> Path:
    """DICOM WSI, one uncompressed level of tiles."""
    height, width = pixels.shape[:2]
    down, across = -(-height // FIELD), -(-width // FIELD)
    padded = np.zeros((FIELD * down, FIELD * across, 3), np.uint8)
    padded[:height, :width] = pixels
    frames = padded.reshape(down, FIELD, across, FIELD, 3).swapaxes(1, 2).tobytes()
    storage = "1.2.840.10008.5.1.4.1.1.77.1.6"  # whole slide microscopy
    meta = b"".join(
        [
            _element(2, 1, "OB", b"\0\1"),
            _text(2, 2, "UI", storage),
            _text(2, 3, "UI", "1.2.3.4"),
            _text(2, 0x10, "UI", "1.2.840.10008.1.2.1"),  # uncompressed
        ]
    )
    spacing = _sequence(0x28, 0x9110, _text(0x28, 0x30, "DS", f"{mpp / 1000}\\{mpp / 1000}"))
    body = b"".join(
        [
            _text(8, 8, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE"),
            _text(8, 0x16, "UI", storage),
            _text(8, 0x18, "UI", "1.2.3.4"),
            _text(0x20, 0xD, "UI", "1.2.3"),
            _text(0x20, 0xE, "UI", "1.2.3.5"),
            _text(0x20, 0x9311, "CS", "TILED_FULL"),
            _element(0x28, 2, "US", struct.pack("<H", 3)),
            _text(0x28, 4, "CS", "RGB"),
            _element(0x28, 6, "US", struct.pack("<H", 0)),
            _text(0x28, 8, "IS", str(down * across)),
            _element(0x28, 0x10, "US", struct.pack("<H", FIELD)),
            _element(0x28, 0x11, "US", struct.pack("<H", FIELD)),
            _element(0x28, 0x100, "US", struct.pack("<H", 8)),
            _element(0x28, 0x101, "US", struct.pack("<H", 8)),
            _element(0x28, 0x102, "US", struct.pack("<H", 7)),
            _element(0x28, 0x103, "US", struct.pack("<H", 0)),
            _element(0x48, 6, "UL", struct.pack("<I", width)),
            _element(0x48, 7, "UL", struct.pack("<I", height)),
            _sequence(0x5200, 0x9229, spacing),
            _element(0x7FE0, 0x10, "OB", frames),
        ]
    )
    path.write_bytes(b"\0" * 128 + b"DICM" + _element(2, 0, "UL", struct.pack("<I", len(meta))) + meta + body)
    return path


def write_bif(path: Path, pixels: Pixels, *, overlap: int, mpp: float) -> Path:
    """Ventana BIF, 2 × 2 or 1 × 2 tiles: each begins ``overlap`` px before the one to its left, or above it, ends.

    Args:
        pixels: what was under the camera, uint8 [2 · FIELD − overlap or FIELD, 2 · FIELD − overlap, 3].
    """
    rows = 1 if len(pixels) == FIELD else 2
    joints = [("RIGHT", 1, 2), ("RIGHT", 4, 3), ("UP", 1, 4), ("UP", 2, 3)]  # as the stage went: from below, to and fro
    stitching = "".join(
        f'<TileJointInfo Direction="{direction}" Tile1="{one}" Tile2="{other}" Confidence="100" '
        f'OverlapX="{overlap * (direction == "RIGHT")}" OverlapY="{overlap * (direction == "UP")}"/>'
        for direction, one, other in (joints if rows == 2 else joints[:1])
    )
    area = (
        f'<EncodeInfo><SlideStitchInfo><ImageInfo AOIScanned="1" Width="{FIELD}" Height="{FIELD}" NumRows="{rows}" '
        f'NumCols="2" Pos-X="0" Pos-Y="0">{stitching}</ImageInfo></SlideStitchInfo>'
        '<AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )
    columns = np.concatenate([pixels[:, :FIELD], pixels[:, -FIELD:]], axis=1)
    options = {"photometric": "rgb", "metadata": None, "software": "ScanOutputManager 1.1.0.15854"}

    def xmp(xml: str) -> list[tuple[int, int, int, bytes, bool]]:
        return [(700, 7, len(xml), xml.encode(), True)]

    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        label = np.full((32, 16, 3), 200, np.uint8)
        iscan = xmp(f'<iScan Magnification="40" ScanRes="{mpp}"/>')
        writer.write(label, description="Label_Image", extratags=iscan, **options)  # type: ignore[arg-type]
        writer.write(
            columns if rows == 1 else np.concatenate([columns[:FIELD], columns[-FIELD:]]),
            description="level=0 mag=40 quality=90",
            extratags=xmp(area),
            tile=(FIELD, FIELD),
            compression="zlib",
            **options,  # type: ignore[arg-type]
        )
    return path


def write_svs(path: Path, pixels: Pixels, *, levels: int, mpp: float) -> Path:
    """Aperio SVS: level 0, a thumbnail, further levels."""
    described = f"Aperio Image Library v1.0\r\nread by User|AppMag = 40|MPP = {mpp}"
    options = {"photometric": "rgb", "compression": "zlib", "metadata": None, "description": described}
    with tifffile.TiffWriter(path) as writer:
        writer.write(pixels, tile=(FIELD, FIELD), **options)  # type: ignore[arg-type]
        writer.write(np.full((30, 40, 3), 99, np.uint8), **options)  # type: ignore[arg-type]
        for _ in range(levels - 1):
            pixels = halved(pixels)
            writer.write(pixels, tile=(FIELD, FIELD), **options)  # type: ignore[arg-type]
    return path


def write_scn(path: Path, pixels: Pixels, *, at: tuple[int, int], canvas: tuple[int, int], nm: float) -> Path:
    """Leica SCN: a scanned area of two levels on a canvas as large as the glass, in nanometres, and a macro image.

    Args:
        at: where on the canvas the area begins, px.
        nm: nm/px.
    """
    height, width = pixels.shape[:2]
    glass = int(canvas[0] * nm), int(canvas[1] * nm)

    def image(
        objective: int, sizes: list[tuple[int, int]], view: tuple[int, int], offset: tuple[int, int], ifd: int
    ) -> str:
        levels = "".join(
            f'<dimension sizeX="{x}" sizeY="{y}" r="{r}" ifd="{ifd + r}"/>' for r, (x, y) in enumerate(sizes)
        )
        return (
            f'<image><creationDate>2011-01-01T00:00:00Z</creationDate><device model="SCN400" version="1"/>'
            f'<pixels>{levels}</pixels><view sizeX="{view[0]}" sizeY="{view[1]}" '
            f'offsetX="{offset[0]}" offsetY="{offset[1]}"/>'
            f"<scanSettings><objectiveSettings><objective>{objective}</objective></objectiveSettings>"
            "<illuminationSettings><numericalAperture>0.65</numericalAperture>"
            "<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image>"
        )

    sizes = [(width, height), (width // 2, height // 2)]
    area = image(40, sizes, (int(width * nm), round(height * nm)), (ceil(at[0] * nm), ceil(at[1] * nm)), 0)
    description = (
        '<?xml version="1.0"?><scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01">'
        f'<collection sizeX="{glass[0]}" sizeY="{glass[1]}">{image(1, [(48, 40)], glass, (0, 0), 2)}{area}'
        "</collection></scn>"
    )
    options = {"photometric": "rgb", "tile": (FIELD, FIELD), "compression": "zlib", "metadata": None}
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        resolution = {"resolution": (1e7 / nm, 1e7 / nm), "resolutionunit": "CENTIMETER"}
        writer.write(pixels, description=description, **resolution, **options)  # type: ignore[arg-type]
        writer.write(halved(pixels), **options)  # type: ignore[arg-type]
        writer.write(np.full((40, 48, 3), 99, np.uint8), **options)  # type: ignore[arg-type]
    return path


def write_tmap7(path: Path, levels: list[Pixels], *, mpp: float = 0.25, blank: int = -1) -> Path:
    """UNIC TMAP 7, JPEG tiles of quality 100.

    Args:
        levels: each half the size of the one before.
        blank: index of a tile of level 0 that was not scanned.
    """
    table_at = 560 + 16 * 32
    listed, tables, data = b"", b"", b""
    grids = [(-(-pixels.shape[0] // FIELD), -(-pixels.shape[1] // FIELD)) for pixels in levels]
    data_at = table_at + 40 * sum(rows * columns for rows, columns in grids)
    for number, (pixels, (rows, columns)) in enumerate(zip(levels, grids, strict=True)):
        place = table_at + len(tables)
        listed += struct.pack("<If6I", number, 40 / 2**number, *pixels.shape[1::-1], rows, columns, place, 0)
        for index in range(rows * columns):
            row, column = divmod(index, columns)
            if number == 0 and index == blank:
                tables += bytes(40)
                continue
            tile = np.zeros((FIELD, FIELD, 3), np.uint8)
            part = pixels[FIELD * row : FIELD * (row + 1), FIELD * column : FIELD * (column + 1)]
            tile[: part.shape[0], : part.shape[1]] = part
            jpeg = _picture(tile, "jpeg", quality=100, subsampling=0)
            head = struct.pack("<6I", number, 0, FIELD * column, FIELD * row, FIELD, FIELD)
            tables += head + struct.pack("<QII", data_at + len(data), len(jpeg), 0)
            data += jpeg
    head = b"TMAP07\0\0" + struct.pack("<5B3xfIII", 0, 90, 1, 40, 244, mpp / 1000, 0, len(levels), 0)
    path.write_bytes(head.ljust(560, b"\0") + listed.ljust(16 * 32, b"\0") + tables + data)
    return path


def write_tmap6(path: Path, pixels: Pixels, *, parts: int = 1) -> Path:
    """UNIC TMAP 6: one block of 4 × 4 JPEG tiles, in the file itself or, with two parts, in NAME.DT1.

    Args:
        pixels: uint8 [4 · FIELD, 4 · FIELD, 3].
    """
    side = 4 * FIELD
    data_at = 192 + 308 if parts == 1 else 1
    data, tiles = b"", b""
    for row in range(4):
        for column in range(4):
            tile = pixels[FIELD * row : FIELD * (row + 1), FIELD * column : FIELD * (column + 1)]
            jpeg = _picture(tile, "jpeg", quality=100, subsampling=0)
            tiles += struct.pack("<4B2I", 0, column, row, 0, data_at + len(data), len(jpeg))
            data += jpeg
    head = b"TMAP06" + struct.pack("<10B", 1, 0, parts, 1, 3, 0, 4, 2, 0, 244)
    head += struct.pack("<fI9H2B", 0.25e-3, 1, 40, 1, 1, side, side, FIELD, FIELD, 0, 0, 0, 0)
    head += struct.pack("<3I", 0, side, side)
    end = 192 + 308 + (len(data) if parts == 1 else 0)
    head = head.ljust(0x44, b"\0") + struct.pack("<I", end)
    block = struct.pack("<BB2x4B2H2i", parts - 1, 0, 0, 0, 0, 0, 0, 0, 0, 0) + tiles.ljust(24 * 12, b"\0")
    path.write_bytes(head.ljust(192, b"\0") + block + (data if parts == 1 else b""))
    if parts == 2:
        path.with_suffix(".DT1").write_bytes(b"\0" + data)
    return path
