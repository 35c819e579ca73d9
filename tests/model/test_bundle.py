from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from her2bridge.errors import BundleDamaged, BundleNotFound
from her2bridge.model.bundle import (
    CARD_FILE,
    DEFAULT_BUNDLE,
    WEIGHTS_FILE,
    Bundle,
    card_sha256,
    list_bundles,
    load_bundle,
    save_bundle,
)
from her2bridge.model.repvgg import NetworkSpec, RepVGG, Stage, build, fuse
from her2bridge.records import TileSpec
from her2bridge.scoring.whspn import Mlp, Svm, Whspn

CARD: dict[str, Any] = {
    "name": "tiny",
    "version": "1",
    "license": "GPL-3.0-or-later",
    "intended_use": "Tests.",
    "patch_size_px": 64,
    "spacing_um_px": 0.5,
    "transform": {"mean": [0.7, 0.6, 0.7], "std": [0.2, 0.2, 0.2]},
    "training": {},
    "metrics": {},
    "limits": [],
}


def tiny() -> RepVGG:
    torch.manual_seed(0)
    network = build(NetworkSpec((Stage(16, 1), Stage(16, 1, 1)), "gct"))
    with torch.no_grad():
        network(torch.rand(4, 3, 32, 32))  # batch norm's statistics move away from where they start
    return network.eval()


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return save_bundle(tmp_path / "tiny", tiny(), CARD)


def some_whspn() -> Whspn:
    rng = np.random.default_rng(0)
    sizes = (4, 3, 5, 2, 4)
    weights = tuple(rng.normal(size=shape) for shape in itertools.pairwise(sizes))
    mlp = Mlp(weights, tuple(rng.normal(size=size) for size in sizes[1:]))
    per_class = np.array([2, 1, 3, 1], dtype=np.int64)
    return Whspn(mlp, Svm(rng.random((7, 4)), per_class, rng.normal(size=(3, 7)), rng.normal(size=6)), "made numbers")


@pytest.fixture
def with_whspn(tmp_path: Path) -> Bundle:
    return save_bundle(tmp_path / "second", tiny(), {**CARD, "whspn": {"seed": 5}}, some_whspn())


def edit_card(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    change(card)
    (folder / CARD_FILE).write_text(json.dumps(card), encoding="utf-8")


def put_weights(folder: Path, data: bytes) -> None:
    """Replace the weights and let the card vouch for them: what is tested is what comes after the hash."""
    (folder / WEIGHTS_FILE).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    edit_card(folder, lambda card: card["hashes"].update({WEIGHTS_FILE: digest}))


def edit_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS_FILE)
    change(tensors)
    save_file(tensors, folder / "new")
    put_weights(folder, (folder / "new").read_bytes())


def test_what_was_saved_is_loaded(bundle: Bundle) -> None:
    loaded = load_bundle(bundle.path)
    assert (loaded.name, loaded.version, loaded.spec) == ("tiny", "1", TileSpec(64, 0.5))
    assert loaded.sha256 == bundle.sha256
    network = loaded.network()
    assert not network.training
    assert network.spec == tiny().spec
    assert all(p.dtype == torch.float32 for p in network.parameters())
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        difference = (network(x) - tiny()(x)).abs().max() / tiny()(x).abs().max()
    assert difference < 5e-3


def test_batch_norm_and_gates_keep_full_precision(bundle: Bundle) -> None:
    tensors = load_file(bundle.path / WEIGHTS_FILE)
    kinds = {name.rsplit(".", 1)[-1] if "conv." not in name else "kernel": t.dtype for name, t in tensors.items()}
    assert kinds["kernel"] == torch.float16
    assert tensors["head.weight"].dtype == torch.float16
    assert tensors["head.bias"].dtype == torch.float32
    for name in ("running_mean", "running_var", "alpha", "gamma", "beta"):
        assert kinds[name] == torch.float32


def test_each_network_is_a_fresh_one(bundle: Bundle) -> None:
    first = bundle.network()
    with torch.no_grad():
        first.head.weight.zero_()
    assert bundle.network().head.weight.abs().max() > 0


def test_sha256_covers_card_and_weights_and_nothing_of_the_layout(bundle: Bundle) -> None:
    text = (bundle.path / CARD_FILE).read_text(encoding="utf-8")
    (bundle.path / CARD_FILE).write_bytes(text.replace("\n", "\r\n").encode())
    assert load_bundle(bundle.path).sha256 == bundle.sha256
    edit_card(bundle.path, lambda card: card.update(name=card.pop("name")))  # to the end
    assert load_bundle(bundle.path).sha256 == bundle.sha256
    edit_card(bundle.path, lambda card: card["limits"].append("another"))
    changed = load_bundle(bundle.path).sha256
    assert changed != bundle.sha256
    edit_tensors(bundle.path, lambda tensors: tensors["head.bias"].add_(1))
    assert load_bundle(bundle.path).sha256 not in (changed, bundle.sha256)


