"""RepVGG with channel attention: the tile network of Han et al. 2022 (there: TLCN; its block: ECM).

A block in training form is ``relu(attention(conv3x3_bn(x) + conv1x1_bn(x) + identity_bn(x)))``; the identity is there
where input and output have one shape. For inference the three branches are one 3×3 convolution with bias (eqs 1–6 of
the paper; Ding et al. 2021). The attention depends on the data and stays.

Fusing is three named steps: :func:`fold_batch_norm`, :func:`widen_to_3x3`, :func:`sum_branches`.

Input everywhere: float [n, 3, h, w], normalised as the bundle's card says. Output: logits, float [n, classes].
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from her2bridge.model.attention import make_attention

# All but ``Attention`` are also to be had from here.
from her2bridge.model.spec import A0_STAGES as A0_STAGES
from her2bridge.model.spec import Attention
from her2bridge.model.spec import BlockKind as BlockKind
from her2bridge.model.spec import NetworkSpec as NetworkSpec
from her2bridge.model.spec import Stage as Stage


class ConvBN(nn.Module):
    """A convolution without bias and its batch norm, padded so that only the stride changes the size."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.bn(self.conv(x)))


class Block(nn.Module):
    """The training form: three branches, summed, gated, ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int, attention: Attention) -> None:
        super().__init__()
        self.conv3x3 = ConvBN(inputs, outputs, 3, stride)
        self.conv1x1 = ConvBN(inputs, outputs, 1, stride)
        self.identity = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None
        self.attention = make_attention(attention, outputs)

    def forward(self, x: Tensor) -> Tensor:
        total = self.conv3x3(x) + self.conv1x1(x)
        if self.identity is not None:
            total = total + self.identity(x)
        return torch.relu(self.attention(total))


class SingleBlock(nn.Module):
    """One 3×3 convolution, gated, ReLU: the fused form (with bias) and the plain chain (without)."""

    def __init__(self, conv: nn.Conv2d, attention: nn.Module, bn: nn.Module | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.bn = bn if bn is not None else nn.Identity()
        self.attention = attention

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.attention(self.bn(self.conv(x))))


class RepVGG(nn.Module):
    """Blocks, global average pooling, a linear layer; weights start at random.

    Attributes:
        spec: what it was built from.
        stages: the blocks, a ``Sequential`` a stage.
        head: the linear layer.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        stages = []
        inputs = 3
        for stage in spec.stages:
            blocks = []
            for index in range(stage.blocks):
                blocks.append(_make_block(spec, inputs, stage.channels, stage.stride if index == 0 else 1))
                inputs = stage.channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, spec.classes)

    def features(self, x: Tensor) -> Tensor:
        """The last map, [n, c, h/32, w/32] for A0, after ReLU."""
        return torch.as_tensor(self.stages(x))

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.features(x).mean(dim=(2, 3))))


def build(spec: NetworkSpec) -> RepVGG:
    """A network in training form with random weights, in training mode."""
    return RepVGG(spec)


def build_empty(spec: NetworkSpec) -> RepVGG:
    """The same with weights undefined, for who sets them all: drawing random ones takes longer than reading a file."""
    with _NothingDrawn():
        return RepVGG(spec)


