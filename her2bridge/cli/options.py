"""Options that several commands share, and what they become."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from her2bridge.errors import UsageError
from her2bridge.records import Specimen
from her2bridge.scoring import ScoreSettings

Images = Annotated[
    list[str] | None,
    typer.Option("--image", metavar="NAME", help="Only the image of this name; may be given again.  [default: all]"),
]
RegionClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--region-class",
        metavar="NAME",
        help="Score annotations of this class and of those derived from it; may be given again."
        "  [default: Tumor, Tumour]",
    ),
]
ExcludeClasses = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-class",
        metavar="NAME",
        help="Cut annotations of this class out of the regions, besides classes that end in *; may be given again.",
    ),
]
WholeSlide = Annotated[
    bool, typer.Option("--whole-slide", help="Score all tissue, found by its colour, instead of regions.")
]
ClassPrefix = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Put the tiles' classes below this one: with HER2 they are HER2: 3+ and so on."),
]
MinOverlap = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Take a tile if this share of it, above 0 and up to 1, lies in a region."
        "  [default: if its centre does, as in QuPath]",
    ),
]
SpecimenName = Annotated[
    str | None,
    typer.Option(
        "--specimen",
        metavar="resection|biopsy",
        help="The kind of specimen; the rule differs.  [default: the image's metadata key Specimen]",
    ),
]
SpecimenNotRead = Annotated[
    str | None,
    typer.Option(
        "--specimen",
        metavar="resection|biopsy",
        help="The kind of specimen; the rule differs.  [default: not stated]",
    ),
]
Mpp = Annotated[
    float | None,
    typer.Option(metavar="UM", help="µm per pixel; used only where neither QuPath nor the slide file states it."),
]
ScoreSettingsFile = Annotated[
    Path | None,
    typer.Option("--score-settings", metavar="FILE", help="A TOML file with thresholds of the score (docs/scores.md)."),
]
WhspnName = Annotated[
    str,
    typer.Option(
        "--whspn",
        metavar="mlp|svm|none",
        help="Which of the model's second networks reads a score from the shares; none: the rule alone.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(metavar="BUNDLE", help="A model bundle: its name, or its folder.  [default: the one that ships]"),
]
Backend = Annotated[
    str,
    typer.Option(
        metavar="auto|paquo|files",
        help="How the project is read and written: through a QuPath on this machine (paquo) or as files; auto takes"
        " paquo where a QuPath is found that may write the project.",
    ),
]
Device = Annotated[
    str,
    typer.Option(metavar="auto|cpu|cuda|cuda:N|mps", help="Where the network runs; auto takes a GPU if one is here."),
]
RequireGpu = Annotated[bool, typer.Option("--require-gpu", help="Fail rather than run on the CPU.")]
Precision = Annotated[
    str,
    typer.Option(
        metavar="auto|fp32|bf16|fp16",
        help="How the network computes; auto takes what is fast here and changes hardly any class: docs/speed.md.",
    ),
]
Runtime = Annotated[
    str,
    typer.Option(
        metavar="auto|torch|openvino",
        help="What computes the network; on a CPU auto takes the faster one, measured once and remembered.",
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(metavar="TILES", help="Tiles a call of the network.  [default: what suits the device]"),
]
Relocations = Annotated[
    list[str] | None,
    typer.Option(
        "--relocate",
        metavar="OLD=NEW",
        help="Slides whose path or URI begins with OLD are at NEW now; may be given again.",
    ),
]
Profile = Annotated[bool, typer.Option("--profile", help="Tell where each image's time went.")]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Write events to standard output, one JSON object a line (docs/events.md)."),
]
Log = Annotated[
    Path | None,
    typer.Option(
        envvar="HER2BRIDGE_LOG", show_envvar=True, metavar="FILE", help="Append a log, with the traceback of every bug."
    ),
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the log, tracebacks too, on standard error.")]


def specimen_of(name: str | None) -> Specimen | None:
    """The specimen of ``--specimen``.

    Raises:
        UsageError: neither resection nor biopsy.
    """
    if name is None:
        return None
    known = {str(one): one for one in (Specimen.RESECTION, Specimen.BIOPSY)}
    if name not in known:
        raise UsageError(
            f"--specimen cannot be {name!r}.",
            where="--specimen",
            next_step=f"Give {' or '.join(known)}; leave it out where it is not known.",
        )
    return known[name]


def relocations_of(pairs: Sequence[str] | None) -> tuple[tuple[str, str], ...]:
    """Old and new beginnings of ``--relocate OLD=NEW``.

    Where paths hold equals signs themselves, every way to part them is returned: only one begins a slide's path.

    Raises:
        UsageError: no equals sign.
    """
    for pair in pairs or ():
        if "=" not in pair:
            raise UsageError(
                f"--relocate cannot be {pair!r}.",
                where="--relocate",
                next_step="Give OLD=NEW, for instance --relocate D:/slides=/data/slides.",
            )
    parts = [pair.split("=") for pair in pairs or ()]
    return tuple(("=".join(one[:at]), "=".join(one[at:])) for one in parts for at in range(1, len(one)))


def score_settings_of(file: Path | None) -> ScoreSettings:
    """The thresholds of a TOML file; the defaults where None.

    Raises:
        UsageError: no such file, no TOML, or settings that cannot be.
    """
    if file is None:
        return ScoreSettings()
    try:
        with file.open("rb") as stream:
            values = tomllib.load(stream)
    except OSError as error:
        raise UsageError(
            f"The score settings cannot be read ({error.strerror}).", where=str(file), next_step="Check the path."
        ) from error
    except ValueError as error:
        raise UsageError(
            f"The score settings are not TOML ({error}).",
            where=str(file),
            next_step="Write one setting a line, for instance: min_tumour_tiles = 100",
        ) from error
    return ScoreSettings.from_mapping(values, where=str(file))
