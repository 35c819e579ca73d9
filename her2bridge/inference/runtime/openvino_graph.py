"""The tile network as an OpenVINO graph, built operation by operation: nothing is traced, so that it is there at once.

What OpenVINO's CPU plugin makes of it, and why it is written so (seen in its runtime model and its profile):

* the batch is fixed: with an open one it copies the pixels twice to turn them and normalises them value by value;
* normalising, and each gate's product with its ReLU, become one pass over the map, and so does each reduction;
* a gate's small numbers are [n, c] and only then seen as [n, c, 1, 1]: else the plugin fuses the whole gate into the
  product and computes a root and a tanh for every pixel;
* the plugin keeps the sums of ``ReduceL2`` in fp32 where the maps are bf16.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from her2bridge.model.fused_numbers import BlockNumbers, FusedNumbers, GCTNumbers, LinearNumbers, SENumbers
from her2bridge.records import Float32Array


def build_model(
    openvino: Any, network: FusedNumbers, normalisation: tuple[Float32Array, Float32Array], shape: tuple[int, int]
) -> Any:
    """An ``openvino.Model``: uint8 [b, size, size, 3] to logits, float32 [b, classes].

    Args:
        openvino: the module, imported without its telemetry.
        normalisation: scale and shift of the pixels, float32 [3] each.
        shape: tiles a call and their side in pixels.
    """
    batch, size = shape
    graph = _Graph(openvino.opset13)
    op = graph.op
    pixels = op.parameter([batch, size, size, 3], np.uint8, name="pixels")
    scale, shift = (graph.numbers(values) for values in normalisation)
    x = op.add(op.multiply(op.convert(pixels, "f32"), scale), shift)
    x = op.transpose(x, graph.axes(0, 3, 1, 2))
    *blocks, last = network.blocks
    for block in blocks:
        y = graph.convolution(x, block)
        if block.gate is not None:
            y = op.multiply(y, graph.gate(y, block.gate))
        x = op.relu(y)
    y = graph.convolution(x, last)
    pooled = op.reduce_mean(op.relu(y), graph.axes(2, 3), True)
    if last.gate is not None:
        pooled = op.multiply(pooled, graph.gate(y, last.gate))
    pooled = op.squeeze(pooled, graph.axes(2, 3))
    head = network.head
    logits = op.add(op.matmul(pooled, graph.numbers(head.weight), False, True), graph.numbers(head.bias))
    return openvino.Model([logits], [pixels], "her2bridge")


class _Graph:
    """The operations that a block is made of."""

    def __init__(self, opset: Any) -> None:
        self.op = opset

    def numbers(self, values: Float32Array | list[float], *shape: int) -> Any:
        """A constant, float32, of that shape if one is given."""
        array = np.asarray(values, dtype=np.float32)
        return self.op.constant(array.reshape(shape) if shape else array)

    def axes(self, *which: int) -> Any:
        return self.op.constant(np.array(which, dtype=np.int64))

    def convolution(self, x: Any, block: BlockNumbers) -> Any:
        """Padded by one pixel, as all 3×3 convolutions here are, and its bias."""
        weight, bias = self.numbers(block.weight), self.numbers(block.bias, 1, -1, 1, 1)
        return self.op.add(self.op.convolution(x, weight, list(block.stride), [1, 1], [1, 1], [1, 1]), bias)

    def gate(self, y: Any, gate: GCTNumbers | SENumbers) -> Any:
        """The factors of a map's channels, [n, c, 1, 1]."""
        return self._gct(y, gate) if isinstance(gate, GCTNumbers) else self._se(y, gate)

    def _gct(self, y: Any, gate: GCTNumbers) -> Any:
        op = self.op
        norm = op.reduce_l2(y, self.axes(2, 3), False)
        energy = op.add(op.multiply(norm, norm), self.numbers([gate.eps]))
        across = op.reduce_sum(op.multiply(energy, self.numbers(gate.alpha_squared)), self.axes(1), True)
        across = op.add(across, self.numbers([gate.eps]))
        relative = op.multiply(op.sqrt(energy), op.power(across, self.numbers([-0.5])))
        inner = op.add(op.multiply(relative, self.numbers(gate.scale)), self.numbers(gate.beta))
        factors = op.add(op.tanh(inner), self.numbers([1.0]))
        return op.reshape(factors, self.axes(0, 0, 1, 1), True)

    def _se(self, y: Any, gate: SENumbers) -> Any:
        op = self.op
        # 1×1 convolutions: here they cost the plugin a tenth of what small matrix products do.
        pooled = op.reduce_mean(y, self.axes(2, 3), True)
        squeezed = op.relu(self._linear(pooled, gate.squeeze))
        return op.sigmoid(self._linear(squeezed, gate.excite))

    def _linear(self, x: Any, linear: LinearNumbers) -> Any:
        weight = self.numbers(linear.weight, *linear.weight.shape, 1, 1)
        y = self.op.convolution(x, weight, [1, 1], [0, 0], [0, 0], [1, 1])
        return self.op.add(y, self.numbers(linear.bias, 1, -1, 1, 1))
