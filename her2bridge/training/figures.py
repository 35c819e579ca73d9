"""Pictures of numbers, by matplotlib: without pyplot, whose state is the whole process's."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from her2bridge.storage import write_atomically
from her2bridge.training.extras import need


def new_figure(width: float, height: float) -> Any:
    """An empty ``matplotlib.figure.Figure`` of so many inches.

    Raises:
        UsageError: matplotlib is not installed.
    """
    return need("matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: Path) -> None:
    """Write it as PNG or SVG, by the file's ending.

    Raises:
        WriteFailed: it cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format=path.suffix.removeprefix("."), dpi=130)
    write_atomically(path, buffer.getvalue())
