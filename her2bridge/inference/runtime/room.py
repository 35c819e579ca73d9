"""How many tiles at once a device's memory holds: learned by running out of it."""

from __future__ import annotations

import logging

import torch

from her2bridge.errors import DeviceUnavailable

_LOG = logging.getLogger(__name__)


class Room:
    """The most tiles that a runtime gives its device at once; where they do not fit it is halved, and stays so.

    Attributes:
        largest: that number; None before memory ran out, where none was set.
    """

    def __init__(self, device: str, largest: int | None = None) -> None:
        self.largest = largest
        self._device = device

    def fit(self, count: int) -> int:
        """How many of ``count`` tiles may go at once."""
        return count if self.largest is None else min(count, self.largest)

    def halve(self, size: int, error: BaseException) -> None:
        """``size`` tiles did not fit.

        Raises:
            DeviceUnavailable: it was a single tile.
        """
        if size <= 1:
            raise DeviceUnavailable(
                "The GPU's memory does not hold a single tile.",
                where=self._device,
                next_step="Close other programs that use the GPU, or run with --device cpu.",
            ) from error
        self.largest = size // 2
        _LOG.warning("GPU memory is too small for %d tiles at once; going on with %d", size, self.largest)


def lacks_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it arose from, says that a GPU's memory is full.

    An error in the middle of recording a CUDA graph is followed by that of ending it; Apple's GPU has no error of its
    own for it.
    """
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError) or "MPS backend out of memory" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