def test_saving_again_gives_the_same_bundle(bundle: Bundle, tmp_path: Path) -> None:
    card = {**CARD, "created": bundle.card["created"]}
    assert save_bundle(tmp_path / "again", tiny(), card).sha256 == bundle.sha256


def test_fused_network_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(BundleDamaged, match=r"missing.*stages\.0\.0\.conv1x1"):
        save_bundle(tmp_path / "fused", fuse(tiny()), CARD)
    assert not (tmp_path / "fused").exists()


def test_unknown_name_lists_what_ships(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound) as caught:
        load_bundle("her2-unknown")
    assert DEFAULT_BUNDLE in caught.value.next_step
    with pytest.raises(BundleNotFound):
        load_bundle(tmp_path)


def test_changed_weights_are_noticed(bundle: Bundle) -> None:
    path = bundle.path / WEIGHTS_FILE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleDamaged, match="SHA-256") as caught:
        load_bundle(bundle.path)
    assert str(path) in caught.value.where


def test_missing_weights_are_noticed(bundle: Bundle) -> None:
    (bundle.path / WEIGHTS_FILE).unlink()
    with pytest.raises(BundleDamaged, match="no weights"):
        load_bundle(bundle.path)


def test_weights_that_are_no_safetensors(bundle: Bundle) -> None:
    put_weights(bundle.path, b"\x80\x04 a pickle, say")
    with pytest.raises(BundleDamaged, match="not a safetensors file") as caught:
        load_bundle(bundle.path)
    assert caught.value.__cause__ is not None


def test_missing_unexpected_and_misshapen_tensors_are_named(bundle: Bundle) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["stages.0.0.attention.beta"]
        tensors["stages.9.extra"] = torch.zeros(1)
        tensors["head.bias"] = torch.zeros(4)

    edit_tensors(bundle.path, change)
    with pytest.raises(BundleDamaged) as caught:
        load_bundle(bundle.path)
    assert "1 missing (stages.0.0.attention.beta)" in caught.value.what
    assert "1 unexpected (stages.9.extra)" in caught.value.what
    assert "head.bias is [4], not [6]" in caught.value.what


def test_card_that_is_no_json(bundle: Bundle) -> None:
    (bundle.path / CARD_FILE).write_bytes(b"{\xff")
    with pytest.raises(BundleDamaged, match="JSON"):
        load_bundle(bundle.path)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", "", "name must be text"),
        ("intended_use", None, "intended_use must be text"),
        ("format", 2, "format must be 1"),
        ("classes", ["0", "1+"], "classes must be"),
        ("patch_size_px", 0, "patch_size_px"),
        ("spacing_um_px", float("nan"), "spacing_um_px"),
        ("temperature", 0, "temperature must be"),
        ("temperature", "1", "temperature must be"),
        ("transform", {"mean": [0, 0, 0], "std": [1, 1]}, "mean and std"),
        ("transform", {"mean": [0, 0, 0], "std": [1, 0, 1]}, "std must lie above 0"),
        ("hashes", {}, "SHA-256"),
        ("architecture", {"family": "resnet"}, "family must be repvgg"),
        (
            "architecture",
            {"family": "repvgg", "attention": "cbam", "block": "x", "stages": []},
            "attention.*block.*stages",
        ),
    ],
)
def test_faults_of_the_card_are_named(bundle: Bundle, key: str, value: object, said: str) -> None:
    edit_card(bundle.path, lambda card: card.update({key: value}))
    with pytest.raises(BundleDamaged, match=said):
        load_bundle(bundle.path)


def test_card_that_is_a_list(bundle: Bundle) -> None:
    (bundle.path / CARD_FILE).write_text("[]", encoding="utf-8")
    with pytest.raises(BundleDamaged, match="not a JSON object"):
        load_bundle(bundle.path)


