from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coordinate_slide import write_slide
from random_bundle import Hardware, plain, random_bundle, some_tiles
from shapely.geometry import box

from her2bridge.errors import BundleDamaged, DeviceUnavailable, UsageError
from her2bridge.inference.engine import SlideJob, predict_slide
from her2bridge.inference.runtime import base, choose, openvino_runtime, torch_runtime
from her2bridge.inference.runtime.base import normalisation, softmax
from her2bridge.inference.runtime.choose import choose_runtime
from her2bridge.inference.runtime.torch_runtime import TorchRuntime, resolve_device, resolve_precision
from her2bridge.records import ByteArray, Region, SlideSource
from her2bridge.slides import open_slide
from her2bridge.tiling import make_grid


@pytest.fixture(scope="module")
def bundle() -> Any:
    """Random weights, with statistics of their own, so that classes differ from tile to tile."""
    return random_bundle()


class TestBase:
    def test_softmax(self) -> None:
        logits = np.array([[1000, 0, 0], [0, 0, 0], [-5, 2, 1]], dtype=np.float32)
        expected = torch.from_numpy(logits).softmax(dim=1).numpy()
        np.testing.assert_allclose(softmax(logits), expected, rtol=1e-6)
        assert softmax(np.empty((0, 6), np.float32)).shape == (0, 6)

    def test_a_temperature_cools_the_softmax(self) -> None:
        logits = np.array([[4.0, 0.0, -2.0]], dtype=np.float32)
        np.testing.assert_allclose(softmax(logits, 2.0), softmax(logits / 2), rtol=1e-6)

    @pytest.mark.parametrize(("cores", "size"), [(1, 8), (2, 8), (16, 64), (64, 256)])
    def test_a_batch_gives_every_core_some_tiles(self, cores: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(base, "available_cores", lambda: cores)
        assert base.usual_batch_size("cpu") == size
        assert base.usual_batch_size("cuda:3") == base.usual_batch_size("cuda") == 256

    @pytest.mark.parametrize("make", [TorchRuntime, openvino_runtime.OpenVinoRuntime], ids=["torch", "openvino"])
    def test_runtimes_heed_the_bundles_temperature(self, make: Any) -> None:
        tiles = some_tiles(3)
        arguments = (torch.device("cpu"), "fp32") if make is TorchRuntime else ("fp32",)
        plain, cool = (make(random_bundle(temperature), *arguments)(tiles) for temperature in (1.0, 2.0))
        expected = plain**0.5 / (plain**0.5).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(cool, expected, atol=2e-4)
        assert np.abs(cool - plain).max() > 0.01

    @pytest.mark.parametrize("transform", [None, {}, {"mean": [1, 1, 1], "std": [1, 0, 1]}, {"mean": [0], "std": [1]}])
    def test_no_transform(self, transform: Any) -> None:
        with pytest.raises(BundleDamaged) as error:
            normalisation({"name": "tiny", "transform": transform})
        assert "tiny" in error.value.where


class TestDevice:
    @pytest.mark.parametrize(
        ("wanted", "hardware", "device"),
        [
            ("auto", Hardware(2, mps=True), "cuda:0"),
            ("auto", Hardware(mps=True), "mps"),
            ("auto", Hardware(), "cpu"),
            ("cpu", Hardware(1), "cpu"),
            ("cuda", Hardware(1), "cuda:0"),
            ("cuda:1", Hardware(2), "cuda:1"),
            ("mps", Hardware(mps=True), "mps"),
        ],
    )
    def test_here(self, wanted: str, hardware: Hardware, device: str) -> None:
        assert str(resolve_device(wanted, False, hardware)) == device

    @pytest.mark.parametrize(
        ("wanted", "require_gpu", "hardware"),
        [
            ("auto", True, Hardware()),
            ("cuda", False, Hardware(mps=True)),
            ("cuda:1", False, Hardware(1)),
            ("mps", False, Hardware(1)),
        ],
    )
    def test_not_here_says_what_is(self, wanted: str, require_gpu: bool, hardware: Hardware) -> None:
        with pytest.raises(DeviceUnavailable) as error:
            resolve_device(wanted, require_gpu, hardware)
        assert "cpu" in error.value.next_step
        assert ("cuda:0 (NVIDIA Made Up)" in error.value.next_step) == bool(hardware.cuda_devices())

    @pytest.mark.parametrize("wanted", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "xpu:0", ""])
    def test_no_such_name(self, wanted: str) -> None:
        with pytest.raises(UsageError):
            resolve_device(wanted, False, Hardware(1))

    def test_contradiction(self) -> None:
        with pytest.raises(UsageError):
            resolve_device("cpu", True, Hardware(1))


