"""The runtime for CUDA. Its way of working is tried on a device that is none: queues whose work is put off to the last
moment, which is the worst that a GPU could do. What is marked ``gpu`` runs on a real one."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from random_bundle import CARD, Hardware
from torch import Tensor, nn

from her2bridge.errors import DeviceUnavailable
from her2bridge.inference.runtime import cuda_runtime
from her2bridge.inference.runtime.choose import choose_runtime
from her2bridge.inference.runtime.cuda_device import CudaDevice, Device, Event, Work
from her2bridge.inference.runtime.cuda_runtime import CudaRuntime
from her2bridge.inference.runtime.room import Room, lacks_memory
from her2bridge.model.attention import GCT, Attention
from her2bridge.model.bundle import load_bundle
from her2bridge.model.inference_form import InferenceForm
from her2bridge.model.repvgg import A0_STAGES, NetworkSpec, Stage, build
from her2bridge.records import ByteArray, TileClass, TileSpec
from her2bridge.synth.tiles import render_tiles

SIZE = 32
ATTENTIONS: tuple[Attention, ...] = ("none", "gct", "se")
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB"


def bundle_of(
    attention: Attention = "gct", stages: tuple[Stage, ...] = (Stage(16, 1), Stage(24, 2)), size: int = SIZE
) -> Any:
    """A bundle with random weights whose gates and classes differ from tile to tile."""
    torch.manual_seed(5)
    network = build(NetworkSpec(stages=stages, attention=attention)).train()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
            if isinstance(module, GCT):
                module.gamma.normal_(0, 0.5)
                module.beta.normal_(0, 0.5)
        network(planes_of(tiles_of(8, 99, size)))
        network.head.weight.normal_(0, 3 / network.head.in_features**0.5)
    network.eval()
    return SimpleNamespace(card=CARD, spec=TileSpec(size, 0.25), temperature=1.5, network=lambda: network)


def tiles_of(count: int, seed: int = 0, size: int = SIZE) -> ByteArray:
    random = np.random.default_rng(seed)
    colours = random.integers(20, 240, (count, 1, 1, 3))
    return np.clip(colours + random.normal(0, 40, (count, size, size, 3)), 0, 255).astype(np.uint8)


def planes_of(tiles: ByteArray) -> Tensor:
    """Normalised as the card says, in numpy, fp32 [b, 3, h, w]."""
    mean, std = (np.array(CARD["transform"][key], np.float32) for key in ("mean", "std"))  # type: ignore[index]
    return torch.from_numpy(((tiles.astype(np.float32) / 255 - mean) / std).transpose(0, 3, 1, 2).copy())


def wanted(bundle: Any, tiles: ByteArray) -> np.ndarray[Any, Any]:
    """What the training form gives in fp32, at the bundle's temperature."""
    with torch.inference_mode():
        return np.asarray((bundle.network()(planes_of(tiles)) / bundle.temperature).softmax(dim=1))


class Moment:
    def __init__(self, queue: LateQueue, number: int) -> None:
        self._queue, self._number = queue, number

    def synchronize(self) -> None:
        self._queue.advance(self._number)


class LateQueue:
    """Does nothing before somebody waits for it; or, ``at_once``, everything at once."""

    def __init__(self, at_once: bool = False) -> None:
        self.at_once = at_once
        self.given: list[tuple[Work, Event | None]] = []
        self.done = 0
        self.before: Callable[[], None] = lambda: None

    def run(self, work: Work, after: Any = None) -> Moment:
        self.before()
        self.given.append((work, after))
        if self.at_once:
            self.advance(len(self.given))
        return Moment(self, len(self.given))

    def advance(self, number: int) -> None:
        while self.done < number:
            work, after = self.given[self.done]
            if after is not None:
                after.synchronize()
            with torch.inference_mode():
                work()
            self.done += 1


