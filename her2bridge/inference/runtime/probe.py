"""What could compute the network on this machine, for ``her2bridge doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

import numpy as np
import torch

from her2bridge.inference.runtime import openvino_runtime
from her2bridge.inference.runtime.base import Runtime
from her2bridge.inference.runtime.torch_runtime import Hardware, TorchHardware


@dataclass(frozen=True)
class Engines:
    """What is installed and what it sees.

    Attributes:
        torch: version.
        torch_gpus: the kind of GPU that this torch was built for, with version; None for the CPU alone.
        devices: by the name that ``--device`` takes and, in brackets, their own; the CPU last.
        openvino: version; None where it is not installed.
    """

    torch: str
    torch_gpus: str | None
    devices: tuple[str, ...]
    openvino: str | None


def engines(hardware: Hardware | None = None) -> Engines:
    """Ask torch and OpenVINO; neither runs anything."""
    hardware = hardware or TorchHardware()
    devices = [f"cuda:{index} ({name})" for index, name in enumerate(hardware.cuda_devices())]
    devices += ["mps"] if hardware.has_mps() else []
    return Engines(
        torch=torch.__version__,
        torch_gpus=_built_for(),
        devices=(*devices, "cpu"),
        openvino=metadata.version("openvino") if openvino_runtime.is_installed() else None,
    )


def classifies(runtime: Runtime, size_px: int) -> bool:
    """Whether the runtime gives probabilities for two blank tiles of that side."""
    result = runtime(np.full((2, size_px, size_px, 3), 255, dtype=np.uint8))
    return result.shape == (2, 6) and bool(np.allclose(result.sum(axis=1), 1.0, atol=1e-3))


def _built_for() -> str | None:
    if torch.version.cuda is not None:
        return f"CUDA {torch.version.cuda}"
    if torch.version.hip is not None:
        return f"ROCm {torch.version.hip}"
    return "Apple's GPU" if torch.backends.mps.is_built() else None
