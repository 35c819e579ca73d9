from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from random_bundle import plain, random_bundle, some_tiles

from her2bridge.errors import ModelError, UsageError, WriteFailed
from her2bridge.inference.onnx_export import export_onnx
from her2bridge.inference.runtime.base import softmax
from her2bridge.model.attention import Attention
from her2bridge.model.bundle import load_bundle
from her2bridge.records import TileClass


def bundle_of(attention: Attention, temperature: float = 1.0) -> Any:
    """Random weights of tiles of 64 px, with a card to be told."""
    bundle = random_bundle(temperature, attention, 64)
    told = {"license": "none", "classes": [one.label for one in TileClass], "intended_use": "Tests."}
    return SimpleNamespace(**{**vars(bundle), "card": {**bundle.card, **told}, "version": "1"})


def run(path: Path, tiles: Any) -> Any:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(["probabilities"], {"pixels": np.ascontiguousarray(tiles)})[0]


@pytest.fixture(autouse=True)
def _onnx() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("attention", ["none", "gct", "se"])
def test_equals_the_plain_network_for_any_batch(attention: Attention, tmp_path: Path) -> None:
    bundle = bundle_of(attention)
    path = tmp_path / "network.onnx"
    exported = export_onnx(bundle, path)
    assert exported.path == path
    assert exported.largest_difference < 1e-4
    for count in (1, 5):
        tiles = some_tiles(count, seed=count)[:, :64, :64]
        np.testing.assert_allclose(run(path, tiles), plain(bundle, tiles), atol=2e-4)


def test_the_temperature_is_part_of_it(tmp_path: Path) -> None:
    bundle = bundle_of("none", 2.0)
    tiles = some_tiles(3)[:, :64, :64]
    export_onnx(bundle, tmp_path / "network.onnx")
    expected = softmax(np.log(plain(bundle, tiles)), 2.0)
    np.testing.assert_allclose(run(tmp_path / "network.onnx", tiles), expected, atol=2e-4)


def test_it_says_what_it_is(tmp_path: Path) -> None:
    import onnx

    bundle = load_bundle()
    export_onnx(bundle, tmp_path / "network.onnx")
    model = onnx.load(tmp_path / "network.onnx")
    told = {one.key: one.value for one in model.metadata_props}
    assert told["bundle_sha256"] == bundle.sha256
    assert json.loads(told["classes"]) == bundle.card["classes"]
    assert (told["patch_size_px"], told["spacing_um_px"]) == ("256", "0.25")
    assert told["intended_use"].startswith("Research use only.")
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_one_that_computes_something_else_is_not_written(tmp_path: Path) -> None:
    bundle = bundle_of("gct")
    other = bundle.fused()
    other.blocks[1].bias[3] += 0.5
    bundle.fused = lambda: other
    path = tmp_path / "network.onnx"
    path.write_bytes(b"of old")
    with pytest.raises(ModelError, match=r"differ from ours by up to 0\.\d"):
        export_onnx(bundle, path)
    assert path.read_bytes() == b"of old"


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WriteFailed):
        export_onnx(bundle_of("none"), tmp_path / "file" / "network.onnx")


def test_without_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UsageError) as error:
        export_onnx(bundle_of("none"), tmp_path / "network.onnx")
    assert "her2bridge[onnx]" in error.value.next_step
