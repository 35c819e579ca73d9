"""What a user can ask of a run."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from her2bridge.calibration import MPP_RANGE
from her2bridge.errors import UsageError
from her2bridge.inference.runtime.base import PRECISIONS, RUNTIMES
from her2bridge.qupath.regions import RegionChoice
from her2bridge.records import Specimen
from her2bridge.scoring import ScoreSettings
from her2bridge.scoring.whspn import WHSPN_CHOICES


@dataclass(frozen=True)
class RunSettings:
    """The options of ``her2bridge run``; ``analyze`` heeds those that need no project.

    Attributes:
        images: names of the images to be scored; empty for all.
        region_classes: PathClasses that are scored; empty for ``Tumor``, ``Tumour`` and what derives from them.
        exclude_classes: PathClasses that are cut out, besides those whose name ends in ``*``.
        whole_slide: score all tissue, found by its colour, instead of regions.
        class_prefix: base class of the tiles' PathClasses, e.g. ``HER2`` for ``HER2: 3+``.
        min_overlap: the share of a tile, 0–1, that must lie in a region; None for QuPath's rule of the centre.
        model: a bundle's name or folder; None for the one that ships.
        backend: ``auto``, ``paquo`` or ``files``.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
        require_gpu: fail rather than run on the CPU.
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        runtime: ``auto``, ``torch`` or ``openvino``.
        batch_size: tiles a call of the network; None for what suits the device.
        specimen: None leaves it to the image's metadata.
        mpp: µm/px where neither QuPath nor the file states any.
        relocations: (old, new) beginnings of slide paths or URIs.
        force: score again even what stands.
        dry_run: say what would be done, write nothing.
        recalculate: compute the score from the tiles that are there, corrections included, without the network.
        selected: ids of the regions whose tiles are classified anew; the others keep theirs. Empty for all.
        scores: thresholds of scoring.
        profile: tell where each image's time went.
        whspn: which of the model's second networks is asked: ``mlp``, ``svm`` or ``none``.

    Raises:
        UsageError: a setting that cannot be, or not together with another. What this machine, the model or the project
            has is not asked here.
    """

    images: tuple[str, ...] = ()
    region_classes: tuple[str, ...] = ()
    exclude_classes: tuple[str, ...] = ()
    whole_slide: bool = False
    class_prefix: str | None = None
    min_overlap: float | None = None
    model: str | None = None
    backend: str = "auto"
    device: str = "auto"
    require_gpu: bool = False
    precision: str = "auto"
    runtime: str = "auto"
    batch_size: int | None = None
    specimen: Specimen | None = None
    mpp: float | None = None
    relocations: tuple[tuple[str, str], ...] = ()
    force: bool = False
    dry_run: bool = False
    recalculate: bool = False
    selected: tuple[str, ...] = ()
    scores: ScoreSettings = field(default_factory=ScoreSettings)
    whspn: str = "mlp"
    profile: bool = False

    @property
    def choice(self) -> RegionChoice:
        """Which annotations are scored."""
        return RegionChoice(self.region_classes, self.exclude_classes, self.whole_slide)

    def __post_init__(self) -> None:
        _one_of(self.precision, "--precision", PRECISIONS)
        _one_of(self.runtime, "--runtime", RUNTIMES)
        _one_of(self.whspn, "--whspn", WHSPN_CHOICES)
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", self.device, re.ASCII):
            raise _refused("--device", self.device, "Give auto, cpu, cuda, cuda:N or mps.")
        if self.min_overlap is not None and not 0 < self.min_overlap <= 1:
            raise _refused("--min-overlap", self.min_overlap, "Give a share above 0 and up to 1, for instance 0.5.")
        if self.batch_size is not None and self.batch_size < 1:
            raise _refused("--batch-size", self.batch_size, "Give a whole number of at least 1, or leave it out.")
        low, high = MPP_RANGE
        if self.mpp is not None and not low <= self.mpp <= high:
            next_step = f"Give µm per pixel, between {low:g} and {high:g}; a 40× scan has about 0.25."
            raise _refused("--mpp", self.mpp, next_step)
        if not all(name.strip() for name in (*self.region_classes, *self.exclude_classes)):
            raise _refused("--region-class or --exclude-class", "", "Give the class's name, for instance Tumor.")
        if self.class_prefix is not None and not re.fullmatch(r"[^:\n\r]*[^:\s][^:\n\r]*", self.class_prefix):
            raise _refused("--class-prefix", self.class_prefix, "Give a name without colons, for instance HER2.")
        if not all(old for old, _ in self.relocations):
            next_step = "Say how the paths begin that have moved: --relocate OLD=NEW."
            raise _refused("--relocate", f"={self.relocations[0][1]}", next_step)
        self._contradictions()

    def _contradictions(self) -> None:
        pairs = (
            ("--whole-slide", self.whole_slide, "--region-class", bool(self.region_classes)),
            ("--device cpu", self.device == "cpu", "--require-gpu", self.require_gpu),
            ("--recalculate", self.recalculate, "--dry-run", self.dry_run),
            ("--recalculate", self.recalculate, "selected regions", bool(self.selected)),
            ("--whole-slide", self.whole_slide, "selected regions", bool(self.selected)),
            ("--runtime openvino", self.runtime == "openvino", "--require-gpu", self.require_gpu),
        )
        for one, is_one, other, is_other in pairs:
            if is_one and is_other:
                what = f"{one} and {other} contradict each other."
                raise UsageError(what, where=one.partition(" ")[0], next_step="Leave one of them out.")


def _one_of(value: str, option: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise _refused(option, value, f"Give {', '.join(known[:-1])} or {known[-1]}.")


def _refused(option: str, value: object, next_step: str) -> UsageError:
    return UsageError(f"{option} cannot be {value!r}.", where=option, next_step=next_step)
