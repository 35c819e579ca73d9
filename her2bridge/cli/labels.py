"""``her2bridge labels``: a group whose command, where none of those below it is named, is the making of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from her2bridge.cli import options as opt
from her2bridge.cli.console import RESEARCH_USE_ONLY, counted, printable, table
from her2bridge.cli.labels_compare import compare
from her2bridge.cli.output import Output
from her2bridge.errors import UsageError
from her2bridge.events import DatasetWritten, counts_by_label
from her2bridge.qupath.label_classes import LabelClasses, read_mapping
from her2bridge.records import TileClass, TileCounts, TileSpec

if TYPE_CHECKING:
    from her2bridge.training.dataset import Dataset
    from her2bridge.training.labels import Collected, LabelSettings, LabelSource, PatientRule
    from her2bridge.training.split import SplitSettings

_MAKE = "make"
_SHEETS = "sheets"

_Projects = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[PROJECT]...", help="A project.qpproj, or the folder it lies in; several are taken as one set."
    ),
]
_Out = Annotated[
    Path, typer.Option("--out", metavar="DATASET", help="The folder to write; a dataset there is replaced.")
]
_Slides = Annotated[
    list[Path] | None,
    typer.Option("--slide", metavar="FILE", help="A slide without a project, with --regions; may be given again."),
]
_Regions = Annotated[
    list[Path] | None,
    typer.Option(
        "--regions", metavar="FILE", help="The regions of the --slide in the same place, as QuPath's GeoJSON export."
    ),
]
_Annotator = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="Who drew the regions.  [default: the name of the project's or GeoJSON's folder]"
    ),
]
_Mapping = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help='TOML or JSON that says what classes mean, one a line: "Stroma" = "normal"; the labels are 0, 1+, 2+, 3+,'
        " normal, noise and ignore.",
    ),
]
_NegativeIsZero = Annotated[
    bool,
    typer.Option("--negative-is-zero", help="Regions classed Negative are 0; some mean 0 and 1+ by it."),
]
_MinInside = Annotated[float, typer.Option(metavar="SHARE", help="Take a tile if this share of it lies in its region.")]
_MinTissue = Annotated[
    float, typer.Option(metavar="SHARE", help="And if this share of it is tissue; not asked of noise.")
]
_Offsets = Annotated[
    int, typer.Option(metavar="N", help="Lay N further grids, each shifted by a random part of a tile: more tiles.")
]
_Seed = Annotated[int, typer.Option(metavar="N", help="Of the shifts and of the split.")]
_TilePx = Annotated[int, typer.Option("--tile-px", metavar="PX", help="The side of a tile, pixels.")]
_TileMpp = Annotated[float, typer.Option("--tile-mpp", metavar="UM", help="The resolution of a tile, µm per pixel.")]
_NoCorrections = Annotated[
    bool, typer.Option("--no-corrections", help="Tiles that a person corrected in scored projects are no labels.")
]
_PatientKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="The image's metadata key that names its patient, in any case.")
]
_PatientPattern = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help="A regular expression whose first group in the image's name is the patient.  [default: each slide is a"
        " patient's of its own]",
    ),
]
_Split = Annotated[
    str,
    typer.Option(
        metavar="patient|paper",
        help="patient: no patient is in two splits. paper: the tiles of all are mixed, as in the paper; figures from it"
        " are too good.",
    ),
]
_Shares = Annotated[str, typer.Option(metavar="A:B:C", help="Parts of train, val and test.")]
_TestSlides = Annotated[
    list[str] | None,
    typer.Option(
        "--test-slide",
        metavar="NAME",
        help="The patient of this slide is test; may be given again. Test then is these patients alone.",
    ),
]
_Export = Annotated[
    bool, typer.Option("--export-tiles", help="Write every tile as PNG too: no slides are needed then.")
]
_Sheets = Annotated[bool, typer.Option("--sheets", help="Write a sheet of tiles for each class, to look at: sheets/.")]


class MakingGroup(TyperGroup):
    """A group that takes what names none of its commands for arguments of ``make``, whose help is its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``make`` before what names no command; its help is the group's."""
        if args and args[0] not in self.commands:
            args = [_MAKE, *args]
        if args[:1] == [_MAKE] and set(args) & set(ctx.help_option_names):
            args = [ctx.help_option_names[0]]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """``make`` goes by the group's own name."""
        name, command, rest = super().resolve_command(ctx, args)
        return "" if name == _MAKE else name, command, rest

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Those of ``make``."""
        return self.commands[_MAKE].collect_usage_pieces(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Those of ``make``, then the commands."""
        self.commands[_MAKE].format_options(ctx, formatter)
        self.format_commands(ctx, formatter)


