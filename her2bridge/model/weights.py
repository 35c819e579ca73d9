"""The weights' file of a bundle, read and checked without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from her2bridge.errors import BundleDamaged
from her2bridge.model.spec import Shapes

NEXT = "Use the bundle as it was published, or save it again with her2bridge."
"""What to do about a damaged bundle."""


@contextmanager
def told_as_damage(path: Path) -> Iterator[None]:
    """What goes wrong while the file is read is raised as ``BundleDamaged``."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError) as error:
        raise BundleDamaged("The weights are not a safetensors file.", where=str(path), next_step=NEXT) from error


def read_shapes(path: Path) -> Shapes:
    """Of all tensors in the file, from its header alone.

    Raises:
        BundleDamaged: it is no safetensors file.
    """
    from safetensors import safe_open

    with told_as_damage(path), safe_open(path, "numpy") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - not a dict


def read_arrays(path: Path) -> dict[str, NDArray[np.floating]]:
    """All tensors, in the precision in which they lie there.

    Raises:
        BundleDamaged: it is no safetensors file.
    """
    from safetensors import safe_open

    with told_as_damage(path):
        try:
            with safe_open(path, "numpy") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except TypeError:  # a number format that numpy lacks, as bf16; we write none, but torch reads it
            from safetensors.torch import load_file

            return {name: tensor.float().numpy() for name, tensor in load_file(path).items()}


def check_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    """Missing and unexpected names and wrong shapes, all of them told.

    Raises:
        BundleDamaged: there are any.
    """
    shared = found.keys() & expected.keys()
    wrong = [
        f"{name} is {list(found[name])}, not {list(expected[name])}"
        for name in sorted(shared)
        if found[name] != expected[name]
    ]
    faults = [
        f"{len(names)} {what} ({', '.join(sorted(names)[:4])}{', …' if len(names) > 4 else ''})"
        for what, names in (
            ("missing", expected.keys() - found.keys()),
            ("unexpected", found.keys() - expected.keys()),
            ("of another shape", wrong),
        )
        if names
    ]
    if faults:
        raise BundleDamaged(
            f"The weights are not those of the network in the card: {'; '.join(faults)}.",
            where=str(path),
            next_step=NEXT,
        )
