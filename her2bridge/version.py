"""The installed version."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """What ``pyproject.toml`` said when her2bridge was installed."""
    return metadata.version("her2bridge")