labels = typer.Typer(cls=MakingGroup, add_completion=False, no_args_is_help=True, rich_markup_mode=None)


@labels.callback()
def group() -> None:
    """Make labelled tiles of regions drawn in QuPath.

    Regions classed 0, 1+, 2+, 3+, Normal or Noise are labels, also with Tumor, HER2 or Score before them. Where labels
    overlap, the inner one counts. Ignore* is cut out of all. Tiles that a person corrected count above regions. What
    became of every class is told, and what was left out. her2bridge labels compare A B compares two people's.
    Exit code: 0, 1 if an image failed or there are no labels, 2 for wrong usage, 130 after Ctrl-C. Research use only.
    """


@labels.command(_MAKE, hidden=True)
def make(
    out: _Out,
    projects: _Projects = None,
    slide: _Slides = None,
    regions: _Regions = None,
    annotator: _Annotator = None,
    mapping: _Mapping = None,
    negative_is_zero: _NegativeIsZero = False,
    min_inside: _MinInside = 0.9,
    min_tissue: _MinTissue = 0.3,
    offsets: _Offsets = 0,
    tile_px: _TilePx = 256,
    tile_mpp: _TileMpp = 0.25,
    no_corrections: _NoCorrections = False,
    image: opt.Images = None,
    patient_key: _PatientKey = None,
    patient_pattern: _PatientPattern = None,
    split: _Split = "patient",
    shares: _Shares = "8:1:1",
    test_slide: _TestSlides = None,
    seed: _Seed = 2022,
    export_tiles: _Export = False,
    sheets: _Sheets = False,
    mpp: opt.Mpp = None,
    relocate: opt.Relocations = None,
    backend: opt.Backend = "auto",
    json: opt.AsJson = False,
    log: opt.Log = None,
    debug: opt.Debug = False,
) -> None:
    """Make a dataset of labelled tiles."""
    with Output(as_json=json, log=log, debug=debug) as output:
        from her2bridge.training.labels import LabelSettings, PairLabels, PatientRule, ProjectLabels
        from her2bridge.training.split import SplitSettings

        classes = LabelClasses({} if mapping is None else read_mapping(mapping), negative_is_zero)
        laid = LabelSettings(
            TileSpec(tile_px, tile_mpp), min_inside, min_tissue, offsets, seed, classes, not no_corrections, mpp
        )
        parted = SplitSettings(split, _shares_of(shares), seed, tuple(test_slide or ()))
        patients = PatientRule(patient_key, patient_pattern)
        moved = opt.relocations_of(relocate)
        sources: list[LabelSource] = [ProjectLabels(one, annotator, backend, moved) for one in projects or ()]
        sources += [PairLabels(*pair, annotator) for pair in _pairs(slide or (), regions or ())]
        _check(sources, out)
        collected = _make(sources, laid, parted, patients, tuple(image or ()), out, output)
        _finish(out, collected, output, export=export_tiles, sheets=sheets)
        if collected.failed:
            raise typer.Exit(1)


def _check(sources: Sequence[LabelSource], out: Path) -> None:
    """Now, not after minutes of work."""
    from her2bridge.training.extras import need

    if not sources:
        next_step = "Name a QuPath project, or give --slide and --regions."
        raise UsageError("There is nothing to take labels from.", where="PROJECT", next_step=next_step)
    if out.exists() and not out.is_dir():
        raise UsageError("The dataset is a folder, and this is none.", where=str(out), next_step="Name another: --out.")
    need("pyarrow")


def _pairs(slides: Sequence[Path], regions: Sequence[Path]) -> list[tuple[Path, Path]]:
    if len(slides) != len(regions):
        raise UsageError(
            f"Slides and files of regions do not pair: {len(slides)} and {len(regions)}.",
            where="--slide, --regions",
            next_step="Give one --regions for each --slide, in the same order.",
        )
    return list(zip(slides, regions, strict=True))


