"""Libraries that only training needs, imported when they are used; where one is missing, we say what to run."""

from __future__ import annotations

import importlib
from typing import Any

from her2bridge.errors import UsageError

EXTRAS = {"matplotlib": "training", "pyarrow": "training", "torchvision": "peers"}
"""Package -> the extra of her2bridge that brings it."""


def need(module: str) -> Any:
    """A module of an optional package, e.g. ``pyarrow.parquet``.

    Raises:
        UsageError: the package is not installed.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise UsageError(
            f"This needs {package}, which is not installed.",
            where=f"the extra {EXTRAS[package]} of her2bridge",
            next_step=f"Run pip install 'her2bridge[{EXTRAS[package]}]'.",
        ) from error