class LateDevice:
    """A ``Device`` of this process's memory.

    Attributes:
        fails: asked at each step, by name, whether it fails.
        recorded: how many forms were.
        settled: how often all was waited for.
    """

    def __init__(self, *, copies_at_once: bool = False, computes_at_once: bool = False) -> None:
        self.copying, self.computing = LateQueue(copies_at_once), LateQueue(computes_at_once)
        self.copying.before = lambda: self.fails("copy")
        self.computing.before = lambda: self.fails("compute")
        self.fails: Callable[[str], None] = lambda step: None
        self.recorded = 0
        self.settled = 0

    def host(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        self.fails("host")
        return torch.full(shape, 77, dtype=dtype)

    def memory(self, shape: tuple[int, ...], dtype: torch.dtype, *, channels_last: bool = False) -> Tensor:
        self.fails(f"memory for {shape[0]}")
        order = torch.channels_last if channels_last else torch.contiguous_format
        with torch.inference_mode():
            return torch.empty(shape, dtype=dtype, memory_format=order).zero_()

    def best_form(self, form: InferenceForm) -> nn.Module:
        return form

    def capture(self, work: Work) -> Work:
        """Like a CUDA graph, it does not do the work, only records it."""
        self.fails("capture")
        assert self.computing.done == len(self.computing.given)  # warmed up
        self.recorded += 1
        return work

    def settle(self) -> None:
        self.copying.advance(len(self.copying.given))
        self.computing.advance(len(self.computing.given))
        self.settled += 1


def runtime_on(device: Device, bundle: Any, precision: str = "fp32") -> CudaRuntime:
    return CudaRuntime(bundle, torch.device("cpu"), precision, device)


class Once:
    """Fails when a step of that name comes for the ``number``-th time."""

    def __init__(self, step: str, number: int, error: Callable[[], Exception]) -> None:
        self._step, self._number, self._error = step, number, error

    def __call__(self, step: str) -> None:
        if step == self._step:
            self._number -= 1
            if self._number == 0:
                raise self._error()


class TestWay:
    @pytest.mark.parametrize("attention", ATTENTIONS)
    def test_equals_the_plain_network(self, attention: Attention) -> None:
        bundle, tiles = bundle_of(attention), tiles_of(5)
        runtime = runtime_on(LateDevice(), bundle)
        got = runtime(tiles)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, wanted(bundle, tiles), atol=1e-4)
        assert got.std(axis=0).min() > 1e-3  # so that one tile cannot pass for another
        assert runtime(tiles[:0]).shape == (0, 6)
        assert (runtime.device, runtime.precision) == ("cpu", "fp32")

    def test_starting_waits_for_nothing(self) -> None:
        device, bundle = LateDevice(), bundle_of()
        runtime = runtime_on(device, bundle)
        runtime(tiles_of(8))  # the size is known now
        before = device.computing.done
        pending = [runtime.start(tiles_of(8, seed)) for seed in range(runtime.depth)]
        assert device.computing.done == before
        assert len(device.computing.given) == before + runtime.depth
        pending[0]()
        assert device.computing.done == before + 1

    @pytest.mark.parametrize("copies_at_once", [False, True])
    @pytest.mark.parametrize("order", ["first come", "last first"])
    def test_batches_under_way_do_not_disturb_each_other(self, copies_at_once: bool, order: str) -> None:
        """More of them than there are buffers, of several sizes, one after the other forgotten by its owner."""
        device, bundle = LateDevice(copies_at_once=copies_at_once), bundle_of()
        runtime = runtime_on(device, bundle)
        batches = [tiles_of(count, seed) for seed, count in enumerate([6, 6, 4, 6, 1, 9, 6, 6])]
        pending = [runtime.start(tiles) for tiles in batches]
        numbers = list(range(len(batches)))
        for number in numbers if order == "first come" else reversed(numbers):
            np.testing.assert_allclose(pending[number](), wanted(bundle, batches[number]), atol=1e-4)

    def test_tiles_as_they_come(self) -> None:
        """Not in one piece, and not to be written to."""
        bundle, tiles = bundle_of(), tiles_of(8)
        tiles.flags.writeable = False
        np.testing.assert_allclose(
            runtime_on(LateDevice(), bundle)(tiles[::2]), wanted(bundle, tiles[::2].copy()), atol=1e-4
        )

    def test_a_small_batch_borrows_a_larger_ones_form(self) -> None:
        device, bundle = LateDevice(), bundle_of()
        runtime = runtime_on(device, bundle)
        for count, forms in [(20, 1), (20, 1), (12, 1), (11, 2), (24, 2), (25, 3), (16, 3), (3, 4), (1, 5), (8, 5)]:
            tiles = tiles_of(count, count)
            np.testing.assert_allclose(runtime(tiles), wanted(bundle, tiles), atol=1e-4)
            assert device.recorded == forms, count

    @pytest.mark.parametrize("precision", ["bf16", "fp16"])
    def test_half_precision(self, precision: str) -> None:
        bundle, tiles = bundle_of(), tiles_of(6)
        got = runtime_on(LateDevice(), bundle, precision)(tiles)
        np.testing.assert_allclose(got, wanted(bundle, tiles), atol=0.05)
        assert np.abs(got - wanted(bundle, tiles)).max() > 1e-5  # it was not fp32


