"""The network in OpenVINO: several times faster than torch on many CPUs. Optional (the extra ``openvino``)."""

from __future__ import annotations

import importlib.util
import sys
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np

from her2bridge.errors import UsageError
from her2bridge.inference.runtime.base import PRECISIONS, Pending, normalisation, softmax
from her2bridge.inference.runtime.openvino_graph import build_model
from her2bridge.model.bundle import Bundle
from her2bridge.records import ByteArray, Float32Array

_HINTS = {"fp32": "f32", "bf16": "bf16"}
_SETTINGS = {
    "NUM_STREAMS": 4096,  # OpenVINO makes of it what the machine has: one a core
    "ENABLE_HYPER_THREADING": False,
    # A pinned thread waits for its core even where others are idle; and two runs would be pinned to the same cores.
    "ENABLE_CPU_PINNING": False,
}
_MANY_CORES = 16
"""Beyond so many, handing over single tiles would cost the one thread of Python too much (30 µs each)."""


def is_installed() -> bool:
    """Whether OpenVINO could be imported; does not import it."""
    return "openvino" in sys.modules or importlib.util.find_spec("openvino") is not None


def _openvino() -> Any:
    """The library, without its telemetry, which would speak to the network and write to the home folder on import."""
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = cast(Any, None)  # makes its import fail, which OpenVINO bears
    import openvino

    return openvino


class OpenVinoRuntime:
    """A bundle's network, compiled for the CPU. See ``Runtime``.

    Every core works on tiles of its own, one at a time: a tile's maps then stay in the core's cache, and no core waits
    for another.
    """

    device = "cpu"
    depth = 2

    def __init__(self, bundle: Bundle, precision: str = "auto") -> None:
        """``auto`` takes bf16 where OpenVINO says that the CPU is good at it.

        Raises:
            UsageError: the CPU does not compute in that precision.
        """
        openvino, core = _openvino(), _core()
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]}"
        self.precision = resolve(precision)
        _, streams = core.get_property("CPU", "RANGE_FOR_STREAMS")
        self._at_once = 1 if streams <= _MANY_CORES else 4
        shape = (self._at_once, bundle.spec.size_px)
        model = build_model(openvino, bundle.fused(), normalisation(bundle.card), shape)
        compiled = core.compile_model(model, "CPU", {**_SETTINGS, "INFERENCE_PRECISION_HINT": _HINTS[self.precision]})
        # Twice as many as compute: those that wait are taken up while Python fetches the next tiles.
        self._idle = [compiled.create_infer_request() for _ in range(2 * compiled.get_property("NUM_STREAMS"))]
        self._running: deque[_Running] = deque()
        self._tensor = openvino.Tensor
        self._temperature = bundle.temperature

    def __call__(self, tiles: ByteArray) -> Float32Array:
        """See ``Runtime``."""
        return self.start(tiles)()

    def start(self, tiles: ByteArray) -> Pending:
        """See ``Runtime``. Returns when the last tiles have been handed over, if not computed."""
        logits = np.empty((len(tiles), 6), dtype=np.float32)
        for first in range(0, len(tiles), self._at_once):
            few = slice(first, first + self._at_once)
            self._submit(np.require(tiles[few], np.uint8, ["C", "W"]), logits[few])
        last = self._running[-1] if len(tiles) else None

        def result() -> Float32Array:
            while last in self._running:
                self._finish_oldest()
            return softmax(logits, self._temperature)

        return result

    def _submit(self, tiles: ByteArray, logits: Float32Array) -> None:
        if not self._idle:
            self._finish_oldest()
        if len(tiles) < self._at_once:
            tiles = np.concatenate([tiles, np.zeros((self._at_once - len(tiles), *tiles.shape[1:]), np.uint8)])
        request = self._idle.pop()
        request.set_input_tensor(self._tensor(tiles, shared_memory=True))
        request.start_async()
        self._running.append(_Running(request, tiles, logits))

    def _finish_oldest(self) -> None:
        oldest = self._running.popleft()
        try:
            oldest.request.wait()
            oldest.logits[:] = oldest.request.get_output_tensor().data[: len(oldest.logits)]
        finally:
            self._idle.append(oldest.request)


@dataclass(frozen=True, eq=False)
class _Running:
    """A request under way, the tiles whose memory it reads, and where its logits belong."""

    request: Any
    tiles: ByteArray
    logits: Float32Array


def resolve(wanted: str) -> str:
    """fp32 or bf16: what a precision, or ``auto``, stands for with OpenVINO on this CPU.

    Raises:
        UsageError: the CPU does not compute in it.
        ImportError: OpenVINO is not installed, or its libraries cannot be loaded.
    """
    return _resolve(wanted, _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@cache
def _core() -> Any:
    return _openvino().Core()


def _resolve(wanted: str, capabilities: list[str]) -> str:
    runs = ["fp32", "bf16"] if "BF16" in capabilities else ["fp32"]
    if wanted == "auto":
        return runs[-1]
    if wanted not in runs:
        known = wanted in PRECISIONS
        raise UsageError(
            f"This CPU does not compute in {wanted}." if known else f"There is no precision called {wanted!r}.",
            where="--precision",
            next_step=f"Give auto, or one of {', '.join(runs)}.",
        )
    return wanted
