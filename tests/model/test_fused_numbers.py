"""The network's numbers without torch must be those with torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_inference_form import network_of
from test_repvgg import KINDS, Kind

from her2bridge.model.fused_numbers import BlockNumbers, GCTNumbers, SENumbers, fuse_numbers
from her2bridge.model.inference_form import inference_form
from her2bridge.model.repvgg import BlockKind, NetworkSpec, RepVGG, Stage, build
from her2bridge.model.spec import tensor_shapes

BLOCKS: tuple[BlockKind, ...] = ("ecm", "plain", "plain-bn")
GATES = {"none": type(None), "gct": GCTNumbers, "se": SENumbers}


def stored(network: RepVGG) -> dict[str, Any]:
    """What a bundle holds of a network."""
    return {n: t.detach().numpy() for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}


def assert_near(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    """To the rounding of fp32, three numbers having been added."""
    assert got.dtype == expected.dtype == np.float32
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=4e-7 * max(1.0, float(np.abs(expected).max())))


def assert_same_gate(got: GCTNumbers | SENumbers | None, expected: GCTNumbers | SENumbers | None) -> None:
    assert type(got) is type(expected)
    if isinstance(got, GCTNumbers) and isinstance(expected, GCTNumbers):
        assert got.eps == expected.eps
        for part in ("alpha_squared", "scale", "beta"):
            assert_near(getattr(got, part), getattr(expected, part))
    if isinstance(got, SENumbers) and isinstance(expected, SENumbers):
        for layer in ("squeeze", "excite"):
            for part in ("weight", "bias"):
                assert_near(getattr(getattr(got, layer), part), getattr(getattr(expected, layer), part))


def assert_same_block(got: BlockNumbers, expected: BlockNumbers) -> None:
    assert got.stride == expected.stride
    assert_near(got.weight, expected.weight)
    assert_near(got.bias, expected.bias)
    assert_same_gate(got.gate, expected.gate)


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("block", BLOCKS)
def test_are_those_of_the_inference_form(attention: Kind, block: BlockKind) -> None:
    network = network_of(attention, block)
    expected = inference_form(network).numbers()
    tensors = stored(network)
    before = {name: array.copy() for name, array in tensors.items()}
    got = fuse_numbers(network.spec, tensors)
    assert len(got.blocks) == len(expected.blocks) == 5
    for mine, its in zip(got.blocks, expected.blocks, strict=True):
        assert isinstance(mine.gate, GATES[attention])
        assert_same_block(mine, its)
    assert_near(got.head.weight, expected.head.weight)
    assert_near(got.head.bias, expected.head.bias)
    assert all(np.array_equal(tensors[name], before[name]) for name in before)  # left as they were


def test_half_precision_is_read_as_torch_reads_it() -> None:
    network = network_of("se")
    tensors = stored(network)
    halved = {name: array.astype(np.float16) if array.ndim > 1 else array for name, array in tensors.items()}
    network.load_state_dict({name: torch.from_numpy(array) for name, array in halved.items()}, strict=False)
    for mine, its in zip(
        fuse_numbers(network.spec, halved).blocks, inference_form(network).numbers().blocks, strict=True
    ):
        assert_same_block(mine, its)


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("stages", [(Stage(16, 1), Stage(16, 2, 1), Stage(32, 3)), None])
def test_shapes_are_the_networks(attention: Kind, block: BlockKind, stages: tuple[Stage, ...] | None) -> None:
    spec = NetworkSpec(attention=attention, block=block) if stages is None else NetworkSpec(stages, attention, 4, block)
    with torch.device("meta"):
        network = build(spec)
    expected = {n: tuple(t.shape) for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert tensor_shapes(spec) == expected
