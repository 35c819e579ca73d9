"""Which runtime works on which device."""

from __future__ import annotations

import logging

from her2bridge.errors import UsageError
from her2bridge.inference.runtime import openvino_runtime
from her2bridge.inference.runtime.base import RUNTIMES, Runtime
from her2bridge.inference.runtime.torch_runtime import (
    Hardware,
    TorchHardware,
    TorchRuntime,
    resolve_device,
    resolve_precision,
)
from her2bridge.model.bundle import Bundle

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
    """The network, ready on the device: torch on GPUs; on the CPU OpenVINO where it is installed, else torch.

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
    if runtime == "openvino" and place.type != "cpu":
        raise UsageError(
            f"OpenVINO runs on the CPU here, not on {place}.", where="runtime", next_step="Add --device cpu."
        )
    if runtime == "openvino" and not openvino_runtime.is_installed():
        raise UsageError(
            "OpenVINO is not installed.", where="runtime", next_step="Run pip install 'her2bridge[openvino]'."
        )
    if runtime == "openvino" or (runtime == "auto" and place.type == "cpu" and openvino_runtime.is_installed()):
        try:
            return openvino_runtime.OpenVinoRuntime(bundle, precision)
        except (ImportError, RuntimeError) as error:
            if runtime == "openvino":
                raise UsageError(
                    f"OpenVINO cannot run this network ({type(error).__name__}: {str(error).splitlines()[0][:120]}).",
                    where="runtime",
                    next_step="Use torch, or install the OpenVINO that constraints.txt names.",
                ) from error
            _LOG.warning("OpenVINO cannot be used (%s); torch is", error)
    return TorchRuntime(bundle, place, resolve_precision(precision, place, hardware))
