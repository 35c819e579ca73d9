from __future__ import annotations

import logging
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

    def test_failed_conversion_leaves_the_root_logger_alone(self, bundle: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """OpenVINO sets the root logger's level while it converts, and forgets to set it back when that fails."""

        def convert_model(*_: Any, **__: Any) -> None:
            logging.getLogger().setLevel(logging.CRITICAL)
            raise RuntimeError("unknown operator")

        before = logging.getLogger().level
        monkeypatch.setattr(openvino_runtime._openvino(), "convert_model", convert_model)
        with pytest.raises(UsageError) as error:
            choose_runtime(bundle, "cpu", "fp32", runtime="openvino")
        assert "unknown operator" in error.value.what
        assert logging.getLogger().level == before

    def test_import_writes_and_connects_nowhere(self, tmp_path: Path) -> None:
        """OpenVINO's telemetry speaks to the network and writes to the home folder unless it is kept out."""
        code = (
            "import pathlib, socket\n"
            "def refuse(*_): pathlib.Path.home().joinpath('socket').touch()\n"  # telemetry swallows what it is thrown
            "socket.socket.connect = socket.getaddrinfo = refuse\n"
            "from her2bridge.inference.runtime import openvino_runtime\n"
            "import sys, torch\n"
            "openvino = openvino_runtime._openvino()\n"
            "model = openvino_runtime._convert(openvino, torch.nn.Conv2d(3, 6, 3), torch.zeros(1, 3, 9, 9))\n"
            "openvino.Core().compile_model(model, 'CPU')\n"
            "assert sys.modules['openvino_telemetry'] is None\n"
        )
        home = tmp_path / "home"
        home.mkdir()
        environment = {"HOME": str(home), "USERPROFILE": str(home), "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
        assert list(home.rglob("*")) == []

    def test_not_on_a_gpu(self, bundle: Any) -> None:
        with pytest.raises(UsageError):
            choose_runtime(bundle, "cuda", runtime="openvino", hardware=Hardware(1))

    def test_precision_refused(self, bundle: Any) -> None:
        with pytest.raises(UsageError):
            choose_runtime(bundle, "cpu", "fp16", runtime="openvino")