class TestPrecision:
    @pytest.mark.parametrize(
        ("wanted", "device", "hardware", "precision"),
        [
            ("auto", "cuda:0", Hardware(1), "fp16"),
            ("bf16", "cuda:0", Hardware(1), "bf16"),
            ("auto", "cuda:0", Hardware(1, capability=7), "fp16"),
            ("auto", "cuda:0", Hardware(1, capability=6), "fp32"),
            ("fp16", "cuda:0", Hardware(1, capability=6), "fp16"),
            ("auto", "cpu", Hardware(cpu_bf16=True), "bf16"),
            ("auto", "cpu", Hardware(), "fp32"),
            ("fp32", "cpu", Hardware(cpu_bf16=True), "fp32"),
            ("auto", "mps", Hardware(mps=True), "fp32"),
        ],
    )
    def test_chosen(self, wanted: str, device: str, hardware: Hardware, precision: str) -> None:
        assert resolve_precision(wanted, torch.device(device), hardware) == precision

    @pytest.mark.parametrize(
        ("wanted", "device", "hardware"),
        [
            ("fp16", "cpu", Hardware(cpu_bf16=True)),
            ("bf16", "cpu", Hardware()),
            ("bf16", "cuda:0", Hardware(1, capability=7)),
            ("bf16", "mps", Hardware(mps=True)),
            ("int8", "cpu", Hardware()),
        ],
    )
    def test_refused(self, wanted: str, device: str, hardware: Hardware) -> None:
        with pytest.raises(UsageError) as error:
            resolve_precision(wanted, torch.device(device), hardware)
        assert "fp32" in error.value.next_step


class TestTorch:
    def test_equals_the_plain_network(self, bundle: Any) -> None:
        tiles = some_tiles(5)
        runtime = TorchRuntime(bundle, torch.device("cpu"), "fp32")
        got = runtime(tiles)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, plain(bundle, tiles), atol=2e-4)
        np.testing.assert_allclose(got.sum(axis=1), 1, rtol=1e-5)
        assert runtime(tiles[:0]).shape == (0, 6)
        assert (runtime.device, runtime.precision) == ("cpu", "fp32")

    def test_out_of_memory_halves_the_batch(self, bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime = TorchRuntime(bundle, torch.device("cpu"), "fp32")
        at_first = runtime._room.fit(10)
        seen: list[int] = []

        def small_memory(tiles: ByteArray) -> np.ndarray[Any, Any]:
            seen.append(len(tiles))
            if len(tiles) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return np.asarray(tiles[:, 0, 0, :1].astype(np.float32) * np.arange(6, dtype=np.float32) / 100)

        tiles = some_tiles(10)
        monkeypatch.setattr(runtime, "_logits", small_memory)
        got = runtime(tiles)
        assert seen[:3] == [at_first, at_first // 2, at_first // 4]
        assert max(seen[3:]) <= 3
        expected = softmax(tiles[:, 0, 0, :1].astype(np.float32) * np.arange(6) / 100)
        np.testing.assert_allclose(got, expected, rtol=1e-5)
        seen.clear()
        runtime(tiles)
        assert max(seen) <= 3  # remembered

    def test_not_even_one_tile(self, bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        runtime = TorchRuntime(bundle, torch.device("cpu"), "fp32")

        def no_memory(tiles: ByteArray) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory")

        monkeypatch.setattr(runtime, "_logits", no_memory)
        with pytest.raises(DeviceUnavailable) as error:
            runtime(some_tiles(3))
        assert "--device cpu" in error.value.next_step

    def test_a_real_network_on_a_real_slide(self, bundle: Any, tmp_path: Path) -> None:
        strip = np.concatenate(list(some_tiles(6)), axis=1)
        source = SlideSource(write_slide(tmp_path / "s.tif", strip, tile=256))
        grid = make_grid([Region("id", None, "Tumor", box(0, 0, 1536, 256))], bundle.spec, 0.25, (1536, 256))
        runtime = TorchRuntime(bundle, torch.device("cpu"), "fp32")
        predictions = predict_slide(SlideJob(source, grid), runtime, batch_size=4)
        with open_slide(source) as slide:
            tiles = np.stack([slide.read(256 * i, 0, 256, 256, 256, 256) for i in range(6)])
        np.testing.assert_allclose(predictions.probabilities, plain(bundle, tiles), atol=2e-4)


class TestChoose:
    def test_unknown(self, bundle: Any) -> None:
        with pytest.raises(UsageError):
            choose_runtime(bundle, runtime="onnx")

    @pytest.mark.parametrize(
        ("platform", "torch_version", "loads_torch"),
        [
            ("linux", "2.13.0+cpu", False),
            ("win32", "2.13.0+cpu", False),
            ("darwin", "2.13.0+cpu", True),  # it may see Apple's GPU
            ("linux", "2.13.0", True),  # PyPI's, built for CUDA
            ("linux", "2.13.0+cu130", True),
            ("linux", None, True),  # not installed as a package
        ],
    )
    def test_torch_is_asked_for_gpus_unless_it_can_see_none(
        self, platform: str, torch_version: str | None, loads_torch: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def version(name: str) -> str:
            if torch_version is None:
                raise choose.metadata.PackageNotFoundError(name)
            return torch_version

        monkeypatch.setattr(choose.metadata, "version", version)
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(torch, "__version__", "2.13.0")
        monkeypatch.setattr(torch_runtime, "TorchHardware", lambda: Hardware(1))
        assert choose._place("auto", False, None) == ("cuda:0" if loads_torch else "cpu")
        assert choose._place("cpu", False, None) == "cpu"
        assert choose._place("cuda", False, None) == "cuda:0"
        assert choose._place("auto", True, None) == "cuda:0"
        with pytest.raises(UsageError):
            choose._place("cpu", True, None)

    def test_hardware_answers(self) -> None:
        """The questions put to torch exist: private ones may go, and then the answer is fp32."""
        hardware = torch_runtime.TorchHardware()
        assert len(hardware.cuda_devices()) == torch.cuda.device_count()
        assert hardware.cpu_has_bf16() in (True, False)
        assert hardware.has_mps() in (True, False)