def _shares_of(text: str) -> tuple[float, float, float]:
    try:
        train, val, test = map(float, text.split(":"))
    except ValueError as error:
        next_step = "Give the parts of train, val and test, for instance 8:1:1."
        raise UsageError(f"--shares cannot be {text!r}.", where="--shares", next_step=next_step) from error
    return train, val, test


def _make(
    sources: Sequence[LabelSource],
    laid: LabelSettings,
    parted: SplitSettings,
    patients: PatientRule,
    images: tuple[str, ...],
    out: Path,
    output: Output,
) -> Collected:
    """Collect the labels, tell what became of the classes, split and save."""
    from her2bridge.training.dataset import save_dataset
    from her2bridge.training.labels import collect
    from her2bridge.training.split import assign

    collected = collect(sources, laid, output, patients=patients, images=images)
    _tell_classes(collected, output)
    tiles = assign(collected.tiles, collected.slides, parted, output)
    settings = {
        "sources": [str(one) for one in sources],
        "images": list(images),
        "min_inside": laid.min_inside,
        "min_tissue": laid.min_tissue,
        "grids": [list(shift) for shift in laid.shifts],
        "corrections": laid.corrections,
        "mapping": {name: "ignore" if one is None else one.label for name, one in laid.classes.mapping.items()},
        "negative_is_zero": laid.classes.negative_is_zero,
        "mpp": laid.mpp,
        "patient_key": patients.key,
        "patient_pattern": patients.pattern,
        "split": parted.kind,
        "shares": list(parted.shares),
        "test_slides": list(parted.test_slides),
        "seed": parted.seed,
    }
    save_dataset(out, laid.spec, collected.slides, tiles, settings, **collected.plain())
    return collected


def _finish(out: Path, collected: Collected, output: Output, *, export: bool, sheets: bool) -> None:
    """Pictures, if they are wanted; then what there is."""
    from her2bridge.training.dataset import SPLITS, load_dataset
    from her2bridge.training.sheets import remove_sheets, write_sheets

    dataset = load_dataset(out)
    remove_sheets(dataset.folder / _SHEETS)
    if export:
        from her2bridge.training.export import export_tiles

        dataset = export_tiles(dataset, output)
    if sheets:
        write_sheets(dataset, dataset.folder / _SHEETS, output)
    _tell_tiles(dataset, collected, output)
    output(
        DatasetWritten(
            folder=str(dataset.folder),
            slides=len(dataset.slides),
            patients=len(set(dataset.patients)),
            tiles=counts_by_label(TileCounts.of(dataset.tiles.labels)),
            splits={split: len(dataset.tiles.rows_of(split)) for split in SPLITS},
            sha256=dataset.sha256,
        )
    )


def _tell_classes(collected: Collected, output: Output) -> None:
    made = table("Class", "Regions", "Becomes", numbers=("Regions",))
    for use, count in collected.classes:
        made.add_row(printable(use.name), f"{count:,}", use.becomes)
    output.results.print(made)


def _tell_tiles(dataset: Dataset, collected: Collected, output: Output) -> None:
    """Tiles by split and label, what was left out, and where the dataset is."""
    from her2bridge.training.dataset import SPLITS

    names = [one.label for one in TileClass]
    made = table("Split", *names, "Tiles", "Patients", numbers=(*names, "Tiles", "Patients"))
    for split in SPLITS:
        rows = dataset.tiles.rows_of(split)
        counts = TileCounts.of(dataset.tiles.labels[rows]).by_class
        patients = {dataset.patients[row] for row in rows.tolist()}
        made.add_row(split, *(f"{count:,}" for count in counts), f"{len(rows):,}", f"{len(patients):,}")
    output.results.print(made)
    if collected.left_out:
        told = "; ".join(f"{reason}: {count:,}" for reason, count in collected.left_out.items())
        output.results.print(f"Left out: {told}", soft_wrap=True)
    slides, tiles = counted(len(dataset.slides), "slide"), counted(len(dataset.tiles), "tile")
    if collected.corrected:
        told = f"{counted(collected.corrected, 'tile')} as a person corrected them"
        output.results.print(told, soft_wrap=True)
    output.results.print(f"{tiles} of {slides}: {printable(str(dataset.folder))}", soft_wrap=True)
    output.results.print(RESEARCH_USE_ONLY, style="dim")


labels.command()(compare)
