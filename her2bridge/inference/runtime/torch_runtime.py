"""The network in torch on the CPU and Apple's GPU; and which devices and precisions there are."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch

from her2bridge.errors import DeviceUnavailable, UsageError
from her2bridge.inference.runtime.base import PRECISIONS, Pending, normalisation, softmax
from her2bridge.inference.runtime.room import Room, lacks_memory
from her2bridge.model.bundle import Bundle
from her2bridge.model.inference_form import PixelForm
from her2bridge.records import ByteArray, Float32Array

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_CPU_TILES = 8  # at once, or one a thread: for larger maps glibc asks the system for fresh memory each time


class TorchRuntime:
    """A bundle's network on the CPU or Apple's GPU, fused, its attention made cheap. See ``Runtime``.

    Where the GPU's memory does not hold a batch, it is halved, and stays so.
    """

    depth = 1

    def __init__(self, bundle: Bundle, device: torch.device, precision: str) -> None:
        """``precision`` is one of fp32, bf16, fp16, known to run on the device (``resolve_precision``)."""
        self.name = f"torch {torch.__version__}"
        self.device = str(device)
        self.precision = precision
        self._device = device
        scale, shift = (torch.from_numpy(values) for values in normalisation(bundle.card))
        self._network = PixelForm(bundle.network(), scale, shift, DTYPES[precision]).to(device)
        self._temperature = bundle.temperature
        largest = max(_CPU_TILES, torch.get_num_threads()) if device.type == "cpu" else None
        self._room = Room(self.device, largest)

    def __call__(self, tiles: ByteArray) -> Float32Array:
        """See ``Runtime``.

        Raises:
            DeviceUnavailable: the GPU's memory does not hold one tile.
        """
        results = [np.empty((0, 6), dtype=np.float32)]
        start = 0
        while start < len(tiles):
            part = tiles[start : start + self._room.fit(len(tiles) - start)]
            try:
                results.append(softmax(self._logits(part), self._temperature))
            except RuntimeError as error:
                if not lacks_memory(error):
                    raise
                self._room.halve(len(part), error)
            else:
                start += len(part)
        return np.concatenate(results)

    def start(self, tiles: ByteArray) -> Pending:
        """See ``Runtime``."""
        result = self(tiles)
        return lambda: result

    def _logits(self, tiles: ByteArray) -> Float32Array:
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(tiles)).to(self._device)
            return np.asarray(self._network(pixels).cpu().numpy(), dtype=np.float32)


class Hardware(Protocol):
    """What this machine has; asked of torch, or made up by a test."""

    def cuda_devices(self) -> list[str]:
        """Names of the CUDA devices, by index."""
        ...

    def has_mps(self) -> bool:
        """Whether Apple's GPU is there."""
        ...

    def cuda_has_fp16(self, index: int) -> bool:
        """Whether the device has matrix units for fp16 (compute capability 7.0 and later)."""
        ...

    def cuda_has_bf16(self, index: int) -> bool:
        """Whether they multiply bf16, too (compute capability 8.0 and later)."""
        ...

    def cpu_has_bf16(self) -> bool:
        """Whether the CPU multiplies bf16 in hardware (AVX512_BF16 or AMX)."""
        ...


class TorchHardware:
    """As torch reports it."""

    def cuda_devices(self) -> list[str]:
        return [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]

    def has_mps(self) -> bool:
        return torch.backends.mps.is_available()

    def cuda_has_fp16(self, index: int) -> bool:
        return torch.cuda.get_device_capability(index) >= (7, 0)

    def cuda_has_bf16(self, index: int) -> bool:
        return torch.cuda.get_device_capability(index) >= (8, 0)

    def cpu_has_bf16(self) -> bool:
        # torch has no public question for it; where a later torch drops these, fp32 is right everywhere.
        questions = [getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
        return any(bool(question()) for question in questions if question is not None)


def resolve_device(wanted: str, require_gpu: bool, hardware: Hardware) -> torch.device:
    """The device that ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps`` stands for here.

    Raises:
        DeviceUnavailable: it is not here, or a GPU is required and none is.
        UsageError: no device is called so, or the CPU is asked for and a GPU required.
    """
    cuda, here = hardware.cuda_devices(), _listed(hardware)
    if wanted == "cpu" and require_gpu:
        raise UsageError(
            "--device cpu and --require-gpu contradict each other.",
            where="--device",
            next_step="Leave one of them out.",
        )
    if wanted == "auto":
        if cuda:
            return torch.device("cuda:0")
        if hardware.has_mps():
            return torch.device("mps")
        if not require_gpu:
            return torch.device("cpu")
        raise _not_here("No GPU is here, and one is required", "--require-gpu", here)
    if wanted == "cpu":
        return torch.device("cpu")
    if wanted == "mps":
        if hardware.has_mps():
            return torch.device("mps")
        raise _not_here("Apple's GPU (mps) is not here", "--device mps", here)
    kind, _, number = wanted.partition(":")
    if kind != "cuda" or (":" in wanted and not number.isdecimal()):
        raise UsageError(
            f"There is no device called {wanted!r}.", where="--device", next_step="Give auto, cpu, cuda, cuda:N or mps."
        )
    index = int(number or 0)
    if index >= len(cuda):
        raise _not_here(f"The device {wanted} is not here", f"--device {wanted}", here)
    return torch.device(f"cuda:{index}")


def resolve_precision(wanted: str, device: torch.device, hardware: Hardware) -> str:
    """fp32, bf16 or fp16: what ``wanted`` (or ``auto``) stands for on the device.

    ``auto`` takes fp16 on CUDA devices with matrix units for it: it rounds 8 times finer than bf16 at the same speed,
    and no map of the network comes near its largest number (the gates' sums are fp32). On CPUs that multiply bf16 it is
    bf16, elsewhere fp32.

    Raises:
        UsageError: the device does not run it.
    """
    if wanted not in PRECISIONS:
        raise UsageError(
            f"There is no precision called {wanted!r}.", where="--precision", next_step=f"Give {', '.join(PRECISIONS)}."
        )
    runs = precisions(device, hardware)
    if wanted == "auto" and device.type == "cuda":
        return "fp16" if hardware.cuda_has_fp16(device.index or 0) else "fp32"
    if wanted == "auto":
        return "bf16" if "bf16" in runs else "fp32"
    if wanted not in runs:
        raise UsageError(
            f"{device.type} here does not compute in {wanted}.",
            where="--precision",
            next_step=f"Give auto, or one of {', '.join(sorted(runs))}.",
        )
    return wanted


def precisions(device: torch.device, hardware: Hardware) -> set[str]:
    """Those that the device computes in."""
    if device.type == "cuda":
        return {"fp32", "fp16", "bf16"} if hardware.cuda_has_bf16(device.index or 0) else {"fp32", "fp16"}
    if device.type == "mps":
        return {"fp32", "fp16"}
    return {"fp32", "bf16"} if hardware.cpu_has_bf16() else {"fp32"}


def _listed(hardware: Hardware) -> str:
    names = [f"cuda:{index} ({name})" for index, name in enumerate(hardware.cuda_devices())]
    return ", ".join([*names, *(["mps"] if hardware.has_mps() else []), "cpu"])


def _not_here(what: str, where: str, here: str) -> DeviceUnavailable:
    return DeviceUnavailable(
        f"{what}.",
        where=where,
        next_step=f"Here are: {here}. If a GPU is missing, check its driver and that this torch "
        f"({torch.__version__}) was built for it; `her2bridge doctor` tells.",
    )
