from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_bundle import Hardware, plain, random_bundle, some_tiles

from her2bridge.errors import UsageError
from her2bridge.inference.runtime import openvino_runtime
from her2bridge.inference.runtime.choose import choose_runtime
from her2bridge.model.attention import Attention


@pytest.fixture(scope="module")
def bundle() -> Any:
    """Random weights, with statistics of their own, so that classes differ from tile to tile."""
    return random_bundle()


@pytest.mark.skipif(not openvino_runtime.is_installed(), reason="the extra openvino is not installed")
class TestOpenVino:
    def test_fp32_equals_torch(self, bundle: Any) -> None:
        tiles = some_tiles(5)
        runtime = choose_runtime(bundle, "cpu", "fp32", runtime="openvino")
        np.testing.assert_allclose(runtime(tiles), plain(bundle, tiles), atol=2e-4)
        np.testing.assert_allclose(runtime(tiles[:1]), plain(bundle, tiles[:1]), atol=2e-4)
        assert runtime(tiles[:0]).shape == (0, 6)
        assert runtime.name.startswith("OpenVINO 20")

    @pytest.mark.parametrize("attention", ["none", "gct", "se"])
    @pytest.mark.parametrize("size", [64, 256])
    def test_equals_the_plain_network(self, attention: Attention, size: int) -> None:
        bundle = random_bundle(attention=attention, size=size)
        tiles = np.ascontiguousarray(some_tiles(5)[:, :size, 256 - size :])
        got = openvino_runtime.OpenVinoRuntime(bundle, "fp32")(tiles)
        np.testing.assert_allclose(got, plain(bundle, tiles), atol=2e-4)

    def test_several_batches_under_way(self, bundle: Any) -> None:
        """More tiles than there are requests, batches of unequal sizes, one of them never asked for."""
        runtime = openvino_runtime.OpenVinoRuntime(bundle, "fp32")
        batches = [some_tiles(count, seed=count) for count in (9, 1, 0, 3, 6)]
        pending = [runtime.start(tiles) for tiles in batches]
        for index in (0, 2, 3, 4):
            np.testing.assert_allclose(pending[index](), plain(bundle, batches[index]), atol=2e-4)
        np.testing.assert_allclose(runtime(batches[3]), plain(bundle, batches[3]), atol=2e-4)

    def test_many_cores_take_several_tiles_at_once(self, bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(openvino_runtime, "_MANY_CORES", 0)
        runtime = openvino_runtime.OpenVinoRuntime(bundle, "fp32")
        tiles = some_tiles(6)  # the last two fill half of what is computed
        np.testing.assert_allclose(runtime(tiles), plain(bundle, tiles), atol=2e-4)

    def test_a_network_that_openvino_refuses(self, bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def build_model(*_: Any) -> None:
            raise RuntimeError("unknown operator")

        monkeypatch.setattr(openvino_runtime, "build_model", build_model)
        with pytest.raises(UsageError) as error:
            choose_runtime(bundle, "cpu", "fp32", runtime="openvino")
        assert "unknown operator" in error.value.what

    @pytest.mark.parametrize(
        ("runtime", "remembers"), [("openvino", []), ("auto", [".cache", "her2bridge", "runtimes.json"])]
    )
    def test_connects_nowhere_and_writes_what_it_remembers_only(
        self, runtime: str, remembers: list[str], tmp_path: Path
    ) -> None:
        """OpenVINO's telemetry speaks to the network and writes to the home folder unless it is kept out."""
        code = (
            "import pathlib, socket, sys\n"
            "def refuse(*_): pathlib.Path.home().joinpath('socket').touch()\n"  # telemetry swallows what it is thrown
            "socket.socket.connect = socket.getaddrinfo = refuse\n"
            "import numpy as np\n"
            "from her2bridge.inference.runtime import fastest\n"
            "from her2bridge.inference.runtime.choose import choose_runtime\n"
            "from her2bridge.model.bundle import load_bundle\n"
            "fastest.usual_batch_size, fastest._is_busy = (lambda device: 1), (lambda: False)\n"
            f"runtime = choose_runtime(load_bundle(), 'cpu', 'fp32', runtime={runtime!r})\n"
            "print(runtime(np.zeros((1, 256, 256, 3), np.uint8)).shape)\n"
            "assert 'openvino' in sys.modules and sys.modules['openvino_telemetry'] is None\n"
        )
        home = tmp_path / "home"
        home.mkdir()
        environment = {"HOME": str(home), "USERPROFILE": str(home), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, env=environment, timeout=120, stdout=subprocess.PIPE
        )
        assert done.stdout.split() == [b"(1,", b"6)"]
        assert sorted(path.name for path in home.rglob("*")) == remembers

    def test_not_on_a_gpu(self, bundle: Any) -> None:
        with pytest.raises(UsageError):
            choose_runtime(bundle, "cuda", runtime="openvino", hardware=Hardware(1))

    def test_precision_refused(self, bundle: Any) -> None:
        with pytest.raises(UsageError):
            choose_runtime(bundle, "cpu", "fp16", runtime="openvino")


def test_tiles_need_not_be_writable() -> None:
    tiles = some_tiles(3)
    expected = openvino_runtime.OpenVinoRuntime(random_bundle(), "fp32")(tiles)
    tiles.flags.writeable = False
    np.testing.assert_array_equal(openvino_runtime.OpenVinoRuntime(random_bundle(), "fp32")(tiles), expected)
