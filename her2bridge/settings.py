"""What a user can ask of a run."""

from __future__ import annotations

from dataclasses import dataclass, field

from her2bridge.records import Specimen
from her2bridge.scoring import ScoreSettings


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
        scores: thresholds of scoring.
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
    scores: ScoreSettings = field(default_factory=ScoreSettings)