class TestOutOfMemory:
    @pytest.mark.parametrize(
        ("step", "number"),
        [
            ("memory for 8", 1),  # the network's input
            ("memory for 8", 3),  # the pixels
            ("copy", 1),
            ("copy", 3),
            ("compute", 1),  # warming up
            ("compute", 4),  # the first batch
            ("compute", 6),  # the third
            ("capture", 1),
        ],
    )
    def test_batches_are_halved_and_none_is_lost(
        self, step: str, number: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        device, bundle = LateDevice(), bundle_of()
        runtime = runtime_on(device, bundle)
        settled = device.settled
        device.fails = Once(step, number, lambda: torch.OutOfMemoryError(OUT_OF_MEMORY))
        batches = [tiles_of(8, seed) for seed in range(4)]
        pending = [runtime.start(tiles) for tiles in batches]
        for tiles, result in zip(batches, pending, strict=True):
            np.testing.assert_allclose(result(), wanted(bundle, tiles), atol=1e-4)
        assert device.settled == settled + 1
        assert runtime._room.largest == 4
        assert caplog.messages == ["GPU memory is too small for 8 tiles at once; going on with 4"]
        assert max(len(form.planes) for form in runtime._forms.values()) == 4

    def test_as_often_as_it_takes(self) -> None:
        device, bundle = LateDevice(computes_at_once=True), bundle_of()
        runtime = runtime_on(device, bundle)

        def memory_for_two(step: str) -> None:
            if step.startswith("memory for") and int(step.rpartition(" ")[2]) > 2:
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)

        device.fails = memory_for_two
        tiles = tiles_of(11)
        np.testing.assert_allclose(runtime(tiles), wanted(bundle, tiles), atol=1e-4)
        assert runtime._room.largest == 2
        settled = device.settled
        np.testing.assert_allclose(runtime(tiles), wanted(bundle, tiles), atol=1e-4)
        assert device.settled == settled  # remembered

    def test_not_even_one_tile(self) -> None:
        device = LateDevice()
        runtime = runtime_on(device, bundle_of())

        def full(step: str) -> None:
            if step.startswith("memory"):
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)

        device.fails = full
        with pytest.raises(DeviceUnavailable) as error:
            runtime(tiles_of(3))
        assert "--device cpu" in error.value.next_step

    def test_another_error_is_not_taken_for_it(self) -> None:
        device = LateDevice()
        runtime = runtime_on(device, bundle_of())
        device.fails = Once("compute", 1, lambda: RuntimeError("CUDA error: an illegal memory access"))
        with pytest.raises(RuntimeError, match="illegal"):
            runtime(tiles_of(3))

    def test_what_it_arose_from_counts(self) -> None:
        """A recording that memory ended fails a second time when it is closed."""

        def record() -> None:
            try:
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)
            finally:
                raise RuntimeError("capture failed")

        with pytest.raises(RuntimeError, match="capture failed") as error:
            record()
        assert lacks_memory(error.value)
        assert lacks_memory(RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"))
        assert not lacks_memory(RuntimeError("capture failed"))
        assert not lacks_memory(None)

    def test_room(self) -> None:
        room = Room("cuda:0")
        assert room.fit(1000) == 1000
        room.halve(9, MemoryError())
        assert (room.fit(1000), room.fit(3)) == (4, 3)
        assert Room("cpu", 8).fit(9) == 8


class TestRecording:
    def test_what_cannot_be_recorded_is_launched(self, caplog: pytest.LogCaptureFixture) -> None:
        device, bundle = LateDevice(), bundle_of()
        runtime = runtime_on(device, bundle)
        tries: list[str] = []

        def unrecordable(step: str) -> None:
            if step == "capture":
                tries.append(step)
                raise RuntimeError("operation not permitted when stream is capturing\nmore")

        device.fails = unrecordable
        for count in (3, 30, 3):
            tiles = tiles_of(count, count)
            np.testing.assert_allclose(runtime(tiles), wanted(bundle, tiles), atol=1e-4)
        assert len(tries) == 1
        assert caplog.messages == [
            "No CUDA graph could be recorded (operation not permitted when stream is capturing); "
            "going on without, which is slower"
        ]


def test_cuda_gets_its_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_runtime, "CudaRuntime", lambda bundle, device, precision: (str(device), precision))
    assert choose_runtime(bundle_of(), "cuda:1", hardware=Hardware(2)) == ("cuda:1", "fp16")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
