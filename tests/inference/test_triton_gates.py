"""Triton's kernels against what they stand for: on a GPU as they are run, elsewhere by Triton's interpreter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from her2bridge.inference.runtime import cuda_device
from her2bridge.inference.runtime.cuda_device import triton_form
from her2bridge.model.attention import GCT, Attention
from her2bridge.model.inference_form import InferenceForm, inference_form
from her2bridge.model.repvgg import NetworkSpec, Stage, build

INSTALLED = importlib.util.find_spec("triton") is not None
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

IS_REQUIRED = "triton" in os.environ.get("HER2BRIDGE_REQUIRE", "").replace(",", " ").split()  # then no test is skipped

needs_triton = pytest.mark.skipif(not (INSTALLED or IS_REQUIRED), reason="triton is not installed")
ATTENTIONS: tuple[Attention, ...] = ("none", "gct", "se")


def form_of(attention: Attention, dtype: torch.dtype = torch.float32, channels: tuple[int, ...] = (48,)) -> Any:
    """Blocks of those widths, the first halving the map, with gates that tell channels and maps apart."""
    torch.manual_seed(9)
    network = build(NetworkSpec(stages=tuple(Stage(c, 1) for c in channels), attention=attention)).eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, GCT):
                for parameter in (module.alpha, module.gamma, module.beta):
                    parameter.normal_(0.3, 0.5)
            if isinstance(module, nn.BatchNorm2d):
                module.bias.normal_(0, 0.5)
    return inference_form(network, dtype).to(DEVICE)


def maps_of(count: int, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    random = torch.Generator().manual_seed(height * width)
    maps = torch.randn((count, channels, height, width), generator=random) * 2
    return maps.to(DEVICE, dtype).contiguous(memory_format=torch.channels_last)


def plain_end(block: Any, maps: Tensor) -> Tensor:
    """Bias, gate as ``model.attention`` defines it, ReLU, in fp64."""
    y = maps.double() + block.bias.double()[None, :, None, None]
    if block.gate is None:
        return y.relu()
    if hasattr(block.gate, "squeeze"):
        squeeze, excite = (layer.double() for layer in (block.gate.squeeze, block.gate.excite))
        gates = torch.sigmoid(excite(torch.relu(squeeze(y.mean(dim=(2, 3))))))
        for layer in (block.gate.squeeze, block.gate.excite):
            layer.float()
        return y.relu() * gates[:, :, None, None]
    # s = alpha · sqrt(sum(y²) + eps), gate = 1 + tanh(gamma · s / sqrt(mean(s²) + eps) + beta)
    gate = block.gate
    energy = y.square().sum(dim=(2, 3)) + gate.eps
    across = (gate.alpha_squared.double() * energy).sum(dim=1, keepdim=True) + gate.eps
    inner = gate.scale.double() * (energy / across).sqrt() + gate.beta.double()
    return (y * (1 + inner.tanh())[:, :, None, None]).relu()


@needs_triton
class TestKernels:
    @pytest.mark.parametrize("attention", ATTENTIONS)
    @pytest.mark.parametrize(
        ("dtype", "channels", "height", "width"),
        [
            (torch.float32, 48, 33, 35),  # summed in two parts
            (torch.float32, 80, 9, 4),
            (torch.float32, 16, 1, 1),
            (torch.bfloat16, 96, 5, 7),
            (torch.bfloat16, 192, 3, 1),
            (torch.float16, 48, 8, 8),
            (torch.float16, 1280, 2, 2),
        ],
        ids=str,
    )
    def test_ends_of_blocks(
        self, attention: Attention, dtype: torch.dtype, channels: int, height: int, width: int
    ) -> None:
        from her2bridge.inference.runtime.triton_gates import TritonForm

        block = TritonForm(form_of(attention, dtype, (channels,))).last
        maps = maps_of(2, channels, height, width, dtype)
        with torch.inference_mode():
            expected = plain_end(block, maps)
            pooled = block.finish_pooled(maps)
            got = block.finish(maps)
        assert got.data_ptr() == maps.data_ptr()
        assert got.dtype == dtype
        spread = float(expected.abs().max())
        torch.testing.assert_close(got.double(), expected, rtol=torch.finfo(dtype).eps, atol=2e-6 * spread)
        torch.testing.assert_close(pooled.double(), expected.mean(dim=(2, 3)), rtol=1e-5, atol=2e-6 * spread)

    @pytest.mark.parametrize("attention", ATTENTIONS)
    def test_the_whole_network(self, attention: Attention) -> None:
        form = form_of(attention, channels=(16, 48))
        fast = triton_form(form)
        assert fast is not None
        planes = maps_of(3, 3, 16, 16, torch.float32)
        with torch.inference_mode():
            expected = form(planes)
            torch.testing.assert_close(fast(planes), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
        assert float(expected.std(dim=0).min()) > 0

    def test_maps_in_another_order_are_refused(self) -> None:
        from her2bridge.inference.runtime.triton_gates import TritonForm

        block = TritonForm(form_of("gct")).last
        with pytest.raises(ValueError, match="channels-last"):
            block.finish(torch.zeros(2, 48, 4, 4, device=DEVICE))

    def test_they_compile_for_a_gpu(self, tmp_path: Path) -> None:
        """Triton needs no GPU for that; and what its interpreter runs is not all that it compiles."""
        code = (
            "import triton\n"
            "from triton.backends.compiler import GPUTarget\n"
            "from triton.compiler import ASTSource\n"
            "from her2bridge.inference.runtime import triton_gates as gates\n"
            "def compile(kernel, types, **fixed):\n"
            "    types = types.split()\n"
            "    names = kernel.arg_names\n"
            "    signature = dict(zip(names, types + ['constexpr'] * len(fixed), strict=True))\n"
            "    source = ASTSource(kernel, signature, {(names.index(name),): fixed[name] for name in fixed})\n"
            "    assert triton.compile(source, target=GPUTarget('cuda', 80, 32)).asm['ptx']\n"
            "for maps in ('*fp32', '*bf16'):\n"
            "    for on in (True, False):\n"
            "        compile(gates._sum_kernel, maps + ' *fp32 *fp32 *fp32 i32 i32', CHANNELS=48, SQUARED=on,\n"
            "                POSITIVE=on, ROWS=1024, BLOCK_ROWS=64, BLOCK_CHANNELS=64)\n"
            "        compile(gates._scale_kernel, maps + ' *fp32 *fp32 i32', CHANNELS=48, GATED=on, BLOCK=2048)\n"
            "compile(gates._gct_kernel, '*fp32 *fp32 *fp32 *fp32 *fp32 i32 fp32', CHANNELS=48, BLOCK_CHANNELS=64)\n"
        )
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment["TRITON_CACHE_DIR"] = str(tmp_path)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, timeout=240, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


class TestFallingBack:
    def test_without_triton(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        module = "her2bridge.inference.runtime.triton_gates"
        monkeypatch.delitem(sys.modules, module, raising=False)
        monkeypatch.delattr(module, raising=False)
        monkeypatch.setitem(sys.modules, "triton", None)
        with caplog.at_level("INFO"):
            assert triton_form(form_of("gct")) is None
        assert "Without Triton" in caplog.text

    @needs_triton
    def test_kernels_that_fail(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        from her2bridge.inference.runtime import triton_gates

        def no_compiler(self: object) -> float:
            raise RuntimeError("Failed to find C compiler")

        monkeypatch.setattr(triton_gates.TritonForm, "deviation", no_compiler)
        assert triton_form(form_of("gct")) is None
        assert "Failed to find C compiler" in caplog.text

    @needs_triton
    @pytest.mark.parametrize("attention", ATTENTIONS)
    def test_kernels_that_are_wrong(
        self, attention: Attention, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """By half a per cent, everywhere: the check that precedes their use must see it."""
        from her2bridge.inference.runtime import triton_gates

        right = triton_gates._scale

        def wrong(maps: Tensor, bias: Tensor, gates: Tensor | None) -> Tensor:
            return right(maps, bias, gates).mul_(1.005)

        monkeypatch.setattr(triton_gates, "_scale", wrong)
        assert triton_form(form_of(attention)) is None
        assert "torch's are used" in caplog.text

    @needs_triton
    def test_the_form_given_is_kept(self) -> None:
        form: InferenceForm = form_of("gct")
        before = {name: value.clone() for name, value in form.state_dict().items()}
        assert cuda_device.triton_form(form) is not None
        for name, value in form.state_dict().items():
            assert torch.equal(value, before[name])
