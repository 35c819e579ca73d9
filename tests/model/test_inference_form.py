from __future__ import annotations

import pytest
import torch
from test_repvgg import KINDS, SMALL, Kind, randomise, relative_difference

from her2bridge.model.inference_form import PixelForm, inference_form
from her2bridge.model.repvgg import BlockKind, NetworkSpec, RepVGG, build, fuse


def network_of(attention: Kind, block: BlockKind = "ecm") -> RepVGG:
    network = build(NetworkSpec(SMALL, attention, block=block)).eval()
    randomise(network)
    return network


def planes(count: int = 3, size: int = 64) -> torch.Tensor:
    torch.manual_seed(5)
    colours = torch.randn(count, 3, 1, 1)
    return (colours + torch.randn(count, 3, size, size)).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("block", ["ecm", "plain", "plain-bn"])
@torch.inference_mode()
def test_equals_the_training_form(attention: Kind, block: BlockKind) -> None:
    network = network_of(attention, block)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    x = planes()
    form = inference_form(network)
    assert relative_difference(network(x), form(x)) < 1e-5
    assert relative_difference(network(x), inference_form(fuse(network))(x)) < 1e-5
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(form(x), form(x))  # what is done in place is its own


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_stays_near(attention: Kind, dtype: torch.dtype) -> None:
    network = network_of(attention)
    form = inference_form(network, dtype)
    got = form(planes())
    assert got.dtype == torch.float32
    assert relative_difference(network(planes()), got) < (0.05 if dtype == torch.bfloat16 else 0.01)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_gates_do_not_overflow(dtype: torch.dtype) -> None:
    """128 × 128 values of 300: each square, and all the more their sum, lies beyond fp16."""
    gate = network_of("gct")
    form = inference_form(gate, dtype)
    block = form.body[0]
    x = torch.full((1, 16, 128, 128), 300.0)
    torch.testing.assert_close(block.gate(x.to(dtype)), block.gate(x), rtol=1e-2, atol=0)
    assert torch.isfinite(block.gate(x.to(dtype))).all()


@torch.inference_mode()
def test_pixels_are_normalised_in_front() -> None:
    network = network_of("gct")
    scale, shift = torch.tensor([0.01, 0.02, 0.015]), torch.tensor([-1.0, -1.5, -2.0])
    pixels = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    expected = network(pixels.permute(0, 3, 1, 2).float() * scale[:, None, None] + shift[:, None, None])
    assert relative_difference(expected, PixelForm(network, scale, shift)(pixels)) < 1e-5


@pytest.mark.parametrize("attention", KINDS)
def test_can_be_exported(attention: Kind) -> None:
    """What torch.compile and CUDA graphs build upon, with the batch left open."""
    form = inference_form(network_of(attention))
    exported = torch.export.export(form, (planes(2),), dynamic_shapes=({0: torch.export.Dim("b")},))
    x = planes(3)
    with torch.inference_mode():
        assert relative_difference(form(x), exported.module()(x)) < 1e-5


def test_nothing_is_learned_here() -> None:
    form = inference_form(network_of("se").train())
    assert not form.training
    assert not any(parameter.requires_grad for parameter in form.parameters())
