"""What all benchmarks share: the machine and versions in words, medians, JSON files and Markdown tables.

Contract: a benchmark prints a Markdown table and, with ``--json FILE``, writes::

    {"benchmark": name, "date": "2026-11-30", "command": "python benchmarks/…", "machine": machine(),
     "versions": versions(…), "rows": [{column: number or text, …}, …], …}

``write_results.py`` makes the tables of RESULTS.md from these files. Nothing here imports torch or her2bridge.
"""

from __future__ import annotations

import json
import math
import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]

FLAGS = {
    "avx2": "avx2",
    "avx512": "avx512f",
    "vnni": "avx512_vnni",
    "bf16": "avx512_bf16",
    "fp16": "avx512_fp16",
    "amx": "amx_bf16",
}
"""What a network's speed depends on: our word, and the kernel's."""

_CPUINFO = Path("/proc/cpuinfo")


def machine() -> dict[str, Any]:
    """Processor, cores that we may use, vector units, memory in GB, GPUs, operating system and Python; plain values."""
    told = _CPUINFO.read_text(errors="replace") if _CPUINFO.exists() else ""
    return {
        "cpu": _first_of(told, "model name") or platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "units": vector_units(_first_of(told, "flags")),
        "memory_gb": _memory_gb(),
        "gpus": _gpus(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def vector_units(flags: str) -> list[str]:
    """Which of ``FLAGS`` a line of the kernel's flags names."""
    known = set(flags.split())
    return [ours for ours, theirs in FLAGS.items() if theirs in known]


def machine_told(made: Mapping[str, Any]) -> str:
    """``machine()`` on one line."""
    parts = [made["cpu"], f"{made['cores']} core{'s' if made['cores'] != 1 else ''}"]
    parts.append(" ".join(made["units"]) or "no vector units known")
    parts += [f"{made['memory_gb']:.0f} GB"] if made["memory_gb"] else []
    return ", ".join([*parts, *made["gpus"], f"Python {made['python']}"])


def versions(*names: str) -> dict[str, str]:
    """Installed versions of distributions; ``not installed`` where one is not there."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return float(statistics.median(values))


def seconds(call: Callable[[], object], repeats: int = 3, warm_up: int = 1) -> list[float]:
    """Wall time of each of ``repeats`` calls, after ``warm_up`` that do not count."""
    for _ in range(warm_up):
        call()
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began)
    return taken


def median_seconds(call: Callable[[], object], repeats: int = 3, warm_up: int = 1) -> float:
    """Median of ``seconds``."""
    return median(seconds(call, repeats, warm_up))


def peak_mb() -> float:
    """The most memory that this process has held, MB of 10⁶ bytes.

    Linux counts what the parent held before this process' own program began into ``ru_maxrss``, not into ``VmHWM``.
    """
    status = Path("/proc/self/status")
    if status.exists():
        told = _first_of(status.read_text(), "VmHWM")
        return int(told.split()[0]) * 1024 / 1e6
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def write_json(path: Path, benchmark: str, rows: Sequence[Row], **more: Any) -> None:
    """Write what a benchmark found; ``more`` (``versions=…``) goes beside the rows.

    Raises:
        ValueError: a value that JSON does not know, such as NaN.
    """
    made = {
        "benchmark": benchmark,
        "date": datetime.now(UTC).date().isoformat(),
        "command": command(),
        "machine": machine(),
        "versions": {},
        **more,
        "rows": [dict(row) for row in rows],
    }
    text = json.dumps(made, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def command() -> str:
    """How this process was called, as one would type it, without ``--json FILE``."""
    given = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv]  # not where it lies here
    words = [Path(given[0]).name, *given[1:]]
    kept = []
    skip = False
    for word in words:
        if skip or word == "--json":
            skip = not skip
        elif not word.startswith("--json="):
            kept.append(word)
    return shlex.join(["python", f"benchmarks/{kept[0]}", *kept[1:]])


def markdown_table(rows: Sequence[Row]) -> str:
    """A Markdown table of rows; columns in the order of their first appearance, those of numbers flush right.

    A value that a row lacks, or None, is an empty cell. Floats show three digits, or none behind the point from 100 on.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---:" if _is_numeric(rows, column) else "---" for column in columns]]
    lines += [[cell(row.get(column)) for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: object) -> str:
    """How a value shows in a table."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return _float(value)
    return str(value).replace("|", "\\|").replace("\n", " ")


def _float(value: float) -> str:
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    digits = 2 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def _is_numeric(rows: Sequence[Row], column: str) -> bool:
    values = [row[column] for row in rows if row.get(column) is not None]
    return bool(values) and all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)


def _first_of(told: str, key: str) -> str:
    """The first value of a key in one of the kernel's lists; empty where it has none."""
    lines = (line.partition(":") for line in told.splitlines())
    return next((value.strip() for name, _, value in lines if name.strip() == key), "")


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (ValueError, OSError, AttributeError):  # Windows has no sysconf
        return None


def _gpus() -> list[str]:
    """Names and drivers of NVIDIA's GPUs; empty where there is no driver."""
    asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
