"""Bias, gate and ReLU of a block in two passes over its map: Triton kernels for CUDA.

What torch does after a block's convolution (add the bias, sum the squares, ReLU, scale by the gate) takes four passes
over the map. Here the map is read once for the sums and read and written once for the rest, and the gate itself is one
small kernel on [n, c] numbers. All arithmetic is in fp32; sums are taken in a fixed order, so that results repeat.

Needs the package ``triton``, which torch's CUDA builds bring along: import this module only where a CUDA device is to
be used, and be ready for ImportError and for ``FAILURES``. With ``TRITON_INTERPRET=1`` in the environment before the
import, the kernels run on CPU tensors, slowly: that is how they are tested without a GPU.
"""

from __future__ import annotations

import subprocess
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn
from torch.nn import functional
from triton.errors import TritonError
from triton.language import constexpr

from her2bridge.model.inference_form import GCTGate, InferenceForm, SEGate

FAILURES = (TritonError, RuntimeError, OSError, subprocess.SubprocessError, TypeError, ValueError, AttributeError)
"""What compiling and launching a kernel raises where Triton, the C compiler that it calls or the driver do not fit."""

_ROWS = 1024  # of a map that one program sums: enough programs to fill a GPU, and few partial sums
_TILE = 4096  # values at once
_FLAT = 2048  # values of a program that scales

# The kernels' other arguments bear no types: Triton would look those up among what a kernel may use.


@triton.jit  # type: ignore[untyped-decorator]
def _sum_kernel(  # type: ignore[no-untyped-def]
    maps,
    bias,
    sums,
    positive,
    pixels,
    chunks,
    CHANNELS: constexpr,
    SQUARED: constexpr,
    POSITIVE: constexpr,
    ROWS: constexpr,
    BLOCK_ROWS: constexpr,
    BLOCK_CHANNELS: constexpr,
):
    """Of ``ROWS`` pixels of one map: the channels' sums of (x + bias), squared or not, and of relu(x + bias)."""
    image, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    channel = tl.program_id(2) * BLOCK_CHANNELS + tl.arange(0, BLOCK_CHANNELS)
    known = channel < CHANNELS
    shift = tl.load(bias + channel, mask=known, other=0.0)[None, :]
    total = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], dtype=tl.float32)
    rectified = tl.zeros([BLOCK_ROWS, BLOCK_CHANNELS], dtype=tl.float32)
    for first in range(0, ROWS, BLOCK_ROWS):
        row = chunk * ROWS + first + tl.arange(0, BLOCK_ROWS)
        inside = (row < pixels)[:, None] & known[None, :]
        where = maps + image * pixels * CHANNELS + row[:, None] * CHANNELS + channel[None, :]
        value = tl.where(inside, tl.load(where, mask=inside, other=0.0).to(tl.float32) + shift, 0.0)
        total += value * value if SQUARED else value
        if POSITIVE:
            rectified += tl.maximum(value, 0.0)
    out = (image * chunks + chunk) * CHANNELS + channel
    tl.store(sums + out, tl.sum(total, axis=0), mask=known)
    if POSITIVE:
        tl.store(positive + out, tl.sum(rectified, axis=0), mask=known)


@triton.jit  # type: ignore[untyped-decorator]
def _gct_kernel(  # type: ignore[no-untyped-def]
    sums,
    alpha_squared,
    scale,
    beta,
    gates,
    chunks,
    eps,
    CHANNELS: constexpr,
    BLOCK_CHANNELS: constexpr,
):
    """GCT's factors of one map, from the sums of squares of its chunks."""
    image = tl.program_id(0)
    channel = tl.arange(0, BLOCK_CHANNELS)
    known = channel < CHANNELS
    energy = tl.zeros([BLOCK_CHANNELS], dtype=tl.float32)
    for chunk in range(0, chunks):
        energy += tl.load(sums + (image * chunks + chunk) * CHANNELS + channel, mask=known, other=0.0)
    energy += eps
    across = tl.sum(tl.load(alpha_squared + channel, mask=known, other=0.0) * energy, axis=0) + eps
    relative = tl.sqrt(energy / across)
    inner = tl.load(beta + channel, mask=known, other=0.0)
    inner += tl.load(scale + channel, mask=known, other=0.0) * relative
    # 1 + tanh(x) = 2 · sigmoid(2x)
    tl.store(gates + image * CHANNELS + channel, 2.0 / (1.0 + tl.exp(-2.0 * inner)), mask=known)


