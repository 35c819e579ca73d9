"""Which of several runtimes is the fastest here: measured in a few seconds, once a machine, and remembered.

What was measured lies in ``runtimes.json`` in the user's cache folder (``HER2BRIDGE_CACHE`` names another), below
everything on which it depends. A file that cannot be read or written is no fault: then it is measured again.
"""

from __future__ import annotations

import datetime
import json
import logging
import math
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from her2bridge.errors import WriteFailed
from her2bridge.inference.runtime.base import Runtime, usual_batch_size
from her2bridge.records import ByteArray
from her2bridge.stopwatch import available_cores
from her2bridge.storage import read_if_there, write_atomically

CACHE_VARIABLE = "HER2BRIDGE_CACHE"

_LOG = logging.getLogger(__name__)
_ROUNDS = 3
_SECONDS = 0.6  # after so long no further round is begun
_BUSY = 1.5  # waiting processes a core beyond which a measurement says little
_DAYS = 30  # that an entry is believed
_KEPT = 50  # entries; the oldest go
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS")  # with the cores: how many torch takes

Conditions = Mapping[str, str | int]
"""What a speed depends on."""
Speeds = Mapping[str, float]
"""Tiles a second of each runtime."""


def fastest(candidates: Mapping[str, Callable[[], Runtime]], conditions: Conditions, size_px: int) -> Runtime:
    """The fastest runtime, ready; the others are let go.

    Args:
        candidates: how each is made, by name; at least one.
        conditions: see ``this_machine``; what was measured under the same is believed.
        size_px: side of the tiles.

    Raises:
        ImportError, RuntimeError: what the last of the candidates raised, if none can be made.
    """
    known = remembered(conditions)
    if len(candidates) > 1 and known is not None and known.keys() == candidates.keys():
        best = max(known, key=lambda name: known[name])
        made = _make({best: candidates[best], **candidates}, enough=1)
    else:
        made = _make(candidates, enough=len(candidates))
    if len(made) == 1:
        return next(iter(made.values()))
    speeds = _measure(made, size_px)
    _LOG.info("tiles a second here: %s", ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items()))
    if not _is_busy():
        _remember(conditions, speeds)
    return made[max(speeds, key=lambda name: speeds[name])]


def remembered(conditions: Conditions) -> Speeds | None:
    """What was measured under these conditions."""
    for entry in _entries():
        if entry["for"] == dict(conditions):
            speeds: Speeds = entry["tiles_per_second"]
            return speeds
    return None


def this_machine() -> dict[str, str | int]:
    """The part of the conditions that is the machine's, and what the user says about threads.

    A program that calls ``torch.set_num_threads`` is not seen here: torch would have to be loaded to ask.
    """
    told = [f"{name}={os.environ[name]}" for name in _THREAD_VARIABLES if name in os.environ]
    return {"cpu": _cpu_model(), "cores": available_cores(), "threads": " ".join(told)}


def cache_folder() -> Path:
    """Where the user's programs keep what can be made again; it need not exist."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "her2bridge" / "Cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "her2bridge"
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))  # relative ones are to be ignored, says the specification
    return (given if given.is_absolute() else Path.home() / ".cache") / "her2bridge"


def _make(candidates: Mapping[str, Callable[[], Runtime]], enough: int) -> dict[str, Runtime]:
    """The first so many that can be made, in order."""
    made: dict[str, Runtime] = {}
    failure: Exception | None = None
    for name, make in candidates.items():
        if len(made) == enough:
            break
        try:
            made[name] = make()
        except (ImportError, RuntimeError) as error:
            _LOG.warning("%s cannot be used (%s)", name, error)
            failure = error
    if not made and failure is not None:
        raise failure
    return made


def _measure(runtimes: Mapping[str, Runtime], size_px: int) -> Speeds:
    """Tiles a second: of each the best of a few rounds, which take turns, so that what disturbs disturbs all."""
    count = 2 * usual_batch_size("cpu")
    tiles = np.random.default_rng(0).integers(0, 256, (count, size_px, size_px, 3), dtype=np.uint8)
    for runtime in runtimes.values():
        runtime(tiles)  # the first call prepares things
    spent = dict.fromkeys(runtimes, 0.0)
    best = dict.fromkeys(runtimes, math.inf)
    for _ in range(_ROUNDS):
        for name, runtime in runtimes.items():
            if spent[name] < _SECONDS:
                seconds = _seconds(runtime, tiles)
                spent[name] += seconds
                best[name] = min(best[name], seconds)
    return {name: count / seconds for name, seconds in best.items()}


def _seconds(runtime: Runtime, tiles: ByteArray) -> float:
    began = time.perf_counter()
    runtime(tiles)
    return time.perf_counter() - began


def _is_busy() -> bool:
    """Whether more processes wait for the cores than leaves a measurement its worth; not known on Windows."""
    return hasattr(os, "getloadavg") and os.getloadavg()[0] > _BUSY * available_cores()


def _remember(conditions: Conditions, speeds: Speeds) -> None:
    others = [entry for entry in _entries() if entry["for"] != dict(conditions)]
    entry = {
        "for": dict(conditions),
        "tiles_per_second": {name: round(speed, 2) for name, speed in speeds.items()},
        "measured": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    content = {"entries": [*others, entry][-_KEPT:]}
    file = _file()
    if file is None:
        return
    try:
        write_atomically(file, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    except WriteFailed as error:
        _LOG.info("the speeds are not remembered: %s (%s)", error.what, error.where)


def _entries() -> list[dict[str, Any]]:
    """What the file holds, without what is no entry, or too old."""
    file = _file()
    if file is None:
        return []
    try:
        content = json.loads(read_if_there(file) or b"{}")
        found = content["entries"] if content else []
        return [entry for entry in found if _is_entry(entry)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        _LOG.info("the remembered speeds cannot be read (%s): %s", file, error)
        return []


def _is_entry(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("for"), dict):
        return False
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(entry["measured"])
    if age > datetime.timedelta(days=_DAYS):
        return False
    speeds = entry.get("tiles_per_second")
    return isinstance(speeds, dict) and len(speeds) > 0 and all(_is_speed(speed) for speed in speeds.values())


def _is_speed(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0


def _file() -> Path | None:
    """None where there is no home folder."""
    try:
        return cache_folder() / "runtimes.json"
    except RuntimeError as error:
        _LOG.info("no speeds are remembered: %s", error)
        return None


def _cpu_model() -> str:
    """The processor as it calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
