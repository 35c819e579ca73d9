"""The network on a CUDA device: copying, computing and Python side by side.

A batch goes its way without anyone waiting: uint8 tiles into pinned memory, from there to the device on one queue,
normalised and classified on another, logits into pinned memory. Python waits only for a result. Batches of one size
recur, so the network's hundred launches are recorded once for a size, as a CUDA graph; a smaller batch, a slide's last,
borrows the graph of a size up to twice its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from her2bridge.inference.runtime.base import Pending, normalisation, softmax
from her2bridge.inference.runtime.cuda_device import CudaDevice, Device, Event
from her2bridge.inference.runtime.room import Room, lacks_memory
from her2bridge.inference.runtime.torch_runtime import DTYPES
from her2bridge.model.bundle import Bundle
from her2bridge.model.inference_form import inference_form
from her2bridge.records import ByteArray, Float32Array

_LOG = logging.getLogger(__name__)
_WARM_UPS = 3
_ROUNDED_TO = 8  # sizes are multiples: a slide's last batches share them


class CudaRuntime:
    """A bundle's network, fused, its attention made cheap. See ``Runtime``.

    Where the device's memory does not hold a batch, batches are halved, and stay so; what was under way is not lost.
    ``fp32`` is fp32: TF32, which torch would use for convolutions, is kept out, so that it can be what others are
    compared with; who wants speed takes ``bf16``.
    """

    depth = 3

    def __init__(self, bundle: Bundle, device: torch.device, precision: str, cuda: Device | None = None) -> None:
        """``precision`` is one of fp32, bf16, fp16, known to run on the device; ``cuda`` is for tests."""
        self.name = f"torch {torch.__version__}"
        self.device = str(device)
        self.precision = precision
        self._cuda = cuda or CudaDevice(device)
        self._dtype = DTYPES[precision]
        self._scale, self._shift = (torch.from_numpy(v).view(1, 3, 1, 1).to(device) for v in normalisation(bundle.card))
        form = inference_form(bundle.network(), self._dtype).to(device)
        self._cuda.settle()  # the weights are there before another queue reads them
        self._network = self._cuda.best_form(form)
        self._size_px, self._classes = bundle.spec.size_px, form.head.out_features
        self._temperature = bundle.temperature
        self._room = Room(self.device)
        self._slots = [_Slot() for _ in range(self.depth)]
        self._turn = 0
        self._forms: dict[int, _Form] = {}
        self._records = True

    def __call__(self, tiles: ByteArray) -> Float32Array:
        """See ``Runtime``.

        Raises:
            DeviceUnavailable: the device's memory does not hold one tile.
        """
        return self.start(tiles)()

    def start(self, tiles: ByteArray) -> Pending:
        """See ``Runtime``; it returns while the device works. Raises as ``__call__`` does."""
        parts: list[_Part] = []
        first = 0
        while first < len(tiles):
            part = tiles[first : first + self._room.fit(len(tiles) - first)]
            lacking: BaseException | None = None
            try:
                parts.append(self._send(part))
                first += len(part)
            except RuntimeError as error:
                if not lacks_memory(error):
                    raise
                lacking = error.with_traceback(None)  # whose frames would keep the memory
            if lacking is not None:
                self._make_room(len(part), lacking)
        return lambda: np.concatenate([np.empty((0, self._classes), np.float32), *(part.take() for part in parts)])

    def _send(self, tiles: ByteArray) -> _Part:
        """Some tiles on their way; returns at once, unless all slots are taken or a size comes for the first time."""
        count = len(tiles)
        slot = self._slots[self._turn]
        slot.free()
        form = self._form(count)
        pixels, host, answer = self._buffers(slot, count)
        host.copy_(torch.from_numpy(np.require(tiles, np.uint8, ["C", "W"])))
        sent = self._cuda.copying.run(lambda: pixels.copy_(host, non_blocking=True))

        def compute() -> None:
            # [b, h, w, 3] seen as [b, 3, h, w] is channels last already. What lies behind a small batch in the form's
            # planes is of batches before: computed along and not looked at.
            torch.addcmul(self._shift, pixels.permute(0, 3, 1, 2), self._scale, out=form.planes[:count])
            form.run()
            answer.copy_(form.logits[:count], non_blocking=True)

        done = self._cuda.computing.run(compute, after=sent)
        slot.holder = _Part(answer, done, self._temperature)
        self._turn = (self._turn + 1) % len(self._slots)
        return slot.holder

    def _buffers(self, slot: _Slot, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The slot's pixels on the device and on the host, and its answer on the host, for ``count`` tiles."""
        if slot.buffers is None or len(slot.buffers[0]) < count:
            slot.buffers = None  # given up before more is asked for
            shape = (count, self._size_px, self._size_px, 3)
            slot.buffers = (
                self._cuda.memory(shape, torch.uint8),
                self._cuda.host(shape, torch.uint8),
                self._cuda.host((count, self._classes), torch.float32),
            )
        pixels, host, answer = slot.buffers
        return pixels[:count], host[:count], answer[:count]

    def _form(self, count: int) -> _Form:
        """The network ready for ``count`` tiles, or for up to twice as many."""
        size = min((known for known in self._forms if count <= known <= 2 * count), default=0)
        if not size:
            size = self._room.fit(-(-count // _ROUNDED_TO) * _ROUNDED_TO)
            self._forms[size] = self._make_form(size)
        return self._forms[size]

    def _make_form(self, size: int) -> _Form:
        """Memory for ``size`` tiles, and the network on it: recorded where that works, else launch after launch."""
        planes = self._cuda.memory((size, 3, self._size_px, self._size_px), self._dtype, channels_last=True)
        logits = self._cuda.memory((size, self._classes), torch.float32)

        def classify() -> None:
            logits.copy_(self._network(planes))

        for _ in range(_WARM_UPS):
            self._cuda.computing.run(classify).synchronize()
        run: Callable[[], object] = classify
        if self._records:
            try:
                run = self._cuda.capture(classify)
            except RuntimeError as error:
                if lacks_memory(error):
                    raise
                self._records = False
                told = (str(error).splitlines() or [""])[0]
                _LOG.warning("No CUDA graph could be recorded (%s); going on without, which is slower", told)
        return _Form(planes, logits, run)

    def _make_room(self, size: int, error: BaseException) -> None:
        """After ``size`` tiles did not fit: take what is under way to its end, give up all memory, halve."""
        for slot in self._slots:
            slot.free()
            slot.buffers = None
        self._forms.clear()
        self._cuda.settle()
        self._room.halve(size, error)


@dataclass(frozen=True, eq=False)
class _Form:
    """The network for batches up to one size.

    Attributes:
        planes: where its input is put, [size, 3, h, w], normalised, channels last, in the runtime's precision.
        logits: where its output will be, float32 [size, classes].
        run: computes one from the other, on the computing queue.
    """

    planes: Tensor
    logits: Tensor
    run: Callable[[], object]


class _Part:
    """Tiles on their way that share a slot."""

    def __init__(self, answer: Tensor, done: Event, temperature: float) -> None:
        self._answer, self._done, self._temperature = answer, done, temperature
        self._result: Float32Array | None = None

    def take(self) -> Float32Array:
        """Wait for the probabilities, float32 [b, classes]."""
        if self._result is None:
            self._done.synchronize()
            self._result = softmax(self._answer.numpy(), self._temperature)
        return self._result


class _Slot:
    """Buffers that one batch after the other uses.

    Attributes:
        buffers: pixels on the device, pixels on the host, logits on the host; None before it is first used.
        holder: who uses them, or used them last.
    """

    def __init__(self) -> None:
        self.buffers: tuple[Tensor, Tensor, Tensor] | None = None
        self.holder: _Part | None = None

    def free(self) -> None:
        """Wait until nobody needs the buffers any more."""
        if self.holder is not None:
            self.holder.take()
            self.holder = None
