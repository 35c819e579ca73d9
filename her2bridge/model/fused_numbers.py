"""The tile network as it is run, as plain numbers: for those who build it outside torch, and without loading torch.

It is ``inference_form`` of the bundle's network, to rounding: one 3×3 convolution with bias a block, a gate's two
scales as one. The arithmetic follows ``repvgg.fuse_block``: fp64 within a branch, whose result is fp32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from her2bridge.model.spec import BlockSpec, NetworkSpec
from her2bridge.records import Float32Array, FloatArray

_BATCH_NORM_EPS = 1e-5  # torch's
_GCT_EPS = 1e-5  # attention.GCT's

Tensors = Mapping[str, NDArray[np.floating]]
"""Of a network in training form, by name, as ``spec.tensor_shapes`` lists them."""


@dataclass(frozen=True, eq=False)
class LinearNumbers:
    """A linear layer: weight, float32 [out, in], and bias, float32 [out]."""

    weight: Float32Array
    bias: Float32Array


@dataclass(frozen=True, eq=False)
class GCTNumbers:
    """GCT's gate, float32 [c] each: with ``e = sum_hw(y²) + eps``, the factors of a map's channels are
    ``1 + tanh(sqrt(e / (sum_c(alpha_squared · e) + eps)) · scale + beta)``."""

    alpha_squared: Float32Array
    scale: Float32Array
    beta: Float32Array
    eps: float


@dataclass(frozen=True, eq=False)
class SENumbers:
    """SE's gate: of a map's means, ``sigmoid(excite(relu(squeeze(mean))))``."""

    squeeze: LinearNumbers
    excite: LinearNumbers


@dataclass(frozen=True, eq=False)
class BlockNumbers:
    """``relu(y) · gate(y)`` of ``y``, a 3×3 convolution padded by one pixel.

    Attributes:
        weight: float32 [out, in, 3, 3].
        bias: float32 [out].
        stride: along both axes.
        gate: None where there is no attention.
    """

    weight: Float32Array
    bias: Float32Array
    stride: tuple[int, int]
    gate: GCTNumbers | SENumbers | None


@dataclass(frozen=True, eq=False)
class FusedNumbers:
    """The blocks in order; the head reads the means of the last one's map."""

    blocks: tuple[BlockNumbers, ...]
    head: LinearNumbers


def fuse_numbers(spec: NetworkSpec, tensors: Tensors) -> FusedNumbers:
    """From the training form's tensors, in whatever precision; they are left as they are."""
    blocks = []
    for block in spec.blocks():
        weight, bias = _branches(tensors, block) if spec.block == "ecm" else _chain(tensors, block.name)
        blocks.append(BlockNumbers(weight, bias, (block.stride, block.stride), _gate(tensors, block.name)))
    return FusedNumbers(tuple(blocks), _linear(tensors, "head"))


def _branches(tensors: Tensors, block: BlockSpec) -> tuple[Float32Array, Float32Array]:
    """Weight and bias of the sum of the branches: those of 1×1 and the identity lie in the middle of a 3×3 kernel."""
    weight, bias = _folded(tensors, f"{block.name}.conv3x3")
    middle = weight[:, :, 1, 1]
    of_1x1, more = _folded(tensors, f"{block.name}.conv1x1")
    middle += of_1x1[:, :, 0, 0]
    bias += more
    if block.has_identity:
        gain, more_still = _batch_norm(tensors, f"{block.name}.identity")
        middle[np.diag_indices(block.outputs)] += gain.astype(np.float32)
        bias += more_still.astype(np.float32)
    return weight, bias


def _chain(tensors: Tensors, name: str) -> tuple[Float32Array, Float32Array]:
    """Weight and bias of a plain block, with or without batch norm."""
    if f"{name}.bn.weight" in tensors:
        return _folded(tensors, name)
    weight = _float32(tensors, f"{name}.conv.weight")
    return weight, np.zeros(len(weight), dtype=np.float32)


def _folded(tensors: Tensors, name: str) -> tuple[Float32Array, Float32Array]:
    """``repvgg.fold_batch_norm`` of a convolution and its batch norm."""
    gain, bias = _batch_norm(tensors, f"{name}.bn")
    weight = tensors[f"{name}.conv.weight"].astype(np.float64)
    weight *= gain[:, None, None, None]
    return weight.astype(np.float32), bias.astype(np.float32)


def _batch_norm(tensors: Tensors, name: str) -> tuple[FloatArray, FloatArray]:
    """By what a batch norm multiplies each channel, and what it adds."""
    gamma, beta, mean, variance = (
        _float32(tensors, f"{name}.{part}").astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    gain = gamma / np.sqrt(variance + _BATCH_NORM_EPS)
    return gain, beta - mean * gain


def _gate(tensors: Tensors, block: str) -> GCTNumbers | SENumbers | None:
    name = f"{block}.attention"
    if f"{name}.alpha" in tensors:
        alpha, gamma, beta = (_float32(tensors, f"{name}.{part}").reshape(-1) for part in ("alpha", "gamma", "beta"))
        alpha_squared = (np.square(alpha) / len(alpha)).astype(np.float32)
        return GCTNumbers(alpha_squared, alpha * gamma, beta, _GCT_EPS)
    if f"{name}.squeeze.weight" in tensors:
        return SENumbers(_linear(tensors, f"{name}.squeeze"), _linear(tensors, f"{name}.excite"))
    return None


def _linear(tensors: Tensors, name: str) -> LinearNumbers:
    """A linear layer, or a 1×1 convolution as one."""
    weight = _float32(tensors, f"{name}.weight")
    return LinearNumbers(weight.reshape(weight.shape[:2]), _float32(tensors, f"{name}.bias"))


def _float32(tensors: Tensors, name: str) -> Float32Array:
    return tensors[name].astype(np.float32)