class TestGpu:
    """On a real device: `pytest -m gpu tests/inference`, some minutes on an H200."""

    @pytest.mark.parametrize("attention", ATTENTIONS)
    @pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-3), ("fp16", 0.05), ("bf16", 0.15)])
    def test_equals_fp32_on_the_cpu(self, attention: Attention, precision: str, tolerance: float) -> None:
        """A whole and a small batch; A0 in full size."""
        bundle, tiles = bundle_of(attention, A0_STAGES, 256), tiles_of(24, size=256)
        runtime = choose_runtime(bundle, "cuda", precision, require_gpu=True)
        assert isinstance(runtime, CudaRuntime)
        assert (runtime.device, runtime.precision) == ("cuda:0", precision)
        expected = wanted(bundle, tiles)
        for count in (24, 13, 1):
            np.testing.assert_allclose(runtime(tiles[:count]), expected[:count], atol=tolerance)
        assert runtime._records, "no graph was recorded"

    def test_triton_works_here(self, caplog: pytest.LogCaptureFixture) -> None:
        """Where it does not, the runtime goes on without; the reason is in the log."""
        pytest.importorskip("triton")
        runtime = CudaRuntime(bundle_of("gct", A0_STAGES, 256), torch.device("cuda:0"), "bf16")
        assert type(runtime._network).__name__ == "TritonForm", caplog.text

    @pytest.mark.parametrize("attention", ATTENTIONS)
    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_the_ways_agree(self, attention: Attention, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """With graphs and without them, with Triton and without it."""
        bundle, tiles = bundle_of(attention, A0_STAGES, 256), tiles_of(16, size=256)
        device = torch.device("cuda:0")
        recorded, launched = (CudaRuntime(bundle, device, precision) for _ in range(2))
        launched._records = False
        # Each tries ways to convolve and takes the fastest, which need not be the same: hence not to the bit.
        near = 1e-4 if precision == "fp32" else 0.05
        np.testing.assert_allclose(recorded(tiles), launched(tiles), atol=near)
        monkeypatch.setattr(CudaDevice, "best_form", lambda self, form: form)
        np.testing.assert_allclose(recorded(tiles), CudaRuntime(bundle, device, precision)(tiles), atol=near)

    def test_many_batches_under_way(self) -> None:
        """Each must come back with its own tiles' results, whatever else is on its way."""
        bundle = bundle_of("gct", A0_STAGES, 256)
        runtime = CudaRuntime(bundle, torch.device("cuda:0"), "fp32")
        batches = [tiles_of(count, seed, 256) for seed, count in enumerate([64, 64, 37, 64, 5, 64, 64, 20])]
        alone = [runtime(tiles) for tiles in batches]
        for _ in range(5):
            pending = [runtime.start(tiles) for tiles in batches]  # more than depth: the oldest are waited for
            for result, expected in zip(pending, alone, strict=True):
                np.testing.assert_allclose(result(), expected, atol=1e-5)

    def test_two_runtimes_on_one_device(self) -> None:
        bundles = [bundle_of(attention, A0_STAGES, 256) for attention in ("gct", "se")]
        runtimes = [CudaRuntime(bundle, torch.device("cuda:0"), "bf16") for bundle in bundles]
        tiles = tiles_of(32, size=256)
        alone = [runtime(tiles) for runtime in runtimes]
        with ThreadPoolExecutor(2) as pool:
            for _ in range(10):
                for got, expected in zip(pool.map(lambda r: r(tiles), runtimes), alone, strict=True):
                    np.testing.assert_allclose(got, expected, atol=1e-5)

    def test_memory_runs_out(self, caplog: pytest.LogCaptureFixture) -> None:
        """Most of the device's memory is taken; results are those of an empty device."""
        bundle, tiles = bundle_of("gct", A0_STAGES, 256), tiles_of(256, size=256)
        device = torch.device("cuda:0")
        expected = CudaRuntime(bundle, device, "fp32")(tiles)
        runtime = CudaRuntime(bundle, device, "fp32")
        runtime(tiles[:8])  # libraries are loaded
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        try:
            torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + 2**29) / total, device)
            pending = [runtime.start(tiles) for _ in range(4)]
            for result in pending:
                np.testing.assert_allclose(result(), expected, atol=1e-3)
            assert "GPU memory is too small for 256 tiles" in caplog.text
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)
            torch.cuda.empty_cache()

    def test_classes_stay(self) -> None:
        """The shipped bundle on drawn tiles: at most 0.2 % get another class than in fp32."""
        bundle, random = load_bundle(), np.random.default_rng(1)
        tiles = np.concatenate([render_tiles(one, 350, random) for one in TileClass])
        classes = {}
        for precision in ("fp32", "bf16", "fp16"):
            runtime = choose_runtime(bundle, "cuda", precision, require_gpu=True)
            found = [runtime(tiles[first : first + 256]) for first in range(0, len(tiles), 256)]
            classes[precision] = np.concatenate(found).argmax(axis=1)
        assert len(np.unique(classes["fp32"])) == 6
        for precision in ("bf16", "fp16"):
            assert np.mean(classes[precision] != classes["fp32"]) <= 0.002, precision
