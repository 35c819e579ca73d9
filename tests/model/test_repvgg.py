from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import nn

from her2bridge.model.attention import GCT, SE, make_attention
from her2bridge.model.repvgg import (
    Block,
    NetworkSpec,
    RepVGG,
    SingleBlock,
    Stage,
    build,
    build_empty,
    count_multiply_adds,
    count_parameters,
    fuse,
)

Kind = Literal["none", "gct", "se"]
KINDS: tuple[Kind, ...] = ("none", "gct", "se")
SMALL = (Stage(16, 1), Stage(16, 2), Stage(32, 2))


def randomise(network: nn.Module, seed: int = 0) -> None:
    """Batch norms and gates as if trained: fresh ones are near the identity and would hide mistakes."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator, dtype=tensor.dtype) * (high - low) + low)

    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                uniform(module.running_mean, -0.5, 0.5)
                uniform(module.running_var, 0.5, 2.0)
                uniform(module.weight, 0.5, 1.5)
                uniform(module.bias, -0.3, 0.3)
            elif isinstance(module, GCT):
                uniform(module.alpha, -1.5, 1.5)
                uniform(module.gamma, -1.0, 1.0)
                uniform(module.beta, -0.5, 0.5)


def relative_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max() / a.abs().max())


@pytest.mark.parametrize(
    ("attention", "training", "fused"),
    [("none", 7_835_654, 7_036_070), ("gct", 7_849_142, 7_049_558), ("se", 8_115_215, 7_315_631)],
)
def test_parameter_counts_are_the_papers(attention: Kind, training: int, fused: int) -> None:
    network = build(NetworkSpec(attention=attention))
    assert count_parameters(network) == training
    assert count_parameters(fuse(network)) == fused


@pytest.mark.parametrize(("attention", "count"), [("none", 7_031_574), ("gct", 7_045_062)])
def test_plain_chain_counts_are_the_papers(attention: Kind, count: int) -> None:
    assert count_parameters(build(NetworkSpec(attention=attention, block="plain"))) == count


def test_plain_chain_with_batch_norm_has_two_more_parameters_a_channel() -> None:
    plain = count_parameters(build(NetworkSpec(attention="none", block="plain")))
    assert count_parameters(build(NetworkSpec(attention="none", block="plain-bn"))) == plain + 2 * 4_496


def test_multiply_adds_of_the_fused_network_are_the_papers() -> None:
    network = build(NetworkSpec(attention="none")).eval()
    assert count_multiply_adds(fuse(network)) == 1_776_557_568
    assert round(count_multiply_adds(network) / 1e9, 3) == 1.974


@pytest.mark.parametrize("attention", KINDS)
def test_fused_equals_unfused(attention: Kind) -> None:
    torch.manual_seed(1)
    network = build(NetworkSpec(attention=attention)).eval()
    randomise(network)
    tiles = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert relative_difference(network(tiles), fuse(network)(tiles)) <= 1e-4
        network.double()
        assert relative_difference(network(tiles.double()), fuse(network)(tiles.double())) <= 1e-9


@pytest.mark.parametrize("attention", KINDS)
def test_fusing_twice_is_fusing_once(attention: Kind) -> None:
    network = build(NetworkSpec(stages=SMALL, attention=attention))
    randomise(network)
    once = fuse(network)
    twice = fuse(once)
    assert once is not twice
    assert once.state_dict().keys() == twice.state_dict().keys()
    for key, value in once.state_dict().items():
        assert torch.equal(value, twice.state_dict()[key])


def test_fusing_leaves_the_network_as_it_was() -> None:
    network = build(NetworkSpec(stages=SMALL))
    randomise(network)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    fused = fuse(network)
    with torch.no_grad():
        for parameter in fused.parameters():
            parameter.zero_()
    assert network.training
    assert all(isinstance(block, Block) for stage in network.stages for block in _children(stage))
    assert all(isinstance(block, SingleBlock) for stage in fused.stages for block in _children(stage))
    assert before.keys() == network.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in network.state_dict().items())


def _children(module: nn.Module) -> list[nn.Module]:
    return list(module.children())


def test_block_has_an_identity_only_where_shapes_allow() -> None:
    assert Block(8, 8, 1, "none").identity is not None
    assert Block(8, 8, 2, "none").identity is None
    assert Block(8, 16, 1, "none").identity is None


def test_spec_decides_the_shape_of_the_answer() -> None:
    network = RepVGG(NetworkSpec(stages=SMALL, classes=4)).eval()
    assert network(torch.zeros(3, 3, 32, 32)).shape == (3, 4)
    assert network.features(torch.zeros(1, 3, 32, 32)).shape == (1, 32, 4, 4)


def test_gct_is_its_formula() -> None:
    torch.manual_seed(0)
    gct = GCT(4).double()
    randomise(gct)
    gct.requires_grad_(False)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    expected = torch.empty_like(x)
    for n in range(2):
        sizes = [float(gct.alpha[0, c]) * (float((x[n, c] ** 2).sum()) + gct.eps) ** 0.5 for c in range(4)]
        spread = (sum(size**2 for size in sizes) / 4 + gct.eps) ** 0.5
        for c in range(4):
            inner = torch.tensor(float(gct.gamma[0, c]) * sizes[c] / spread + float(gct.beta[0, c]))
            expected[n, c] = x[n, c] * (1 + torch.tanh(inner))
    # The reference runs tanh in fp32.
    assert torch.allclose(gct(x), expected, atol=1e-6)


def test_fresh_gct_changes_nothing() -> None:
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(GCT(4)(x), x)


@pytest.mark.parametrize("attention", ["gct", "se"])
def test_gates_commute_with_relu(attention: Kind) -> None:
    module = make_attention(attention, 32)
    randomise(module)
    assert isinstance(module, GCT | SE)
    x = torch.randn(2, 32, 6, 6)
    assert torch.allclose(torch.relu(module(x)), torch.relu(x) * module.gate(x))


def test_gct_does_not_overflow_in_half_precision() -> None:
    gct = GCT(4)
    randomise(gct)
    x = torch.full((1, 4, 128, 128), 30.0)
    assert torch.allclose(gct(x.half()).float(), gct(x), rtol=2e-3)


def test_unknown_attention_is_named() -> None:
    with pytest.raises(ValueError, match="cbam"):
        make_attention("cbam", 8)  # type: ignore[arg-type]


def test_what_will_be_set_is_not_drawn() -> None:
    """Drawing random weights is a good part of the start; torch's generator tells whether any were."""
    torch.manual_seed(5)
    before = torch.get_rng_state()
    empty = build_empty(NetworkSpec(attention="gct"))
    fuse(empty)
    assert torch.equal(torch.get_rng_state(), before)
    network = build(NetworkSpec(attention="gct"))
    assert not torch.equal(torch.get_rng_state(), before)
    shapes = [(name, value.shape) for name, value in network.state_dict().items()]
    assert [(name, value.shape) for name, value in empty.state_dict().items()] == shapes
