"""What ``her2bridge doctor`` looks at: this machine, and a project if one is named.

Nothing is written to the project; which runtime was measured to be the faster goes to the user's cache folder.
"""

from __future__ import annotations

import os
import platform
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

import her2bridge.events as ev
from her2bridge.cli.console import counted
from her2bridge.errors import BackendUnavailable, Her2BridgeError
from her2bridge.model.bundle import Bundle, load_bundle
from her2bridge.provenance import Standing
from her2bridge.qupath.open import open_project
from her2bridge.qupath.results import stamp_of
from her2bridge.qupath.seam import Entry
from her2bridge.records import SlideSource
from her2bridge.run import run_project
from her2bridge.settings import RunSettings
from her2bridge.slides import open_slide, slide_readers

OK, NOTE, BROKEN = "ok", "note", "broken"
_TELLS_MORE = re.compile("STALE: the project still shows|results of an earlier run")  # of a run's warnings


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        state: ``ok``, ``note`` (works, and could be better) or ``broken``.
        what: the thing.
        says: how it is.
        next_step: what to do about it; empty where nothing has to be done.
    """

    state: str
    what: str
    says: str
    next_step: str = ""


def machine() -> Iterator[Check]:
    """Python, engines, model, slide reader, QuPath."""
    yield Check(OK, "Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield from _engines()
    yield from _model()
    yield from _slides()
    yield look_for_qupath()


def project(path: Path) -> Iterator[Check]:
    """A project, its slides and scores, as a dry run with default options finds them."""
    try:
        opened = open_project(path)
        heard: list[ev.Event] = []
        run_project(path, RunSettings(force=True, dry_run=True), heard.append)
    except Her2BridgeError as error:
        yield _broken("Project", error)
        return
    says = f"{opened.path}, {counted(len(opened.entries), 'image')}, backend {opened.backend}"
    if opened.read_only_reason is None:
        yield Check(OK, "Project", says)
    else:
        next_step = "Results can go to the side files only: her2bridge/results in the project's folder."
        yield Check(NOTE, "Project", f"{says}; {opened.read_only_reason}", next_step)
    if not os.access(opened.folder, os.W_OK):
        next_step = "Ask for the right to write there, or copy the project and run on the copy."
        yield Check(BROKEN, "Project", "its folder cannot be written to", next_step)
    outcomes = [event for event in heard if isinstance(event, ev.ImagePlanned | ev.ImageFailed)]
    for entry, outcome in zip(opened.entries, outcomes, strict=True):
        yield _image(entry, outcome, opened.read_only_reason)
    for warned in heard:
        if isinstance(warned, ev.Warned) and warned.image is not None and _TELLS_MORE.search(warned.message):
            yield Check(NOTE, warned.image, warned.message)


def _image(entry: Entry, outcome: ev.ImagePlanned | ev.ImageFailed, known: str | None) -> Check:
    stamp = stamp_of(entry.metadata)
    if isinstance(outcome, ev.ImageFailed):
        if outcome.error == "NoRegions" and stamp is not None and stamp.choice.region_classes:
            classes = ", ".join(stamp.choice.region_classes)
            says = f"scored with --region-class {classes}; a run without options finds no region"
            return Check(NOTE, entry.name, says, "Nothing, if that is how it is always run.")
        return Check(BROKEN, entry.name, f"{outcome.what} ({outcome.where})", outcome.next_step)
    standing = Standing(outcome.standing)
    says = f"{'its score ' if standing is Standing.STANDS else ''}{standing}"
    says = f"{says}; {outcome.tiles:,} tiles in {counted(outcome.regions, 'region')}"
    if entry.read_only_reason not in (None, known):
        return Check(NOTE, entry.name, f"{says}; {entry.read_only_reason}", "Results can go to the side files only.")
    if standing in (Standing.STANDS, Standing.NEVER_SCORED):
        return Check(OK, entry.name, says)
    again = "Score it again: her2bridge run PROJECT."
    if standing is Standing.OTHER_SETTINGS:
        again = f"Nothing, if other options than the usual ones were meant. {again}"
    return Check(NOTE, entry.name, says, again)


def _engines() -> Iterator[Check]:
    try:
        from her2bridge.inference.runtime.probe import engines

        found = engines()
    except (ImportError, OSError) as error:  # OSError: a DLL that Windows does not find
        yield Check(BROKEN, "torch", f"cannot be loaded: {error}", "Install it again: see README.md, Installation.")
        return
    yield Check(OK, "torch", f"{found.torch}, built for {found.torch_gpus or 'the CPU alone'}")
    if len(found.devices) > 1:
        yield Check(OK, "Devices", ", ".join(found.devices))
    else:
        next_step = "Is there an NVIDIA GPU? Install its driver, and the torch for CUDA that pytorch.org names."
        yield Check(NOTE, "Devices", "cpu; no GPU. Runs work, and are slower", next_step)
    if found.openvino:
        yield Check(OK, "OpenVINO", found.openvino)
    else:
        next_step = "pip install 'her2bridge[openvino]' makes runs on many CPUs several times faster."
        yield Check(NOTE, "OpenVINO", "not installed, and not needed", next_step)


def _model() -> Iterator[Check]:
    try:
        bundle = load_bundle()
    except Her2BridgeError as error:
        yield _broken("Model", error)
        return
    yield Check(OK, "Model", f"{bundle.name}, SHA-256 {bundle.sha256[:12]}…, weights as its card says")
    try:
        network = _network(bundle)
    except (ImportError, OSError):  # torch is broken, as was told
        return
    yield network


def _network(bundle: Bundle) -> Check:
    from her2bridge.inference.runtime.choose import choose_runtime, measured
    from her2bridge.inference.runtime.probe import classifies

    try:
        runtime = choose_runtime(bundle)
        works = classifies(runtime, bundle.spec.size_px)
        speeds = measured(bundle) if runtime.device == "cpu" else None
    except Her2BridgeError as error:
        return _broken("Network", error)
    says = f"{runtime.name} on {runtime.device}, {runtime.precision}"
    if speeds:
        told = ", ".join(f"{name} {speed:.3g}" for name, speed in sorted(speeds.items(), key=lambda one: -one[1]))
        says = f"{says}; measured, tiles a second: {told}"
    if works:
        return Check(OK, "Network", says)
    return Check(
        BROKEN, "Network", f"{says}: no probabilities", "Try --precision fp32 or --runtime torch, and report it."
    )


def _slides() -> Iterator[Check]:
    """Writes a tiny JPEG-compressed TIFF and reads it as a slide; then which formats have a reader."""
    try:
        with tempfile.TemporaryDirectory(prefix="her2bridge-") as folder:
            path = Path(folder) / "slide.tif"
            Image.new("RGB", (64, 64), (200, 160, 120)).save(path, compression="jpeg")
            with open_slide(SlideSource(path)) as slide:
                slide.read(0, 0, 64, 64, 64, 64)
    except Her2BridgeError as error:
        yield _broken("Slides", error)
    except (ImportError, OSError) as error:
        yield Check(BROKEN, "Slides", str(error), "Install her2bridge again: see README.md.")
    for reader in slide_readers():
        if reader.version is not None:
            yield Check(OK, "Slides", f"{reader.opens} ({reader.name} {reader.version})")
        else:
            yield Check(NOTE, "Slides", f"{reader.opens}: {reader.name} is not installed", f"{reader.install}.")


def look_for_qupath() -> Check:
    """Start the QuPath that paquo finds, if any. The files backend needs none, so that nothing here can be broken."""
    from her2bridge.qupath.via_paquo import jvm

    try:
        qupath = jvm.start()
    except BackendUnavailable as error:
        is_wanted = "PAQUO_QUPATH_DIR" in os.environ
        says = f"{error.what} Not needed: projects are read and written as files (--backend files)"
        return Check(NOTE if is_wanted else OK, "QuPath", says, error.next_step if is_wanted else "")
    return Check(OK, "QuPath", f"{qupath.version} in {qupath.folder}, through paquo {jvm.paquo_version()}")


def _broken(what: str, error: Her2BridgeError) -> Check:
    return Check(BROKEN, what, f"{error.what} ({error.where})", error.next_step)
