"""The CUDA calls that the runtime makes, each a small step: what a test without a GPU puts something else in place of.

Two queues (CUDA's streams) work side by side: one copies pixels to the device while the other computes. What is given
to a queue is done in order, some time after ``run`` returned; an event tells when.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from her2bridge.inference.runtime.base import first_line
from her2bridge.model.inference_form import InferenceForm

_LOG = logging.getLogger(__name__)
_ONE_AT_A_TIME = threading.RLock()  # the settings of convolutions, and recording, are the process's

Work = Callable[[], object]


class Event(Protocol):
    """A moment in a queue."""

    def synchronize(self) -> None:
        """Wait until the queue has come to it."""
        ...


class Queue(Protocol):
    """Work done in order, beside other queues and beside Python."""

    def run(self, work: Work, after: Any = None) -> Event:
        """Enqueue, to be done when what was enqueued before is done and ``after``, an event of another queue, has come.

        Returns the moment at which it is done.
        """
        ...


class Device(Protocol):
    """What the runtime asks of a device."""

    copying: Queue
    computing: Queue

    def host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory of this machine that the device copies from and to beside Python; its content is undefined."""
        ...

    def memory(self, shape: tuple[int, ...], dtype: torch.dtype, *, channels_last: bool = False) -> Tensor:
        """Memory of the device, zeros, ready for both queues.

        Raises:
            torch.OutOfMemoryError: there is not enough.
        """
        ...

    def best_form(self, form: InferenceForm) -> nn.Module:
        """The network's form that suits the device best; the given one where nothing better works."""
        ...

    def capture(self, work: Work) -> Work:
        """Work on fixed memory, recorded: what is returned does it again in one step, on the computing queue.

        Raises:
            RuntimeError: it cannot be recorded (``torch.OutOfMemoryError``: for want of memory).
        """
        ...

    def settle(self) -> None:
        """Wait for all queues and give back memory that is no longer used."""
        ...


class CudaDevice:
    """A CUDA device (NVIDIA's, or AMD's by ROCm). See ``Device``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        copying, computing = (torch.cuda.Stream(device) for _ in range(2))  # type: ignore[no-untyped-call]
        self.copying: Queue = _Stream(copying)
        self.computing: Queue = _Stream(computing)
        self._stream = computing
        self._pool: Any = None
        self._pins = True

    def host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """See ``Device``; pinned where the system lets us, else copying waits for Python and Python for copying."""
        if self._pins:
            try:
                return torch.empty(shape, dtype=dtype, pin_memory=True)
            except RuntimeError as error:
                self._pins = False
                _LOG.warning("No pinned memory (%s): copying to %s will be slower", first_line(error), self._device)
        return torch.empty(shape, dtype=dtype)

    def memory(self, shape: tuple[int, ...], dtype: torch.dtype, *, channels_last: bool = False) -> Tensor:
        """See ``Device``."""
        order = torch.channels_last if channels_last else torch.contiguous_format
        with _on(self._stream):
            made = torch.empty(shape, dtype=dtype, device=self._device, memory_format=order).zero_()
        # It may have been another tensor's until now, with work on that still to be done; the other queue knows nothing
        # of that.
        self._stream.synchronize()
        return made

    def best_form(self, form: InferenceForm) -> nn.Module:
        """See ``Device``: with Triton's kernels where they work and agree with torch."""
        with _on(self._stream):
            fast = triton_form(form)
        self._stream.synchronize()
        return form if fast is None else fast

    def capture(self, work: Work) -> Work:
        """See ``Device``: a CUDA graph. All share their memory, which is right as they run one after the other."""
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        # Of the two contexts the outer one sets the stream back where the inner one fails to end. Threads that read
        # slides, or another runtime's, must not disturb the recording: hence thread_local.
        with _on(self._stream), torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay

    def settle(self) -> None:
        """See ``Device``. Graphs recorded before must be gone: their common memory is given up."""
        torch.cuda.synchronize(self._device)
        self._pool = None
        with torch.cuda.device(self._device):
            torch.cuda.empty_cache()


class _Stream:
    """A CUDA stream as ``Queue``."""

    def __init__(self, stream: torch.cuda.Stream) -> None:
        self._stream = stream

    def run(self, work: Work, after: Any = None) -> Event:
        """See ``Queue``."""
        with _on(self._stream):
            if after is not None:
                self._stream.wait_event(after)
            work()
            # blocking: who waits sleeps, and leaves the core to threads that decode
            event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            event.record(self._stream)
        return event


@contextmanager
def _on(stream: torch.cuda.Stream) -> Iterator[None]:
    """Work of this thread goes to the stream and its device. Convolutions are tried for the fastest way (their shapes
    recur), and fp32 is fp32: without TF32, which torch would allow them."""
    with (
        _ONE_AT_A_TIME,
        torch.cuda.stream(stream),
        torch.inference_mode(),
        torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False),
    ):
        yield


def triton_form(form: InferenceForm) -> nn.Module | None:
    """The form with Triton's kernels, on the form's device; None, and a line in the log, where they do not work."""
    try:
        from her2bridge.inference.runtime import triton_gates
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        _LOG.info("Without Triton (%s): gates are computed by torch, which takes longer", first_line(error))
        return None
    try:
        fast = triton_gates.TritonForm(form)
        deviation = fast.deviation()
    except triton_gates.FAILURES as error:
        _LOG.warning("Triton's kernels cannot be used (%s); torch's are", first_line(error))
        return None
    if not deviation <= 1.0:  # NaN too
        _LOG.warning("Triton's kernels are off by %.3g times what rounding explains; torch's are used", deviation)
        return None
    return fast
