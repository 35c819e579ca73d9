"""The tile network as it is run: the attention made cheap, and nothing that training needs.

Three things make the gate cheap, and none of them changes what is computed. A gate lies above zero, so it commutes
with ReLU: ``relu(y · g) = relu(y) · g``, and both are done in place. In the last block it acts after the pooling:
``mean(relu(y) · g) = g · mean(relu(y))``. And what surrounds the one reduction of a block is done on [n, c] numbers.

The gates are computed in fp32 whatever the precision of the maps: a sum of squares over 128 × 128 half-precision values
overflows. Traced, compiled and exported like any module; not to be trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from her2bridge.model.attention import GCT, SE
from her2bridge.model.fused_numbers import BlockNumbers, FusedNumbers, GCTNumbers, LinearNumbers, SENumbers
from her2bridge.model.repvgg import RepVGG, SingleBlock, conv3x3, fold_batch_norm, fuse
from her2bridge.records import Float32Array


def inference_form(network: RepVGG, dtype: torch.dtype = torch.float32) -> InferenceForm:
    """The same function as ``fuse(network)``, to rounding, whose convolutions run in ``dtype``.

    The network given, in training form or fused, is left as it was. Do not call ``.to(dtype)`` on the result: its gates
    and last layer stay in fp32.
    """
    return InferenceForm(network, dtype)


class PixelForm(nn.Module):
    """The inference form with the normalisation of pixels in front: uint8 [b, h, w, 3] to logits, float32 [b, classes].

    ``scale`` and ``shift``, float32 [3], are the runtimes' ``normalisation`` of the bundle's card.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: RepVGG, scale: Tensor, shift: Tensor, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.register_buffer("scale", scale.detach().float().clone())
        self.register_buffer("shift", shift.detach().float().clone())
        self.network = inference_form(network, dtype)

    def forward(self, pixels: Tensor) -> Tensor:
        normalised = torch.addcmul(self.shift, pixels.float(), self.scale)
        # [b, h, w, 3] seen as [b, 3, h, w] is channels last already: no copy.
        return torch.as_tensor(self.network(normalised.permute(0, 3, 1, 2)))


class InferenceForm(nn.Module):
    """See ``inference_form``. Input: float [n, 3, h, w], normalised; output: logits, float32 [n, classes]."""

    def __init__(self, network: RepVGG, dtype: torch.dtype) -> None:
        super().__init__()
        fused = fuse(network)
        singles = [block for block in fused.stages.modules() if isinstance(block, SingleBlock)]
        self.dtype = dtype
        *body, last = (FusedBlock(block, dtype) for block in singles)
        self.body = nn.Sequential(*body)
        self.last = last
        self.head = fused.head.float()
        self.requires_grad_(False).eval()

    def blocks(self) -> list[FusedBlock]:
        """All blocks in order."""
        return [block for block in (*self.body, self.last) if isinstance(block, FusedBlock)]

    def numbers(self) -> FusedNumbers:
        """The same as plain numbers, for those who build the network elsewhere."""
        return FusedNumbers(tuple(block.numbers() for block in self.blocks()), _linear_numbers(self.head))

    def forward(self, planes: Tensor) -> Tensor:
        return torch.as_tensor(self.head(self.last.pooled(self.body(planes.to(self.dtype)))))


