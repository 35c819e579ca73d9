"""What a network costs: parameters, multiply–adds, and the time of one tile."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from her2bridge.events import Emit
from her2bridge.model.repvgg import count_multiply_adds, count_parameters
from her2bridge.training.progress import ticker

WARM_UP, FEWEST, MOST = 3, 5, 100
"""Runs before the clock starts, and the least and the most that are timed."""


@dataclass(frozen=True)
class Size:
    """Learnable parameters, and multiply–adds of convolutions and linear layers for one tile."""

    parameters: int
    multiply_adds: int


def size_of(build: Callable[[], nn.Module], size_px: int) -> Size:
    """The size of what ``build`` makes, for tiles of ``size_px``; built without memory for its weights."""
    with torch.device("meta"):
        network = build().eval()
    return Size(count_parameters(network), count_multiply_adds(network, size_px))


def milliseconds_a_tile(
    networks: Mapping[str, nn.Module], size_px: int, device: torch.device, emit: Emit, seconds: float = 3.0
) -> dict[str, float]:
    """Median time of one tile, batch 1, by each network, after a warm-up; true fp32: TF32 is off meanwhile.

    They take turns, so that what else the machine does slows all of them alike; together about ``seconds`` a network.
    """
    tile = torch.rand(1, 3, size_px, size_px, device=device)
    placed = {name: network.to(device).eval() for name, network in networks.items()}
    times: dict[str, list[float]] = {name: [] for name in networks}
    tick = ticker("Timing", MOST, emit)
    done, began = 0, time.perf_counter()
    with torch.inference_mode(), _without_tf32():
        for network in placed.values():
            for _ in range(WARM_UP):
                network(tile)
        while done < FEWEST or (done < MOST and time.perf_counter() - began < seconds * len(networks)):
            for name, network in placed.items():
                _wait(device)
                start = time.perf_counter()
                network(tile)
                _wait(device)
                times[name].append(time.perf_counter() - start)
            done += 1
            tick(done)
    tick(MOST)
    return {name: 1000.0 * statistics.median(found) for name, found in times.items()}


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    """GPUs else multiply fp32 with 10 bits of mantissa, in convolutions by default."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _wait(device: torch.device) -> None:
    """Until the device has done all it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
