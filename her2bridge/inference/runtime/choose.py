"""Which runtime works on which device.

Loading torch takes about two seconds, OpenVINO a tenth of one. So torch is loaded where it is to compute, or where only
it knows what must be known: which GPUs are here, and, until it was measured, in which precision it would compute.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Set
from functools import partial
from importlib import metadata
from typing import TYPE_CHECKING

from her2bridge.errors import UsageError
from her2bridge.inference.runtime import openvino_runtime
from her2bridge.inference.runtime.base import RUNTIMES, Runtime, first_line
from her2bridge.inference.runtime.fastest import Conditions, Speeds, fastest, remembered, this_machine
from her2bridge.inference.second_look import SecondLook
from her2bridge.model.bundle import Bundle
from her2bridge.version import version

if TYPE_CHECKING:
    from her2bridge.inference.runtime.torch_runtime import Hardware

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
    if runtime not in RUNTIMES:
        raise UsageError(
            f"There is no runtime called {runtime!r}.", where="runtime", next_step=f"Give {', '.join(RUNTIMES)}."
        )
    place = _place(device, require_gpu, hardware)
    if runtime == "openvino":
        return _openvino(bundle, place, precision)
    if place == "cpu" and runtime == "auto" and openvino_runtime.is_installed():
        return _faster(bundle, precision, hardware)
    resolved = _precision_in_torch(precision, place, hardware)
    if place.startswith("cuda"):
        import torch

        from her2bridge.inference.runtime.cuda_runtime import CudaRuntime

        return CudaRuntime(bundle, torch.device(place), resolved)
    return _with_second_look(precision, resolved, lambda each: _in_torch(bundle, place, each))


def measured(bundle: Bundle, precision: str = "auto") -> Speeds | None:
    """Tiles a second of the runtimes that were compared for this bundle on this CPU; None where none were."""
    return remembered(_conditions(bundle, precision))


def _place(device: str, require_gpu: bool, hardware: Hardware | None) -> str:
    """``cpu``, ``cuda:0``, ``mps``; torch is loaded unless it can only be the CPU."""
    if not require_gpu and (device == "cpu" or (device == "auto" and hardware is None and _torch_is_for_cpus_only())):
        return "cpu"
    from her2bridge.inference.runtime.torch_runtime import TorchHardware, resolve_device

    return str(resolve_device(device, require_gpu, hardware or TorchHardware()))


def _torch_is_for_cpus_only() -> bool:
    """Whether it certainly is: not every build that sees no GPU says so in its version."""
    return sys.platform != "darwin" and _torch_version().endswith("+cpu")


def _torch_version() -> str:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:  # one that was not installed as a package
        import torch

        return torch.__version__


def _in_torch(bundle: Bundle, place: str, precision: str) -> Runtime:
    import torch

    from her2bridge.inference.runtime.torch_runtime import TorchRuntime

    return TorchRuntime(bundle, torch.device(place), precision)


def _precision_in_torch(wanted: str, place: str, hardware: Hardware | None) -> str:
    import torch

    from her2bridge.inference.runtime.torch_runtime import TorchHardware, resolve_precision

    return resolve_precision(wanted, torch.device(place), hardware or TorchHardware())


def _openvino(bundle: Bundle, place: str, precision: str) -> Runtime:
    if place != "cpu":
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
        raise _cannot_run("OpenVINO", error) from error


def _faster(bundle: Bundle, precision: str, hardware: Hardware | None) -> Runtime:
    """Of those that compute in that precision here."""
    conditions = _conditions(bundle, precision)
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
        in_torch = _remembered_precision(conditions, precision, candidates.keys())
        if in_torch is None or hardware is not None:
            in_torch = _precision_in_torch(precision, "cpu", hardware)
        candidates[f"torch {in_torch}"] = partial(
            _with_second_look, precision, in_torch, lambda each: _in_torch(bundle, "cpu", each)
        )
    except UsageError as error:
        refused = error
    except (ImportError, OSError) as error:  # OSError: a library of its own that is not found
        if not candidates:
            raise _cannot_run("torch", error) from error
        _LOG.warning("torch cannot be used (%s); OpenVINO is", first_line(error))
    if not candidates and refused is not None:
        raise refused
    try:
        return fastest(candidates, conditions, bundle.spec.size_px)
    except (ImportError, RuntimeError) as error:
        raise _cannot_run(" or ".join(name.split()[0] for name in candidates), error) from error


def _cannot_run(who: str, error: Exception) -> UsageError:
    return UsageError(
        f"{who} cannot run this network ({first_line(error)}).",
        where="runtime",
        next_step="Name another --runtime or --precision, or install what constraints.txt names.",
    )


def _remembered_precision(conditions: Conditions, wanted: str, others: Set[str]) -> str | None:
    """In which precision torch computed when it was compared with just those others; None where it was not.

    It is that of the CPU and of torch's version, both of which are among the conditions.
    """
    names = set(remembered(conditions) or ()) - others
    if not others or len(names) != 1:
        return None
    name, _, precision = names.pop().partition(" ")
    is_one = name == "torch" and precision in (("fp32", "bf16") if wanted == "auto" else (wanted,))
    return precision if is_one else None


def _with_second_look(wanted: str, resolved: str, make: Callable[[str], Runtime]) -> Runtime:
    """The runtime in that precision; where ``auto`` made it bf16, doubtful tiles in fp32 too. Who names bf16 has it."""
    if wanted == "auto" and resolved == "bf16":
        return SecondLook(make("bf16"), lambda: _made_later(make, "fp32"))
    return make(resolved)


def _made_later(make: Callable[[str], Runtime], precision: str) -> Runtime:
    """For what is made in the midst of a run: there nobody else looks after a library's errors."""
    try:
        return make(precision)
    except (ImportError, RuntimeError) as error:
        raise _cannot_run(f"The second look in {precision}", error) from error


def _conditions(bundle: Bundle, precision: str) -> Conditions:
    return {
        **this_machine(),
        "torch": _torch_version(),
        "openvino": metadata.version("openvino") if openvino_runtime.is_installed() else "",
        "her2bridge": version(),
        "network": json.dumps(bundle.card.get("architecture"), sort_keys=True),
        "size_px": bundle.spec.size_px,
        "precision": precision,
    }
