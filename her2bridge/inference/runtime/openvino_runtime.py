"""The network in OpenVINO: several times faster than torch on many CPUs. Optional (the extra ``openvino``)."""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from her2bridge.errors import UsageError
from her2bridge.inference.runtime.base import PRECISIONS, Pending, normalisation, softmax
from her2bridge.model.bundle import Bundle
from her2bridge.model.repvgg import fuse
from her2bridge.records import ByteArray, Float32Array

_HINTS = {"fp32": "f32", "bf16": "bf16"}


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
    """A bundle's network, fused and compiled for the CPU. See ``Runtime``."""

    device = "cpu"
    depth = 1

    def __init__(self, bundle: Bundle, precision: str = "auto") -> None:
        """``auto`` takes bf16 where OpenVINO says that the CPU is good at it.

        Raises:
            UsageError: the CPU does not compute in that precision.
        """
        openvino = _openvino()
        core = openvino.Core()
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]}"
        self.precision = _resolve(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        size = bundle.spec.size_px
        model = _convert(openvino, _FromPixels(bundle).eval(), torch.zeros((2, size, size, 3), dtype=torch.uint8))
        model.reshape([-1, size, size, 3])
        hints = {"INFERENCE_PRECISION_HINT": _HINTS[self.precision], "PERFORMANCE_HINT": "LATENCY"}
        self._temperature = bundle.temperature
        self._compiled = core.compile_model(model, "CPU", hints)

    def __call__(self, tiles: ByteArray) -> Float32Array:
        """See ``Runtime``."""
        if not len(tiles):
            return np.empty((0, 6), dtype=np.float32)
        logits = self._compiled(np.ascontiguousarray(tiles))[0]
        return softmax(np.asarray(logits, dtype=np.float32), self._temperature)

    def start(self, tiles: ByteArray) -> Pending:
        """See ``Runtime``."""
        result = self(tiles)
        return lambda: result


def _convert(openvino: Any, network: nn.Module, example: torch.Tensor) -> Any:
    """OpenVINO's form of the network, without the traces that conversion leaves in the root logger."""
    root = logging.getLogger()
    level, filters, handlers = root.level, list(root.filters), list(root.handlers)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # It traces with torch.jit.trace, which torch calls deprecated; that is between those two.
            warnings.simplefilter("ignore")
            return openvino.convert_model(network, example_input=example)
    finally:
        root.setLevel(level)
        root.filters[:], root.handlers[:] = filters, handlers


class _FromPixels(nn.Module):
    """uint8 [b, h, w, 3] to logits: normalising is part of the compiled graph."""

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, bundle: Bundle) -> None:
        super().__init__()
        scale, shift = (torch.from_numpy(values).view(1, 3, 1, 1) for values in normalisation(bundle.card))
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.network = fuse(bundle.network())

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        planes = pixels.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return cast(torch.Tensor, self.network(planes))


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