def test_listing_reads_cards_without_torch() -> None:
    code = (
        "import sys; from her2bridge.model.bundle import list_bundles; print([b.name for b in list_bundles()]);"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert DEFAULT_BUNDLE in done.stdout


def test_loading_and_fusing_do_without_torch() -> None:
    code = (
        "import sys; from her2bridge.model.bundle import load_bundle; print(len(load_bundle().fused().blocks));"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["22"]


def test_fused_checks_as_the_network_does(bundle: Bundle) -> None:
    edit_tensors(bundle.path, lambda tensors: tensors.pop("head.bias"))
    for ask in (bundle.fused, bundle.network):
        with pytest.raises(BundleDamaged, match=r"1 missing \(head\.bias\)"):
            ask()
    put_weights(bundle.path, b"nothing")
    for ask in (bundle.fused, bundle.network):
        with pytest.raises(BundleDamaged, match="not a safetensors file"):
            ask()


def test_a_number_format_that_numpy_lacks(bundle: Bundle) -> None:
    """We write none, but torch reads it, and such a bundle is as good as another."""
    edit_tensors(bundle.path, lambda tensors: tensors.update({"head.weight": tensors["head.weight"].bfloat16()}))
    loaded = load_bundle(bundle.path)
    np.testing.assert_array_equal(loaded.fused().head.weight, loaded.network().head.weight.detach().numpy())


class TestWhspn:
    def test_a_bundle_may_have_none(self, bundle: Bundle) -> None:
        assert load_bundle(bundle.path).whspn is None

    def test_what_was_saved_is_loaded_to_the_bit(self, with_whspn: Bundle, bundle: Bundle) -> None:
        loaded = load_bundle(with_whspn.path)
        assert loaded.card["whspn"] == {"seed": 5, "data": "made numbers", "widths": [3, 5, 2, 4]}
        assert loaded.whspn is not None
        assert loaded.whspn.trained_on == "made numbers"
        arrays = loaded.whspn.arrays()
        assert arrays.keys() == some_whspn().arrays().keys()
        for name, array in some_whspn().arrays().items():
            assert arrays[name].dtype == array.dtype
            np.testing.assert_array_equal(arrays[name], array)
        assert loaded.whspn is loaded.whspn
        assert loaded.sha256 != bundle.sha256
        x = torch.rand(1, 3, 64, 64)
        with torch.inference_mode():
            assert torch.equal(loaded.network()(x), bundle.network()(x))

    def test_another_network_does_not_inherit_it(self, with_whspn: Bundle, tmp_path: Path) -> None:
        again = save_bundle(tmp_path / "finer", tiny(), with_whspn.card)
        assert "whspn" not in again.card
        assert again.whspn is None

    def test_without_a_word_in_the_card_its_tensors_are_unexpected(self, with_whspn: Bundle) -> None:
        edit_card(with_whspn.path, lambda card: card.pop("whspn"))
        with pytest.raises(BundleDamaged, match=r"12 unexpected \(whspn\.mlp\.0\.bias"):
            load_bundle(with_whspn.path)

    def test_a_word_in_the_card_is_not_enough(self, bundle: Bundle) -> None:
        edit_card(bundle.path, lambda card: card.update(whspn={"data": "x"}))
        with pytest.raises(BundleDamaged, match=r"mlp\.0\.bias is missing"):
            load_bundle(bundle.path)

    @pytest.mark.parametrize("section", [None, [], {}, {"data": ""}, {"data": 1}])
    def test_what_it_learned_from_must_be_said(self, with_whspn: Bundle, section: object) -> None:
        edit_card(with_whspn.path, lambda card: card.update(whspn=section))
        with pytest.raises(BundleDamaged, match="what it learned from"):
            load_bundle(with_whspn.path)

    @pytest.mark.parametrize(
        ("name", "tensor", "said"),
        [
            ("whspn.mlp.3.bias", torch.zeros(6, dtype=torch.float64), r"mlp\.3\.bias is \[6\], not \[4\]"),
            ("whspn.mlp.3.bias", torch.zeros(4), "is float32, not float64"),
            ("whspn.mlp.3.bias", torch.zeros(4, dtype=torch.bfloat16), "bfloat16"),
            ("whspn.svm.dual", torch.full((3, 7), torch.nan, dtype=torch.float64), "svm.dual is not finite"),
            ("whspn.forest", torch.zeros(1), "forest is unexpected"),
            ("stages.9.extra", torch.zeros(1), r"1 unexpected \(stages\.9\.extra\)"),  # the network's stay strict
        ],
    )
    def test_damage_is_named(self, with_whspn: Bundle, name: str, tensor: torch.Tensor, said: str) -> None:
        edit_tensors(with_whspn.path, lambda tensors: tensors.update({name: tensor}))
        with pytest.raises(BundleDamaged, match=said) as caught:
            load_bundle(with_whspn.path)
        assert caught.value.where == str(with_whspn.path / WEIGHTS_FILE)


def test_default_bundle_is_whole_and_honest() -> None:
    bundle = load_bundle()
    assert bundle.name == DEFAULT_BUNDLE
    assert bundle.sha256 == card_sha256(bundle.card)
    assert [listed.sha256 for listed in list_bundles() if listed.name == bundle.name] == [bundle.sha256]
    assert load_bundle(DEFAULT_BUNDLE).path == bundle.path
    assert "Research use only" in bundle.card["intended_use"]
    assert "synthetic" in bundle.card["training"]["data"]
    assert bundle.card["metrics"]["accuracy"] >= 0.90
    assert [run["seed"] for run in bundle.card["training"]["runs"]] == [2022, 2023, 2024]
    assert len(bundle.card["training"]["slides"]) == 5  # their labels set the border of 3+
    assert (bundle.path / WEIGHTS_FILE).stat().st_size <= 17_000_000
    assert bundle.spec == TileSpec(256, 0.25)
    assert bundle.network().spec == NetworkSpec(attention="gct")
