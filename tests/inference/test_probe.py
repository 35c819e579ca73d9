"""What ``her2bridge doctor`` is told of engines and runtimes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from her2bridge.inference.runtime.probe import classifies, engines
from her2bridge.records import ByteArray, Float32Array


class TwoGpus:
    """Made-up hardware."""

    def cuda_devices(self) -> list[str]:
        return ["NVIDIA A", "NVIDIA B"]

    def has_mps(self) -> bool:
        return True

    def cuda_has_fp16(self, index: int) -> bool:
        return True

    def cuda_has_bf16(self, index: int) -> bool:
        return True

    def cpu_has_bf16(self) -> bool:
        return True


class Says:
    """A runtime that says the same of every tile."""

    name = device = precision = "x"

    def __init__(self, *row: float) -> None:
        self.row = row

    def __call__(self, tiles: ByteArray) -> Float32Array:
        assert tiles.shape[1:] == (8, 8, 3)
        return np.array([self.row] * len(tiles), dtype=np.float32)


def test_devices_have_the_names_that_the_option_takes() -> None:
    found = engines(TwoGpus())
    assert found.devices == ("cuda:0 (NVIDIA A)", "cuda:1 (NVIDIA B)", "mps", "cpu")
    assert found.torch == torch.__version__
    assert engines().devices[-1] == "cpu"


@pytest.mark.parametrize(
    ("row", "does"),
    [
        ((0.5, 0.5, 0, 0, 0, 0), True),
        ((np.nan, 0, 0, 0, 0, 1), False),
        ((1, 1, 0, 0, 0, 0), False),
        ((0.5, 0.5), False),
    ],
)
def test_a_runtime_must_give_probabilities(row: tuple[float, ...], does: bool) -> None:
    assert classifies(Says(*row), 8) is does
