"""``her2bridge models``."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from cli_calls import call, is_three_parts

from her2bridge.model.bundle import DEFAULT_BUNDLE, WEIGHTS_FILE, load_bundle


def test_the_list_says_what_one_must_know() -> None:
    told = call("models")
    bundle = load_bundle()
    assert told.exit_code == 0
    assert f"{bundle.name} {bundle.version} (the default)\n" in told.stdout
    assert bundle.sha256 in told.stdout
    assert "0 (QuPath: Negative), 1+ (QuPath: 1+)" in told.stdout
    assert "noise (QuPath: Noise*)" in told.stdout
    assert "256 px at 0.25 µm/px, 64 µm wide" in told.stdout
    assert bundle.card["training"]["data"] in told.stdout
    assert f"accuracy: {bundle.card['metrics']['accuracy']}" in told.stdout
    assert all(f"- {limit}" in told.stdout for limit in bundle.card["limits"])
    assert "Research use only" in told.stdout


def test_a_card_in_full_by_name_and_by_folder() -> None:
    bundle = load_bundle()
    by_name = call("models", DEFAULT_BUNDLE)
    assert by_name.exit_code == 0
    assert all(f"  {key.replace('_', ' ')}:" in by_name.stdout for key in bundle.card)
    assert f"weights.safetensors: {bundle.card['hashes'][WEIGHTS_FILE]}" in by_name.stdout
    assert call("models", bundle.path).stdout == by_name.stdout


def test_json_holds_the_card() -> None:
    told = call("models", "--json")
    (line,) = told.stdout.splitlines()
    content = json.loads(line)
    assert content["card"] == load_bundle().card
    assert (content["name"], content["default"]) == (DEFAULT_BUNDLE, True)
    assert told.stderr == ""


def test_bundles_that_are_none(tmp_path: Path) -> None:
    told = call("models", "nowhere")
    assert told.exit_code == 2
    assert is_three_parts(told.stderr)
    damaged = Path(shutil.copytree(load_bundle().path, tmp_path / "damaged"))
    (damaged / WEIGHTS_FILE).write_bytes(b"")
    told = call("models", damaged)
    assert told.exit_code == 1
    assert "SHA-256 differs" in told.stderr


def test_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path / "network.onnx"
    told = call("models", DEFAULT_BUNDLE, "--onnx", path)
    assert told.exit_code == 0
    assert f"{path}: {DEFAULT_BUNDLE}" in told.stdout
    assert "Research use only" in told.stdout
    (line,) = call("models", DEFAULT_BUNDLE, "--onnx", path, "--json").stdout.splitlines()
    said = json.loads(line)
    assert (said["sha256"], said["onnx"]) == (load_bundle().sha256, str(path))
    assert said["largest_difference"] < 1e-4


def test_onnx_of_which_bundle(tmp_path: Path) -> None:
    told = call("models", "--onnx", tmp_path / "network.onnx")
    assert told.exit_code == 2
    assert is_three_parts(told.stderr)
    assert not list(tmp_path.iterdir())