class _NothingDrawn(TorchFunctionMode):
    """New layers keep what their memory holds."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def conv3x3(weight: Tensor, bias: Tensor, stride: tuple[int, ...]) -> nn.Conv2d:
    """A 3×3 convolution, padded, of these numbers, weight [out, in, 3, 3] and bias [out]; nothing drawn at random."""
    outputs, inputs = weight.shape[:2]
    with _NothingDrawn():
        conv = nn.Conv2d(inputs, outputs, 3, (stride[0], stride[1]), padding=1)
    conv.weight = nn.Parameter(weight.detach().clone())
    conv.bias = nn.Parameter(bias.detach().clone())
    return conv


def _make_block(spec: NetworkSpec, inputs: int, outputs: int, stride: int) -> nn.Module:
    if spec.block == "ecm":
        return Block(inputs, outputs, stride, spec.attention)
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    bn = nn.BatchNorm2d(outputs) if spec.block == "plain-bn" else None
    return SingleBlock(conv, make_attention(spec.attention, outputs), bn)


class Kernel(NamedTuple):
    """A convolution as numbers: weight [out, in, k, k] and bias [out]."""

    weight: Tensor
    bias: Tensor


def fold_batch_norm(weight: Tensor, bn: nn.BatchNorm2d) -> Kernel:
    """Step 1: batch norm becomes part of its convolution, K' = Kγ/σ and b' = β − μγ/σ (eqs 1–3).

    ``weight`` is [out, in, k, k]. The arithmetic is in fp64; the result has the dtype of ``weight``.
    """
    if bn.running_mean is None or bn.running_var is None:
        raise ValueError("a batch norm without running statistics cannot be folded")
    gain = bn.weight.double() / torch.sqrt(bn.running_var.double() + bn.eps)
    folded = weight.double() * gain[:, None, None, None]
    bias = bn.bias.double() - bn.running_mean.double() * gain
    return Kernel(folded.to(weight.dtype), bias.to(weight.dtype))


def widen_to_3x3(branch: Kernel) -> Kernel:
    """Step 2: a 1×1 kernel becomes the centre of a 3×3 one, zeros around it (eqs 4–5)."""
    return Kernel(nn.functional.pad(branch.weight, (1, 1, 1, 1)), branch.bias)


def sum_branches(*branches: Kernel) -> Kernel:
    """Step 3: parallel 3×3 convolutions are one whose kernel and bias are the sums (eq 6)."""
    weight = torch.stack([branch.weight for branch in branches]).sum(dim=0)
    return Kernel(weight, torch.stack([branch.bias for branch in branches]).sum(dim=0))


def fuse_block(block: Block) -> SingleBlock:
    """One block in fused form; the attention is copied, the block itself is left as it was."""
    conv = block.conv3x3.conv
    branches = [fold_batch_norm(conv.weight.detach(), block.conv3x3.bn)]
    branches.append(widen_to_3x3(fold_batch_norm(block.conv1x1.conv.weight.detach(), block.conv1x1.bn)))
    if block.identity is not None:
        channels = conv.weight.shape[0]
        identity = torch.eye(channels, dtype=conv.weight.dtype, device=conv.weight.device)[:, :, None, None]
        branches.append(widen_to_3x3(fold_batch_norm(identity, block.identity)))
    kernel = sum_branches(*branches)
    fused = conv3x3(kernel.weight, kernel.bias, conv.stride)
    return SingleBlock(fused, copy.deepcopy(block.attention)).train(block.training)


def fuse(network: RepVGG) -> RepVGG:
    """The same function with one 3×3 convolution a block, in eval mode.

    Returns a deep copy; the network given is untouched. Fusing what is fused gives an equal copy. Outputs equal those
    of the network in eval mode to rounding.
    """
    # deepcopy takes from its memo what it would otherwise copy: the branches are not copied only to be thrown away.
    blocks = [block for block in network.modules() if isinstance(block, Block)]
    return copy.deepcopy(network, {id(block): fuse_block(block) for block in blocks}).eval()


def count_parameters(network: nn.Module) -> int:
    """Learnable parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def count_multiply_adds(network: nn.Module, size_px: int = 256) -> int:
    """Multiply–adds of all convolutions and linear layers for one tile of ``size_px`` (the paper's "FLOPs")."""
    total = 0

    def count(module: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        weight = module.weight
        if isinstance(weight, Tensor):
            total += weight.numel() * output[0].numel() // output.shape[1]

    layers = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    parameter = next(network.parameters())
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, size_px, size_px, dtype=parameter.dtype, device=parameter.device))
    finally:
        for handle in handles:
            handle.remove()
    return total