class FusedBlock(nn.Module):
    """Convolution with bias, gate, ReLU; ``pooled`` also averages over the map, float32 [n, c]."""

    conv: nn.Conv2d
    gate: GCTGate | SEGate | None

    def __init__(self, block: SingleBlock, dtype: torch.dtype) -> None:
        super().__init__()
        self.conv = _folded(block).to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.gate = _gate(block.attention)

    def numbers(self) -> BlockNumbers:
        """See ``InferenceForm.numbers``."""
        conv = self.conv
        gate = None if self.gate is None else self.gate.numbers()
        return BlockNumbers(_array(conv.weight), _array(conv.bias), (conv.stride[0], conv.stride[1]), gate)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.gate is None:
            return torch.relu_(y)
        gate = self.gate(y).to(y.dtype)
        return torch.relu_(y).mul_(gate[:, :, None, None])

    def pooled(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if self.gate is None:
            return torch.relu_(y).mean(dim=(2, 3), dtype=torch.float32)
        gate: Tensor = self.gate(y)
        return gate * torch.relu_(y).mean(dim=(2, 3), dtype=torch.float32)


class GCTGate(nn.Module):
    """GCT's factors, float32 [n, c], of a map [n, c, h, w]: ``attention.GCT`` with its two scales as one."""

    alpha_squared: Tensor
    scale: Tensor
    beta: Tensor

    def __init__(self, gct: GCT) -> None:
        super().__init__()
        alpha, gamma, beta = (p.detach().float().flatten() for p in (gct.alpha, gct.gamma, gct.beta))
        self.eps = gct.eps
        self.register_buffer("alpha_squared", alpha.square() / len(alpha))
        self.register_buffer("scale", alpha * gamma)
        self.register_buffer("beta", beta)

    def numbers(self) -> GCTNumbers:
        """See ``InferenceForm.numbers``."""
        return GCTNumbers(_array(self.alpha_squared), _array(self.scale), _array(self.beta), self.eps)

    def forward(self, x: Tensor) -> Tensor:
        energy = _sum_of_squares(x) + self.eps
        across = functional.linear(energy, self.alpha_squared[None]) + self.eps
        return 1.0 + torch.tanh(torch.addcmul(self.beta, torch.sqrt(energy) * torch.rsqrt(across), self.scale))


class SEGate(nn.Module):
    """SE's factors, float32 [n, c], of a map [n, c, h, w]: its 1×1 convolutions as linear layers."""

    squeeze: nn.Linear
    excite: nn.Linear

    def __init__(self, se: SE) -> None:
        super().__init__()
        self.squeeze, self.excite = _linear(se.squeeze), _linear(se.excite)

    def numbers(self) -> SENumbers:
        """See ``InferenceForm.numbers``."""
        return SENumbers(_linear_numbers(self.squeeze), _linear_numbers(self.excite))

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(dim=(2, 3), dtype=torch.float32)
        squeezed = torch.relu(self.squeeze(pooled))
        return torch.sigmoid(self.excite(squeezed))


def _sum_of_squares(x: Tensor) -> Tensor:
    """Float32 [n, c] of [n, c, h, w]."""
    if x.device.type == "cpu" and x.dtype != torch.float16:
        # On a map that lies in the cache, two vectorised passes take a fraction of what torch's norm takes.
        return x.square().sum(dim=(2, 3), dtype=torch.float32)
    norm: Tensor = torch.linalg.vector_norm(x, dim=(2, 3), dtype=torch.float32)
    return norm.square()


def _folded(block: SingleBlock) -> nn.Conv2d:
    """The block's convolution with a bias; the plain chain's batch norm, which ``fuse`` leaves alone, goes into it."""
    conv = block.conv
    weight, bias = conv.weight.detach(), conv.bias
    if isinstance(block.bn, nn.BatchNorm2d):
        weight, bias = fold_batch_norm(weight, block.bn)
    return conv3x3(weight, torch.zeros_like(weight[:, 0, 0, 0]) if bias is None else bias, conv.stride)


def _gate(attention: nn.Module) -> GCTGate | SEGate | None:
    if isinstance(attention, GCT):
        return GCTGate(attention)
    if isinstance(attention, SE):
        return SEGate(attention)
    return None


def _linear(conv: nn.Conv2d) -> nn.Linear:
    linear = nn.Linear(conv.in_channels, conv.out_channels)
    with torch.no_grad():
        linear.weight.copy_(conv.weight[:, :, 0, 0])
        linear.bias.copy_(conv.bias)  # type: ignore[arg-type]
    return linear.to(conv.weight.device)


def _linear_numbers(linear: nn.Linear) -> LinearNumbers:
    return LinearNumbers(_array(linear.weight), _array(linear.bias))


def _array(values: Tensor | None) -> Float32Array:
    assert values is not None
    array: Float32Array = values.detach().float().cpu().contiguous().numpy()
    return array
