"""What networks were trained and timed on, in words."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from her2bridge.version import version

_CPUINFO = Path("/proc/cpuinfo")


def device_name(device: torch.device) -> str:
    """``cpu``, ``mps``, or the name of the GPU: what figures may depend on."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def machine(device: torch.device) -> dict[str, str | int]:
    """Processor, threads, and the versions of torch and her2bridge; plain values."""
    name = f"cpu ({_cpu_model()})" if device.type == "cpu" else device_name(device)
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "her2bridge": version(),
    }


def machine_told(device: torch.device) -> str:
    """The same on one line."""
    made = machine(device)
    return f"{made['device']}, {made['threads']} thread(s), torch {made['torch']}, her2bridge {made['her2bridge']}"


def _cpu_model() -> str:
    lines = _CPUINFO.read_text(errors="replace").splitlines() if _CPUINFO.exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
