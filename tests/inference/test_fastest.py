from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from random_bundle import Hardware, random_bundle, some_tiles

from her2bridge.errors import UsageError
from her2bridge.inference.runtime import choose, fastest, openvino_runtime
from her2bridge.inference.runtime.base import Pending, Runtime
from her2bridge.inference.runtime.choose import choose_runtime, measured
from her2bridge.inference.runtime.openvino_runtime import OpenVinoRuntime
from her2bridge.inference.runtime.torch_runtime import TorchRuntime
from her2bridge.inference.second_look import DOUBT
from her2bridge.records import ByteArray, Float32Array

HERE = {"cpu": "made up", "cores": 2}


class Clock:
    """Time that passes only when a runtime computes."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Timed:
    """A runtime that takes so many seconds a tile, and twice as many the first time."""

    depth, device, precision = 1, "cpu", "fp32"

    def __init__(self, name: str, seconds: float, clock: Clock) -> None:
        self.name, self.calls, self._seconds, self._clock = name, 0, seconds, clock

    def __call__(self, tiles: ByteArray) -> Float32Array:
        self.calls += 1
        self._clock.now += len(tiles) * self._seconds * (2 if self.calls == 1 else 1)
        return np.full((len(tiles), 6), 1 / 6, dtype=np.float32)

    def start(self, tiles: ByteArray) -> Pending:
        result = self(tiles)
        return lambda: result


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder that is not there yet."""
    monkeypatch.setenv("HER2BRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    return tmp_path / "cache" / "runtimes.json"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Timed]:
    """What has been made, by name."""
    return {}


@pytest.fixture
def candidates(monkeypatch: pytest.MonkeyPatch, made: dict[str, Timed]) -> dict[str, Callable[[], Runtime]]:
    clock = Clock()
    monkeypatch.setattr(fastest, "time", clock)

    def maker(name: str, seconds: float) -> Callable[[], Runtime]:
        def make() -> Runtime:
            made[name] = Timed(name, seconds, clock)
            return made[name]

        return make

    return {"slow": maker("slow", 0.02), "quick": maker("quick", 0.01)}


def broken() -> Runtime:
    raise RuntimeError("unknown operator")


class TestFastest:
    def test_measured_once_and_remembered(self, candidates: Any, made: dict[str, Timed], cache: Path) -> None:
        assert fastest.remembered(HERE) is None
        assert fastest.fastest(candidates, HERE, 8).name == "quick"
        assert fastest.remembered(HERE) == {"slow": pytest.approx(50), "quick": pytest.approx(100)}
        made.clear()
        again = fastest.fastest(candidates, HERE, 8)
        assert (again.name, list(made), made["quick"].calls) == ("quick", ["quick"], 0)

    def test_what_was_remembered_is_believed(self, candidates: Any, cache: Path) -> None:
        fastest.fastest(candidates, HERE, 8)
        cache.write_text(cache.read_text().replace("50.0", "500.0"))
        assert fastest.fastest(candidates, HERE, 8).name == "slow"

    def test_other_conditions_are_measured_anew(self, candidates: Any, made: dict[str, Timed], cache: Path) -> None:
        fastest.fastest(candidates, HERE, 8)
        made.clear()
        fastest.fastest(candidates, {**HERE, "cores": 4}, 8)
        assert set(made) == {"slow", "quick"}
        made.clear()
        fastest.fastest(candidates, HERE, 8)
        assert set(made) == {"quick"}  # still known
        assert len(json.loads(cache.read_text())["entries"]) == 2

    def test_other_candidates_are_measured_anew(self, candidates: Any, made: dict[str, Timed], cache: Path) -> None:
        fastest.fastest(candidates, HERE, 8)
        made.clear()
        fastest.fastest({**candidates, "third": candidates["slow"]}, HERE, 8)
        assert set(made) == {"slow", "quick"}

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"\xff",
            b"[]",
            b'{"entries": 3}',
            b'{"entries": [3, {"for": {}, "tiles_per_second": {"a": "x"}}]}',
        ],
    )
    def test_a_damaged_file_is_replaced(self, candidates: Any, cache: Path, content: bytes) -> None:
        cache.parent.mkdir()
        cache.write_bytes(content)
        assert fastest.fastest(candidates, HERE, 8).name == "quick"
        assert fastest.remembered(HERE) is not None

    def test_what_a_busy_machine_says_is_not_remembered(
        self, candidates: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fastest, "available_cores", lambda: 4)
        monkeypatch.setattr(os, "getloadavg", lambda: (6.5, 0.0, 0.0), raising=False)
        assert fastest.fastest(candidates, HERE, 8).name == "quick"
        assert not cache.exists()
        monkeypatch.setattr(os, "getloadavg", lambda: (5.5, 20.0, 20.0), raising=False)
        fastest.fastest(candidates, HERE, 8)
        assert fastest.remembered(HERE) is not None

    @pytest.mark.parametrize(("days", "is_believed"), [(29, True), (31, False)])
    def test_a_month_later_it_is_measured_anew(
        self, days: int, is_believed: bool, candidates: Any, cache: Path
    ) -> None:
        fastest.fastest(candidates, HERE, 8)
        content = json.loads(cache.read_text())
        then = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)
        content["entries"][0]["measured"] = then.isoformat(timespec="seconds")
        cache.write_text(json.dumps(content))
        assert (fastest.remembered(HERE) is not None) == is_believed

    def test_without_a_home_folder(self, candidates: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HER2BRIDGE_CACHE", "~nobody-of-that-name/cache")
        assert fastest.fastest(candidates, HERE, 8).name == "quick"
        assert fastest.remembered(HERE) is None

    def test_where_nothing_can_be_written(self, candidates: Any, cache: Path) -> None:
        cache.parent.write_bytes(b"a file where the folder would be")
        assert fastest.fastest(candidates, HERE, 8).name == "quick"
        assert fastest.remembered(HERE) is None

    def test_one_that_cannot_be_made_gives_way(
        self, candidates: Any, cache: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert fastest.fastest({**candidates, "quick": broken}, HERE, 8).name == "slow"
        assert "unknown operator" in caplog.text
        assert fastest.remembered(HERE) is None  # it may work tomorrow
        fastest.fastest(candidates, HERE, 8)
        assert fastest.fastest({**candidates, "quick": broken}, HERE, 8).name == "slow"  # though the other was faster
        with pytest.raises(RuntimeError, match="unknown operator"):
            fastest.fastest({"only": broken}, HERE, 8)

    def test_the_oldest_entries_go(self, candidates: Any, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fastest, "_KEPT", 2)
        for cores in (1, 2, 3):
            fastest.fastest(candidates, {"cores": cores}, 8)
        assert [fastest.remembered({"cores": cores}) is None for cores in (1, 2, 3)] == [True, False, False]


class TestCacheFolder:
    @pytest.mark.parametrize(
        ("platform", "variables", "folder"),
        [
            ("linux", {}, "home/.cache/her2bridge"),
            ("linux", {"XDG_CACHE_HOME": "relative"}, "home/.cache/her2bridge"),
            ("linux", {"XDG_CACHE_HOME": "{}/xdg"}, "xdg/her2bridge"),
            ("darwin", {"XDG_CACHE_HOME": "{}/xdg"}, "home/Library/Caches/her2bridge"),
            ("win32", {"LOCALAPPDATA": "{}/local"}, "local/her2bridge/Cache"),
            ("win32", {}, "home/AppData/Local/her2bridge/Cache"),
            ("linux", {"HER2BRIDGE_CACHE": "{}/ours", "XDG_CACHE_HOME": "{}/xdg"}, "ours"),
        ],
    )
    def test_is_where_the_system_wants_it(
        self, platform: str, variables: dict[str, str], folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("HER2BRIDGE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(tmp_path))
        monkeypatch.setattr(sys, "platform", platform)
        monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
        assert fastest.cache_folder() == tmp_path / folder


@pytest.mark.skipif(not openvino_runtime.is_installed(), reason="the extra openvino is not installed")
class TestChoice:
    def test_the_measured_one_is_taken(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        bundle = random_bundle(size=64)
        assert measured(bundle, "fp32") is None
        first = choose_runtime(bundle, "cpu", "fp32", hardware=Hardware())
        speeds = measured(bundle, "fp32")
        assert speeds is not None
        assert set(speeds) == {"openvino fp32", "torch fp32"}
        assert first.name.lower().startswith(max(speeds, key=lambda name: speeds[name]).split()[0])
        monkeypatch.setattr(choose, "remembered", None)  # not asked where the runtime is named
        for name, kind in (("torch", TorchRuntime), ("openvino", OpenVinoRuntime)):
            assert isinstance(choose_runtime(bundle, "cpu", "fp32", runtime=name), kind)

    @pytest.mark.parametrize(("slower", "kind"), [("openvino", TorchRuntime), ("torch", OpenVinoRuntime)])
    def test_either_may_win(self, slower: str, kind: type, cache: Path) -> None:
        bundle = random_bundle(size=64)
        choose_runtime(bundle, "cpu", "fp32", hardware=Hardware())
        content = json.loads(cache.read_text())
        content["entries"][0]["tiles_per_second"][f"{slower} fp32"] = 0.001
        cache.write_text(json.dumps(content))
        assert isinstance(choose_runtime(bundle, "cpu", "fp32", hardware=Hardware()), kind)

    def test_what_torch_computes_in_is_remembered(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """So that torch need not be loaded to ask; but only from a comparison with the same others."""
        bundle = random_bundle(size=64)
        choose_runtime(bundle, "cpu", "fp32")
        conditions = choose._conditions(bundle, "fp32")
        remembered = partial(choose._remembered_precision, conditions)
        assert remembered("fp32", {"openvino fp32"}) == "fp32"
        assert remembered("fp32", {"openvino bf16"}) is None
        assert remembered("fp32", set()) is None
        assert choose._remembered_precision({**conditions, "torch": "1"}, "fp32", {"openvino fp32"}) is None
        cache.write_text(cache.read_text().replace('"torch fp32"', '"torch int8"'))
        assert remembered("fp32", {"openvino fp32"}) is None
        assert remembered("auto", {"openvino fp32"}) is None

    def test_threads_that_the_user_names_are_measured_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        before = fastest.this_machine()
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        assert fastest.this_machine() != before

    @pytest.mark.parametrize("name", ["torch", "openvino", "auto"])
    def test_auto_takes_bf16_with_a_second_look(self, name: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The CPU need not multiply bf16 for it to be tried: torch and OpenVINO emulate it."""
        has_bf16 = Hardware(cpu_bf16=True)
        monkeypatch.setattr(openvino_runtime, "resolve", lambda wanted: "bf16" if wanted == "auto" else wanted)
        bundle, tiles = random_bundle(size=64), some_tiles(64)[:, ::4, ::4]
        both = choose_runtime(bundle, "cpu", runtime=name, hardware=has_bf16)
        assert both.precision == "bf16+fp32"
        got, exact = both(tiles), TorchRuntime(bundle, torch.device("cpu"), "fp32")(tiles)
        best = np.sort(exact, axis=1)
        surely = best[:, -1] - best[:, -2] < DOUBT / 2  # in doubt, whoever rounds
        assert surely.any()
        assert not surely.all()
        np.testing.assert_allclose(got[surely], exact[surely], atol=1e-4)
        if name != "auto":
            assert choose_runtime(bundle, "cpu", "bf16", runtime=name, hardware=has_bf16).precision == "bf16"

    def test_a_second_look_that_fails_is_told_in_three_parts(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is made in the midst of a run, when a tile first needs it."""
        of = OpenVinoRuntime

        def make(bundle: Any, precision: str) -> Runtime:
            if precision == "fp32":
                raise RuntimeError("no memory\nat all")
            return of(bundle, precision)

        monkeypatch.setattr(openvino_runtime, "resolve", lambda wanted: "bf16" if wanted == "auto" else wanted)
        monkeypatch.setattr(openvino_runtime, "OpenVinoRuntime", make)
        runtime = choose_runtime(random_bundle(size=64), "cpu", runtime="openvino")
        with pytest.raises(UsageError, match=r"second look in fp32 cannot run .*no memory") as error:
            runtime(some_tiles(64)[:, ::4, ::4])
        assert "--precision" in error.value.next_step

    def test_a_precision_that_neither_runs(self, cache: Path) -> None:
        with pytest.raises(UsageError) as error:
            choose_runtime(random_bundle(size=64), "cpu", "fp16", hardware=Hardware())
        assert "fp16" in error.value.what

    @pytest.mark.parametrize("says", ["", "no kernel\nfor this"])
    def test_a_failure_of_the_only_one_is_told_in_three_parts(
        self, says: str, cache: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(bundle: Any, precision: str) -> Runtime:
            raise RuntimeError(says)

        monkeypatch.setattr(openvino_runtime, "resolve", lambda wanted: "bf16")
        monkeypatch.setattr(openvino_runtime, "OpenVinoRuntime", fails)
        for runtime in ("auto", "openvino"):
            with pytest.raises(UsageError, match="RuntimeError") as error:
                choose_runtime(random_bundle(size=64), "cpu", "bf16", runtime=runtime, hardware=Hardware())
            assert "--precision" in error.value.next_step

    def test_without_openvino_nothing_is_measured(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(openvino_runtime, "is_installed", lambda: False)
        bundle = random_bundle(size=64)
        assert isinstance(choose_runtime(bundle, "cpu", "fp32"), TorchRuntime)
        assert not cache.exists()
        with pytest.raises(UsageError, match="not installed"):
            choose_runtime(bundle, "cpu", "fp32", runtime="openvino")

    def test_torch_that_does_not_load_gives_way(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fails(*_: Any) -> str:
            raise OSError("a library is missing")

        def fails_to_import(*_: Any) -> str:
            raise ImportError("no openvino")

        monkeypatch.setattr(choose, "_precision_in_torch", fails)
        assert isinstance(choose_runtime(random_bundle(size=64), "cpu", "fp32"), OpenVinoRuntime)
        assert "a library is missing" in caplog.text
        monkeypatch.setattr(openvino_runtime, "resolve", fails_to_import)
        with pytest.raises(UsageError, match=r"torch cannot run this network .OSError: a library"):
            choose_runtime(random_bundle(size=64), "cpu", "fp32")

    def test_openvino_that_fails_gives_way(
        self, cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def build_model(*_: Any) -> None:
            raise RuntimeError("unknown operator")

        monkeypatch.setattr(openvino_runtime, "build_model", build_model)
        bundle = random_bundle(size=64)
        runtime = choose_runtime(bundle, "cpu", "fp32", hardware=Hardware())
        assert isinstance(runtime, TorchRuntime)
        assert "unknown operator" in caplog.text
        assert runtime(some_tiles(1)[:, :64, :64]).shape == (1, 6)
