"""A run that computes on OpenVINO does not load torch, which would take it two seconds before the first tile."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from her2bridge.demo import Demo
from her2bridge.inference.runtime import choose, fastest, openvino_runtime
from her2bridge.inference.runtime.torch_runtime import TorchHardware, resolve_precision
from her2bridge.model.bundle import load_bundle
from her2bridge.qupath.open import open_project

pytestmark = pytest.mark.skipif(not openvino_runtime.is_installed(), reason="the extra openvino is not installed")


def loads_torch(demo: Demo, *options: str) -> bool:
    """Whether a run does, which must succeed and leave tiles."""
    command = [sys.executable, "-X", "importtime", "-m", "her2bridge", "run", str(demo.project)]
    done = subprocess.run(
        [*command, *options], capture_output=True, encoding="utf-8", check=True, timeout=280, env=os.environ
    )
    (entry,) = open_project(demo.project, "files").entries
    assert len(entry.stored_tiles()) > 0
    assert re.search(r"\| +numpy$", done.stderr, re.MULTILINE)  # so such lines are to be found
    return re.search(r"\| +torch$", done.stderr, re.MULTILINE) is not None


@pytest.mark.parametrize("faster", ["openvino", "torch"])
def test_auto_loads_torch_where_it_was_the_faster(
    faster: str, demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HER2BRIDGE_CACHE", str(tmp_path / "cache"))
    precisions = {
        "openvino": openvino_runtime.resolve("auto"),
        "torch": resolve_precision("auto", torch.device("cpu"), TorchHardware()),
    }
    speeds = {f"{name} {precision}": 2.0 if name == faster else 1.0 for name, precision in precisions.items()}
    fastest._remember(choose._conditions(load_bundle(), "auto"), speeds)
    assert loads_torch(demo, "--device", "cpu") == (faster == "torch")


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_openvino_that_is_named_needs_no_torch(
    device: str, demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "auto" and not torch.__version__.endswith("+cpu"):
        pytest.skip(f"torch {torch.__version__} may see a GPU, and is loaded to look")
    monkeypatch.setenv("HER2BRIDGE_CACHE", str(tmp_path / "none"))
    assert not loads_torch(demo, "--runtime", "openvino", "--device", device)
