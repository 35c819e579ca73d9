"""The tile network as an ONNX file for other programs; written only once it was seen to compute what ours does.

Optional (the extra ``onnx``). The graph is put together from the fused weights: nothing is traced.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from her2bridge.errors import ModelError, UsageError
from her2bridge.inference.runtime.base import normalisation
from her2bridge.model.bundle import Bundle
from her2bridge.model.fused_numbers import BlockNumbers, FusedNumbers, GCTNumbers, LinearNumbers, SENumbers
from her2bridge.records import ByteArray, Float32Array
from her2bridge.storage import write_atomically
from her2bridge.version import version

OPSET, IR_VERSION = 17, 8
"""Old enough for most programs that read ONNX."""

LARGEST_DIFFERENCE = 1e-3
"""By which a probability may differ from ours."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: the file.
        checked_in: library and version that ran it.
        largest_difference: between its probabilities and ours.
    """

    path: Path
    checked_in: str
    largest_difference: float


def export_onnx(bundle: Bundle, path: Path) -> Exported:
    """Write ``pixels``, uint8 [batch, size, size, 3] RGB, to ``probabilities``, float32 [batch, classes].

    Normalisation, softmax and the bundle's temperature are part of the graph; the batch is open.

    Raises:
        UsageError: onnx or ONNX Runtime is not installed.
        ModelError: the file does not compute what the bundle's network does; nothing is written.
        WriteFailed: the file cannot be written.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise UsageError(
            "The packages onnx and onnxruntime are not installed.",
            where="--onnx",
            next_step="Run pip install 'her2bridge[onnx]'.",
        ) from error
    content = _model(onnx, bundle).SerializeToString()
    onnxruntime.disable_telemetry_events()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    checked_in = f"ONNX Runtime {onnxruntime.__version__}"
    difference = _largest_difference(bundle, lambda tiles: np.asarray(session.run(None, {"pixels": tiles})[0]))
    if not difference <= LARGEST_DIFFERENCE:
        raise ModelError(
            f"The ONNX file's probabilities differ from ours by up to {difference:.2g} ({checked_in}).",
            where=str(path),
            next_step="Nothing was written. Install the onnx and onnxruntime that constraints.txt names; "
            "if it stays so, report it.",
        )
    write_atomically(path, content)
    return Exported(path, checked_in, difference)


def _largest_difference(bundle: Bundle, run: Callable[[ByteArray], Float32Array]) -> float:
    """To the training form's probabilities, for tiles of several colours, one alone and several at once."""
    random = np.random.default_rng(0)
    size = bundle.spec.size_px
    colours = random.integers(40, 256, (6, 1, 1, 3))
    noise = random.normal(0, 30, (6, size, size, 3))
    tiles = np.clip(colours + noise, 0, 255).astype(np.uint8)
    scale, shift = normalisation(bundle.card)
    with torch.inference_mode():
        logits = bundle.network()(torch.from_numpy(tiles * scale + shift).permute(0, 3, 1, 2))
        expected = torch.softmax(logits / bundle.temperature, dim=1).numpy()
    got = np.concatenate([run(tiles[:1]), run(tiles[1:])])
    return float(np.abs(got - expected).max())


def _model(onnx: Any, bundle: Bundle) -> Any:
    graph = _Graph(onnx)
    graph.network(bundle.fused(), normalisation(bundle.card), bundle.temperature)
    size, classes = bundle.spec.size_px, len(bundle.card["classes"])
    helper, types = onnx.helper, onnx.TensorProto
    made = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "her2bridge",
            [helper.make_tensor_value_info("pixels", types.UINT8, ["batch", size, size, 3])],
            [helper.make_tensor_value_info("probabilities", types.FLOAT, ["batch", classes])],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="her2bridge",
        producer_version=version(),
        doc_string=f"{bundle.name} {bundle.version}: classes of HER2 tiles. Research use only.",
    )
    helper.set_model_props(made, _properties(bundle))
    onnx.checker.check_model(made, full_check=True)
    return made


