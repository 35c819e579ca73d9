"""The seven peers are the ones that the paper means."""

from __future__ import annotations

import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from her2bridge.errors import UsageError
from her2bridge.experiments.complexity import milliseconds_a_tile, size_of
from her2bridge.experiments.peers import PEERS, PUBLISHED_CLASSES, build_peer, torchvision_models
from her2bridge.experiments.published import TABLE_4

EXACT = {
    "VGG16": 138_357_544,
    "Inception-v3": 23_834_568,
    "ResNet-50": 25_557_032,
    "DenseNet-169": 14_149_480,
    "ShuffleNetV2-x1.5": 3_503_624,
    "MobileNetV3-large": 5_483_032,
    "EfficientNet-B3": 12_233_232,
}


@pytest.mark.parametrize("name", PEERS)
def test_has_the_published_size(name: str) -> None:
    size = size_of(partial(build_peer, name, PUBLISHED_CLASSES), 256)
    assert size.parameters == EXACT[name]
    assert size.parameters / 1e6 == pytest.approx(TABLE_4[name].parameters_m, abs=0.0006)
    assert size.multiply_adds / 1e9 == pytest.approx(TABLE_4[name].flops_g, rel=0.05)  # the paper counts more than we


@pytest.mark.parametrize("name", ["MobileNetV3-large"])
def test_multiply_adds_are_half_of_what_torch_counts(name: str) -> None:
    with torch.device("meta"):
        network = build_peer(name, 6).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            network(torch.empty(1, 3, 128, 128))
    assert counter.get_total_flops() == 2 * size_of(partial(build_peer, name, 6), 128).multiply_adds


@pytest.mark.parametrize("name", ["MobileNetV3-large", "Inception-v3"])
def test_gives_six_logits_in_training_too(name: str) -> None:
    network = build_peer(name, 6)
    assert network.training
    assert network(torch.rand(2, 3, 96, 96)).shape == (2, 6)


def test_torchvision_is_there_whole_and_twice() -> None:
    assert torchvision_models() is torchvision_models()
    assert hasattr(torch.ops.torchvision, "nms")


def test_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(UsageError) as caught:
        build_peer("ResNet-50", 6)
    assert "torchvision" in caught.value.what
    assert "her2bridge[peers]" in caught.value.next_step


class Turns(nn.Module):
    """Says when it is called."""

    def __init__(self, name: str, said: list[str]) -> None:
        super().__init__()
        self._name, self._said = name, said

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        assert not torch.backends.cudnn.allow_tf32
        self._said.append(self._name)
        return x


def test_networks_are_timed_in_turns_after_a_warm_up() -> None:
    said: list[str] = []
    networks = {name: Turns(name, said) for name in "ab"}
    times = milliseconds_a_tile(networks, 32, torch.device("cpu"), lambda event: None, seconds=0.0)
    assert said == ["a"] * 3 + ["b"] * 3 + ["a", "b"] * 5
    assert min(times.values()) > 0
    assert torch.backends.cudnn.allow_tf32  # as it was
