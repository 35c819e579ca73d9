"""Which runtime works on which device."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from importlib import metadata

import torch

from her2bridge.errors import UsageError
from her2bridge.inference.runtime import openvino_runtime
from her2bridge.inference.runtime.base import RUNTIMES, Runtime
from her2bridge.inference.runtime.fastest import Conditions, Speeds, fastest, remembered, this_machine
from her2bridge.inference.runtime.torch_runtime import (
    Hardware,
    TorchHardware,
    TorchRuntime,
    resolve_device,
    resolve_precision,
)
from her2bridge.inference.second_look import SecondLook
from her2bridge.model.bundle import Bundle
from her2bridge.version import version

_LOG = logging.getLogger(__name__)


def choose_runtime(
    bundle: Bundle,
    device: str = "auto",
    precision: str = "auto",
    *,
    require_gpu: bool = False,
    runtime: str = "auto",
    hardware: Hardware | None = None,
) -> Runtime:
    """The network, ready on the device: torch on GPUs; on the CPU the faster of torch and OpenVINO, by measurement.

    A runtime or precision that is named is taken, or narrows what is compared. On CPUs whose hardware multiplies bf16,
    ``auto`` computes in bf16, and in fp32 again what is then in doubt (``SecondLook``).

    Raises:
        DeviceUnavailable: the device is not here, or a GPU is required and none is.
        UsageError: a device, precision or runtime that cannot be, or cannot be together.
    """
    hardware = hardware or TorchHardware()
    if runtime not in RUNTIMES:
        raise UsageError(
            f"There is no runtime called {runtime!r}.", where="runtime", next_step=f"Give {', '.join(RUNTIMES)}."
        )
    place = resolve_device(device, require_gpu, hardware)
    if runtime == "openvino":
        return _openvino(bundle, place, precision)
    if place.type == "cpu" and runtime == "auto" and openvino_runtime.is_installed():
        return _faster(bundle, place, precision, hardware)
    resolved = resolve_precision(precision, place, hardware)
    if place.type == "cuda":
        from her2bridge.inference.runtime.cuda_runtime import CudaRuntime

        return CudaRuntime(bundle, place, resolved)
    return _with_second_look(precision, resolved, lambda each: TorchRuntime(bundle, place, each))


def measured(bundle: Bundle, precision: str = "auto") -> Speeds | None:
    """Tiles a second of the runtimes that were compared for this bundle on this CPU; None where none were."""
    return remembered(_conditions(bundle, precision))


def _openvino(bundle: Bundle, place: torch.device, precision: str) -> Runtime:
    if place.type != "cpu":
        raise UsageError(
            f"OpenVINO runs on the CPU here, not on {place}.", where="runtime", next_step="Add --device cpu."
        )
    if not openvino_runtime.is_installed():
        raise UsageError(
            "OpenVINO is not installed.", where="runtime", next_step="Run pip install 'her2bridge[openvino]'."
        )
    try:
        resolved = openvino_runtime.resolve(precision)
        return _with_second_look(precision, resolved, lambda each: openvino_runtime.OpenVinoRuntime(bundle, each))
    except (ImportError, RuntimeError) as error:
        raise UsageError(
            f"OpenVINO cannot run this network ({type(error).__name__}: {str(error).splitlines()[0][:120]}).",
            where="runtime",
            next_step="Use torch, or install the OpenVINO that constraints.txt names.",
        ) from error


def _faster(bundle: Bundle, place: torch.device, precision: str, hardware: Hardware) -> Runtime:
    """Of those that compute in that precision here."""
    candidates: dict[str, Callable[[], Runtime]] = {}
    refused: UsageError | None = None
    try:
        in_openvino = openvino_runtime.resolve(precision)
        candidates[f"openvino {in_openvino}"] = lambda: _with_second_look(
            precision, in_openvino, lambda each: openvino_runtime.OpenVinoRuntime(bundle, each)
        )
    except UsageError as error:
        refused = error
    except (ImportError, RuntimeError) as error:
        _LOG.warning("OpenVINO cannot be used (%s); torch is", error)
    try:
        in_torch = resolve_precision(precision, place, hardware)
        candidates[f"torch {in_torch}"] = lambda: _with_second_look(
            precision, in_torch, lambda each: TorchRuntime(bundle, place, each)
        )
    except UsageError as error:
        refused = error
    if not candidates and refused is not None:
        raise refused
    return fastest(candidates, _conditions(bundle, precision), bundle.spec.size_px)


def _with_second_look(wanted: str, resolved: str, make: Callable[[str], Runtime]) -> Runtime:
    """The runtime in that precision; where ``auto`` made it bf16, doubtful tiles in fp32 too. Who names bf16 has it."""
    if wanted == "auto" and resolved == "bf16":
        return SecondLook(make("bf16"), lambda: make("fp32"))
    return make(resolved)


def _conditions(bundle: Bundle, precision: str) -> Conditions:
    return {
        **this_machine(torch.get_num_threads()),
        "torch": torch.__version__,
        "openvino": metadata.version("openvino") if openvino_runtime.is_installed() else "",
        "her2bridge": version(),
        "network": json.dumps(bundle.card.get("architecture"), sort_keys=True),
        "size_px": bundle.spec.size_px,
        "precision": precision,
    }