@triton.jit  # type: ignore[untyped-decorator]
def _scale_kernel(  # type: ignore[no-untyped-def]
    maps, bias, gates, values, CHANNELS: constexpr, GATED: constexpr, BLOCK: constexpr
):
    """In place: relu(x + bias), times the map's gates."""
    image = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < values
    channel = at % CHANNELS
    where = maps + image * values + at
    value = tl.load(where, mask=inside, other=0.0).to(tl.float32) + tl.load(bias + channel)
    value = tl.maximum(value, 0.0)
    if GATED:
        value *= tl.load(gates + image * CHANNELS + channel)
    tl.store(where, value.to(maps.dtype.element_ty), mask=inside)


class TritonForm(nn.Module):
    """An ``InferenceForm`` on a CUDA device, the ends of its blocks by these kernels; it shares the form's weights.

    Input: float [n, 3, h, w], normalised, channels last; output: logits, float32 [n, classes].
    """

    def __init__(self, form: InferenceForm) -> None:
        super().__init__()
        self.dtype = form.dtype
        blocks: list[Any] = [*form.body, form.last]
        *body, self.last = (_Block(block.conv, block.gate) for block in blocks)
        self.body = nn.Sequential(*body)
        self.head = form.head

    def forward(self, planes: Tensor) -> Tensor:
        x = planes.to(self.dtype, memory_format=torch.channels_last)
        return torch.as_tensor(self.head(self.last.pooled(self.body(x))))

    def deviation(self, height: int = 33, width: int = 35) -> float:
        """How far the kernels are from torch on maps of random numbers, in units of what rounding explains.

        Up to 1 is right. Every block is tried, on maps that are, by default, summed in more than one part.
        """
        return max(block.deviation(height, width) for block in self.modules() if isinstance(block, _Block))


class _Block(nn.Module):
    """A convolution without its bias, then ``finish``: bias, gate and ReLU; or ``finish_pooled``: their mean too."""

    bias: Tensor

    def __init__(self, conv: nn.Conv2d, gate: nn.Module | None) -> None:
        super().__init__()
        self.conv, self.gate = conv, gate
        if conv.bias is None:
            raise ValueError("the inference form's convolutions have a bias")
        self.register_buffer("bias", conv.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self._convolved(x))

    def pooled(self, x: Tensor) -> Tensor:
        return self.finish_pooled(self._convolved(x))

    def _convolved(self, x: Tensor) -> Tensor:
        conv = self.conv
        y = functional.conv2d(x, conv.weight, None, conv.stride, conv.padding)
        return y.contiguous(memory_format=torch.channels_last)

    def finish(self, maps: Tensor) -> Tensor:
        """relu(maps + bias) · gate, in place; maps [n, c, h, w] channels last."""
        gates = None if self.gate is None else self._gates(_sums(maps, self.bias, self._squared)[0], maps)
        return _scale(maps, self.bias, gates)

    def finish_pooled(self, maps: Tensor) -> Tensor:
        """Mean over the map of what ``finish`` gives, float32 [n, c]: the gate acts on the mean; maps are kept."""
        sums, positive = _sums(maps, self.bias, self._squared, positive=True)
        mean = positive.sum(dim=1) / (maps.shape[2] * maps.shape[3])
        return mean if self.gate is None else mean * self._gates(sums, maps)

    @property
    def _squared(self) -> bool:
        return isinstance(self.gate, GCTGate)

    def _gates(self, sums: Tensor, maps: Tensor) -> Tensor:
        """Float32 [n, c] from sums [n, chunks, c]."""
        if isinstance(self.gate, GCTGate):
            return _gct(sums, self.gate)
        if isinstance(self.gate, SEGate):
            mean = sums.sum(dim=1) / (maps.shape[2] * maps.shape[3])
            return torch.sigmoid(self.gate.excite(torch.relu(self.gate.squeeze(mean))))
        raise ValueError(f"no kernel for {type(self.gate).__name__}")

    def deviation(self, height: int, width: int) -> float:
        """See ``TritonForm.deviation``."""
        device, dtype = self.bias.device, self.conv.weight.dtype
        random = torch.Generator(device).manual_seed(0)
        maps = torch.randn((2, len(self.bias), height, width), generator=random, device=device)
        maps = maps.to(dtype, memory_format=torch.channels_last)
        y = maps.float() + self.bias[None, :, None, None]
        wanted = torch.relu(y) if self.gate is None else torch.relu(y) * self.gate(y)[:, :, None, None]
        pooled = self.finish_pooled(maps)
        return max(
            _deviation(self.finish(maps).float(), wanted, 2 * torch.finfo(dtype).eps + 1e-5),
            _deviation(pooled, wanted.mean(dim=(2, 3)), 1e-4),
        )


