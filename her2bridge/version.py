"""The installed version."""

from __future__ import annotations


def version() -> str:
    """What ``pyproject.toml`` said when her2bridge was installed."""
    from importlib import metadata  # slow to load, and most commands do not ask

    return metadata.version("her2bridge")