def _properties(bundle: Bundle) -> dict[str, str]:
    return {
        "name": bundle.name,
        "version": bundle.version,
        "bundle_sha256": bundle.sha256,
        "license": str(bundle.card["license"]),
        "classes": json.dumps(bundle.card["classes"]),
        "patch_size_px": str(bundle.spec.size_px),
        "spacing_um_px": f"{bundle.spec.mpp:g}",
        "pixels": "uint8 [batch, height, width, 3], RGB, 0 to 255",
        "probabilities": "float32 [batch, classes], rows summing to 1, the temperature applied",
        "intended_use": f"Research use only. {bundle.card['intended_use']}",
    }


class _Graph:
    """Nodes and constants in the order in which they are made; each method gives its output's name."""

    def __init__(self, onnx: Any) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._onnx = onnx

    def network(
        self, network: FusedNumbers, normalisation: tuple[Float32Array, Float32Array], temperature: float
    ) -> None:
        """All of it, from ``pixels`` to ``probabilities``."""
        scale, shift = normalisation
        floats = self.node("Cast", ["pixels"], to=self._onnx.TensorProto.FLOAT)
        x = self.node("Add", [self.node("Mul", [floats, self.constant(scale)]), self.constant(shift)])
        x = self.node("Transpose", [x], perm=[0, 3, 1, 2])
        *blocks, last = network.blocks
        for block in blocks:
            y = self.convolution(x, block)
            x = self.node("Relu", [y])
            if block.gate is not None:
                gate = self.node("Unsqueeze", [self.gate(y, block.gate), self.constant(np.array([2, 3]))])
                x = self.node("Mul", [x, gate])
        y = self.convolution(x, last)
        pooled = self.node("ReduceMean", [self.node("Relu", [y])], axes=[2, 3], keepdims=0)
        if last.gate is not None:
            pooled = self.node("Mul", [pooled, self.gate(y, last.gate)])
        logits = self.linear(pooled, network.head)
        cooled = self.node("Div", [logits, self.constant(np.array(temperature, np.float32))])
        self.node("Softmax", [cooled], "probabilities", axis=1)

    def gate(self, y: str, gate: GCTNumbers | SENumbers) -> str:
        """The factors of a map's channels, [n, c]."""
        if isinstance(gate, SENumbers):
            pooled = self.node("ReduceMean", [y], axes=[2, 3], keepdims=0)
            return self.node(
                "Sigmoid", [self.linear(self.node("Relu", [self.linear(pooled, gate.squeeze)]), gate.excite)]
            )
        norm = self.node("ReduceL2", [y], axes=[2, 3], keepdims=0)
        eps = self.constant(np.array(gate.eps, np.float32))
        energy = self.node("Add", [self.node("Mul", [norm, norm]), eps])
        across = self.node("MatMul", [energy, self.constant(gate.alpha_squared[:, None])])
        relative = self.node("Sqrt", [self.node("Div", [energy, self.node("Add", [across, eps])])])
        scaled = self.node("Mul", [relative, self.constant(gate.scale)])
        bent = self.node("Tanh", [self.node("Add", [scaled, self.constant(gate.beta)])])
        return self.node("Add", [bent, self.constant(np.array(1, np.float32))])

    def convolution(self, x: str, block: BlockNumbers) -> str:
        weight, bias = self.constant(block.weight), self.constant(block.bias)
        return self.node("Conv", [x, weight, bias], kernel_shape=[3, 3], pads=[1] * 4, strides=list(block.stride))

    def linear(self, x: str, linear: LinearNumbers) -> str:
        return self.node("Gemm", [x, self.constant(linear.weight), self.constant(linear.bias)], transB=1)

    def constant(self, values: np.ndarray[Any, Any]) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        name = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._onnx.helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name
