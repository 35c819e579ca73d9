"""What a tile network is made of, and the names and shapes of its tensors; no torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Attention = Literal["none", "gct", "se"]
"""No attention, gated channel transformation (Yang et al. 2020), squeeze and excitation (Hu et al. 2018)."""

SE_REDUCTION = 16

BlockKind = Literal["ecm", "plain", "plain-bn"]
"""``ecm``: the three branches. ``plain``: one 3×3 convolution, no bias, no batch norm (the paper's Table 7).
``plain-bn``: the same with batch norm, which Table 7 leaves out."""


@dataclass(frozen=True)
class Stage:
    """A run of blocks of one width; the first of them has the stride."""

    channels: int
    blocks: int
    stride: int = 2


A0_STAGES = (Stage(48, 1), Stage(48, 2), Stage(96, 4), Stage(192, 14), Stage(1280, 1))
"""RepVGG-A0 (Ding et al. 2021, Table 2)."""


@dataclass(frozen=True)
class NetworkSpec:
    """What a network is made of; all that is needed to build it."""

    stages: tuple[Stage, ...] = A0_STAGES
    attention: Attention = "gct"
    classes: int = 6
    block: BlockKind = "ecm"

    def blocks(self) -> list[BlockSpec]:
        """All of them, in order."""
        blocks = []
        inputs = 3
        for number, stage in enumerate(self.stages):
            for index in range(stage.blocks):
                stride = stage.stride if index == 0 else 1
                blocks.append(BlockSpec(f"stages.{number}.{index}", inputs, stage.channels, stride))
                inputs = stage.channels
        return blocks


@dataclass(frozen=True)
class BlockSpec:
    """One block; ``name`` is how its tensors' names begin."""

    name: str
    inputs: int
    outputs: int
    stride: int

    @property
    def has_identity(self) -> bool:
        """Whether a block of three branches has the third: input and output have one shape."""
        return self.inputs == self.outputs and self.stride == 1


Shapes = dict[str, tuple[int, ...]]
"""Of tensors, by name."""


def tensor_shapes(spec: NetworkSpec) -> Shapes:
    """Of all that a bundle holds of the network in training form (``repvgg.RepVGG``)."""
    shapes: Shapes = {}
    for block in spec.blocks():
        shapes |= _branches(block) if spec.block == "ecm" else _chain(block, spec.block == "plain-bn")
        shapes |= _attention(f"{block.name}.attention", spec.attention, block.outputs)
    features = spec.stages[-1].channels
    return {**shapes, "head.weight": (spec.classes, features), "head.bias": (spec.classes,)}


def _branches(block: BlockSpec) -> Shapes:
    shapes: Shapes = {}
    for size in (3, 1):
        branch = f"{block.name}.conv{size}x{size}"
        shapes[f"{branch}.conv.weight"] = (block.outputs, block.inputs, size, size)
        shapes |= _batch_norm(f"{branch}.bn", block.outputs)
    return shapes | (_batch_norm(f"{block.name}.identity", block.outputs) if block.has_identity else {})


def _chain(block: BlockSpec, has_batch_norm: bool) -> Shapes:
    shapes: Shapes = {f"{block.name}.conv.weight": (block.outputs, block.inputs, 3, 3)}
    return shapes | (_batch_norm(f"{block.name}.bn", block.outputs) if has_batch_norm else {})


def _batch_norm(name: str, channels: int) -> Shapes:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def _attention(name: str, kind: Attention, channels: int) -> Shapes:
    if kind == "none":
        return {}
    if kind == "gct":
        return {f"{name}.{part}": (1, channels, 1, 1) for part in ("alpha", "gamma", "beta")}
    squeezed = channels // SE_REDUCTION
    return {
        f"{name}.squeeze.weight": (squeezed, channels, 1, 1),
        f"{name}.squeeze.bias": (squeezed,),
        f"{name}.excite.weight": (channels, squeezed, 1, 1),
        f"{name}.excite.bias": (channels,),
    }