def _deviation(got: Tensor, wanted: Tensor, allowed: float) -> float:
    """The largest difference, in units of ``allowed`` times the value there or the mean value; NaN where one is."""
    return float(((got - wanted).abs() / (allowed * (wanted.abs() + wanted.abs().mean()))).max())


def _sums(maps: Tensor, bias: Tensor, squared: bool, *, positive: bool = False) -> tuple[Tensor, Tensor]:
    """Sums over parts of the map, float32 [n, chunks, c]: of (x + bias), squared or not, and of relu(x + bias)."""
    count, channels, height, width = maps.shape
    pixels = height * width
    chunks = triton.cdiv(pixels, _ROWS)
    columns = _columns(channels)
    rows = min(_ROWS, triton.next_power_of_2(pixels))
    sums = torch.empty((count, chunks, channels), dtype=torch.float32, device=maps.device)
    rectified = torch.empty_like(sums) if positive else sums
    _sum_kernel[(count, chunks, triton.cdiv(channels, columns))](
        _channels_last(maps), bias, sums, rectified, pixels, chunks,
        CHANNELS=channels, SQUARED=squared, POSITIVE=positive,
        ROWS=rows, BLOCK_ROWS=min(rows, _TILE // columns), BLOCK_CHANNELS=columns,
    )  # fmt: skip
    return sums, rectified


def _gct(sums: Tensor, gate: GCTGate) -> Tensor:
    """GCT's factors, float32 [n, c], from sums of squares [n, chunks, c]."""
    count, chunks, channels = sums.shape
    gates = torch.empty((count, channels), dtype=torch.float32, device=sums.device)
    _gct_kernel[(count,)](
        sums, gate.alpha_squared, gate.scale, gate.beta, gates, chunks, gate.eps,
        CHANNELS=channels, BLOCK_CHANNELS=triton.next_power_of_2(channels),
    )  # fmt: skip
    return gates


def _scale(maps: Tensor, bias: Tensor, gates: Tensor | None) -> Tensor:
    """relu(maps + bias) · gates, in place."""
    count, channels, height, width = maps.shape
    values = channels * height * width
    _scale_kernel[(count, triton.cdiv(values, _FLAT))](
        _channels_last(maps), bias, bias if gates is None else gates, values,
        CHANNELS=channels, GATED=gates is not None, BLOCK=_FLAT,
    )  # fmt: skip
    return maps


def _columns(channels: int) -> int:
    """Channels of a program: a power of two that divides them where that fills a cache line, else one above them."""
    whole = min(channels & -channels, 256)
    return whole if whole >= 64 else min(int(triton.next_power_of_2(channels)), 256)


def _channels_last(maps: Tensor) -> Tensor:
    if not maps.is_contiguous(memory_format=torch.channels_last):
        raise ValueError("the kernels take maps in channels-last order")
    return maps
