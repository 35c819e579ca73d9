"""The benchmarks' own helpers: what they print and write must be what was measured."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from her2bridge.model.bundle import load_bundle
from her2bridge.records import SlideSource
from her2bridge.slides import open_slide
from her2bridge.synth.slide import write_pyramid

FOLDER = Path(__file__).parents[1] / "benchmarks"
COMMANDS = [
    path
    for path in [*sorted(FOLDER.glob("*.py")), FOLDER / "peers" / "setup.py"]
    if "argparse.ArgumentParser(" in path.read_text(encoding="utf-8")
]


@pytest.fixture
def benchmark() -> Iterator[Any]:
    """Imports a module of ``benchmarks/``; they find each other by their folder, and are forgotten afterwards."""
    before, path = set(sys.modules), list(sys.path)
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            if str(FOLDER) in str(getattr(sys.modules[name], "__file__", "")):
                del sys.modules[name]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path.stem)
def test_each_benchmark_tells_its_options(
    benchmark: Any, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as ended:
        benchmark(path.stem).main()
    assert ended.value.code == 0
    assert f"usage: {path.name}" in capsys.readouterr().out


def test_all_benchmarks_are_asked() -> None:
    assert {"end_to_end", "growth", "reading", "network", "tiling", "setup", "write_results"} <= {
        path.stem for path in COMMANDS
    }


def test_a_table_shows_all_columns_and_what_a_row_lacks(benchmark: Any) -> None:
    rows = [{"what": "a|b", "n": 12345, "s": 0.01234}, {"what": "c", "s": 123.4, "ok": True}, {"what": None, "s": 0.0}]
    assert benchmark("bench").markdown_table(rows).splitlines() == [
        "| what | n | s | ok |",
        "| --- | ---: | ---: | --- |",
        "| a\\|b | 12,345 | 0.0123 |  |",
        "| c |  | 123 | yes |",
        "|  |  | 0.00 |  |",
    ]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(99.96, "100.0"), (1.005, "1.00"), (12.34, "12.3"), (-12.34, "-12.3"), (1234.5, "1,234"), (0.5, "0.500")],
)
def test_floats_show_three_digits(benchmark: Any, value: float, shown: str) -> None:
    assert benchmark("bench").cell(value) == shown


def test_a_file_holds_what_was_measured(benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = benchmark("bench")
    target = tmp_path / "new" / "x.json"
    monkeypatch.setattr(sys, "argv", ["/some/where/x.py", "--rows", "3", "--json", str(target), "--fast"])
    bench.write_json(target, "x", [{"µm": 1.5}], versions=bench.versions("numpy", "no-such-package"), model="m")
    made = json.loads(target.read_text(encoding="utf-8"))
    assert made["benchmark"] == "x"
    assert made["rows"] == [{"µm": 1.5}]
    assert made["command"] == "python benchmarks/x.py --rows 3 --fast"
    assert made["versions"] == {"numpy": np.__version__, "no-such-package": "not installed"}
    assert made["model"] == "m"
    assert made["machine"] == bench.machine()
    with pytest.raises(ValueError, match="not JSON compliant"):
        bench.write_json(target, "x", [{"s": float("nan")}])


def test_vector_units_are_whole_words(benchmark: Any) -> None:
    assert benchmark("bench").vector_units("fpu avx512f avx512_bf16_x amx_bf16") == ["avx512", "amx"]


def test_the_median_and_the_warm_up(benchmark: Any) -> None:
    bench = benchmark("bench")
    calls: list[int] = []
    assert len(bench.seconds(lambda: calls.append(1), repeats=4, warm_up=2)) == 4
    assert len(calls) == 6
    assert bench.median([5.0, 1.0, 2.0]) == 2.0


def _made(benchmark: Any, **more: Any) -> dict[str, Any]:
    machine = {"cpu": "Some CPU", "cores": 2, "units": ["avx2"], "memory_gb": 25.3, "gpus": [], "python": "3.11"}
    made = {"benchmark": "x", "date": "2026-11-30", "command": "python benchmarks/x.py", "machine": machine}
    return {**made, "versions": {"torch": "2.13.0"}, "rows": [{"n": 1}], **more}


def test_sections_go_between_their_marks_and_nowhere_else(benchmark: Any) -> None:
    writing = benchmark("write_results")
    text = "# Head\n\n<!-- begin x -->\nold\n<!-- end x -->\n\nkept \\1\n<!-- begin y -->\n<!-- end y -->\n"
    made = writing.replace_sections(text, {"x": writing.section(_made(benchmark))})
    assert made == (
        "# Head\n\n<!-- begin x -->\n\n"
        "`python benchmarks/x.py`, 2026-11-30, Some CPU, 2 cores, avx2, 25 GB, Python 3.11; torch 2.13.0.\n\n"
        "| n |\n| ---: |\n| 1 |"
        "\n\n<!-- end x -->\n\nkept \\1\n<!-- begin y -->\n<!-- end y -->\n"
    )
    assert writing.replace_sections(made, {"x": writing.section(_made(benchmark))}) == made


@pytest.mark.parametrize("text", ["nothing", 2 * "<!-- begin x --><!-- end x -->"], ids=["none", "two"])
def test_a_section_needs_one_place(benchmark: Any, text: str) -> None:
    with pytest.raises(SystemExit, match="places for x"):
        benchmark("write_results").replace_sections(text, {"x": "table"})


def test_rows_of_several_tables_fits_and_notes(benchmark: Any) -> None:
    rows = [{"table": "A", "n": 1}, {"table": "B", "m": 2}, {"table": "A", "n": 3}]
    fits = {"real": {"s": {"slope": 0.5}}}
    told = benchmark("write_results").section(_made(benchmark, rows=rows, fits=fits, notes=["Mind this."]))
    assert told.split("\n\n")[1:] == [
        "**A**",
        "| n |\n| ---: |\n| 1 |\n| 3 |",
        "**B**",
        "| m |\n| ---: |\n| 2 |",
        "Line through real, s: slope 0.500.",
        "Mind this.",
    ]


def test_every_file_of_results_has_its_place() -> None:
    text = (FOLDER / "RESULTS.md").read_text(encoding="utf-8")
    for path in (FOLDER / "results").glob("*.json"):
        assert text.count(f"<!-- begin {path.stem} -->") == text.count(f"<!-- end {path.stem} -->") == 1, path.stem


def test_an_endless_slide_repeats_the_pattern(benchmark: Any, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (512, 768, 3), dtype=np.uint8)
    write_pyramid(tmp_path / "pattern.tif", pixels, 0.25, quality=90)
    made = benchmark("slides").endless(tmp_path / "endless.tif", tmp_path / "pattern.tif", 7, 5)
    with open_slide(SlideSource(tmp_path / "pattern.tif")) as slide:
        pattern = slide.read(0, 0, 768, 512, 768, 512)
    with open_slide(SlideSource(made)) as slide:
        assert slide.size == (7 * 256, 5 * 256)
        assert slide.mpp == pytest.approx((0.25, 0.25))
        found = slide.read(0, 0, *slide.size, *slide.size)
    assert np.array_equal(found, np.tile(pattern, (3, 3, 1))[: 5 * 256, : 7 * 256])


def test_a_line_is_found_and_what_is_not_one_told(benchmark: Any) -> None:
    growth = benchmark("growth")
    tiles = [1000, 5000, 20_000, 100_000]
    straight = growth.line(tiles, [3 + 0.002 * n for n in tiles])
    assert straight["per 1,000 tiles"] == pytest.approx(2.0)
    assert straight["at 0"] == pytest.approx(3.0)
    assert straight["largest residual, %"] == pytest.approx(0.0, abs=1e-6)
    assert straight["exponent"] == pytest.approx(1.0)
    bent = growth.line(tiles, [1e-6 * n**1.5 for n in tiles])
    assert bent["largest residual, %"] > 20
    assert bent["exponent"] > 1.2


@pytest.mark.parametrize("tiles", [1, 2, 1000, 20_000, 500_000])
def test_a_slide_has_about_as_many_tiles_as_asked(benchmark: Any, tiles: int) -> None:
    columns, rows = benchmark("growth").shape(tiles)
    assert columns * rows == pytest.approx(tiles, rel=0.02)


def test_torch_is_installed_first_and_by_itself(benchmark: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER / "peers"))
    setup = benchmark("setup")
    _, torch, beside, rest = setup.steps("tiatoolbox", setup.python_of("tiatoolbox"), ["--extra"])
    assert torch[-2:] == ["--extra", setup.pinned("torch")]
    assert "--no-deps" in beside
    assert setup.pinned("torchvision") in beside
    assert setup.pinned("torch") in rest  # so that nothing takes another one


def _contender(benchmark: Any, tmp_path: Path, name: str, classes: list[int], parts: list[dict[str, float]]) -> Any:
    end_to_end = benchmark("end_to_end")
    out = tmp_path / name.replace("/", " ")
    out.mkdir()
    origins = [[256 * n, 0] for n in range(len(classes))]
    np.savez(out / "tiles.npz", origins=np.array(origins), classes=np.array(classes))
    one = end_to_end.Contender(name, Path("python"), Path("x.py"), [{"workers": 1}], peer=name.startswith("peer"))
    one.answers = [{"tiles": len(classes), "parts": part, "out": str(out)} for part in parts]
    return one


def test_end_to_end_compares_with_the_faster_peer_in_and_out(benchmark: Any, tmp_path: Path) -> None:
    slow = {"mask": 1.0, "classify": 2.0, "write": 1.0}
    every = [
        _contender(benchmark, tmp_path, "peer A", [0, 1, 2, 3], [slow, slow, {**slow, "classify": 90.0}]),
        _contender(benchmark, tmp_path, "peer B", [0, 1], [{"mask": 0.1, "classify": 1.6, "write": 0.3}]),
        _contender(benchmark, tmp_path, "peer C", [0], [{"classify": 0.001}]),
        _contender(benchmark, tmp_path, "her2bridge, torch fp32, tiles", [0, 1, 2, 2], [{"classify": 0.5}]),
        _contender(benchmark, tmp_path, "her2bridge run", [0, 1, 2, 2], [{"all": 2.0}]),
    ]
    every[2].error = "no such thing"
    a, b, c, tiles, run = benchmark("end_to_end").rows_of(every)
    assert (a["tiles/s, in"], a["tiles/s, out"], a["same class"]) == (1.0, 2.0, "3 of 4")
    assert (b["tiles/s, in"], b["tiles/s, out"], b["same class"]) == (1.0, 1.25, "2 of 2")
    assert c["remark"] == "cannot run: no such thing"
    assert "tiles/s, in" not in c
    assert (tiles["tiles/s, in"], tiles["out, × faster peer"]) == (None, 4.0)
    assert (run["in, × faster peer"], run["tiles/s, out"]) == (2.0, None)


def test_a_runner_answers_though_its_tool_prints_fails_and_dies(benchmark: Any, tmp_path: Path) -> None:
    script = tmp_path / "runner.py"
    script.write_text(
        f"import os, sys\nsys.path.insert(0, {str(FOLDER / 'peers')!r})\nimport protocol\nprint('hello')\n"
        "def work(job, parts):\n"
        "    print('at work')\n"
        "    if job['do'] == 'die':\n"
        "        print('out of everything', flush=True)\n"
        "        os._exit(3)\n"
        "    with parts.on('classify'):\n"
        "        return 10 // job['do']\n"
        "protocol.serve(work)\n",
        encoding="utf-8",
    )
    end_to_end = benchmark("end_to_end")
    one = end_to_end.Contender("x", Path(sys.executable), script, [{}])
    runner = end_to_end.Runner(one, tmp_path, tmp_path / "log")
    try:
        answer = runner.do({"do": 5})
        assert answer["tiles"] == 2
        assert answer["parts"]["classify"] >= 0
        assert runner.do({"do": 0})["error"].startswith("ZeroDivisionError")
        assert runner.do({"do": "die"}) == {"error": "out of everything"}
        assert runner.do({"do": 1}) == {"error": "out of everything"}
    finally:
        runner.close()


def test_peers_are_given_our_network(benchmark: Any, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    bundle = load_bundle()
    benchmark("end_to_end").export(bundle, tmp_path)
    tiles = torch.randint(0, 256, (3, 3, 256, 256), generator=torch.Generator().manual_seed(3)).float() / 255
    told = json.loads((tmp_path / "network.json").read_text(encoding="utf-8"))
    mean, std = (torch.tensor(told[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        ours = bundle.network()((tiles - mean) / std)
        script = torch.jit.load(str(tmp_path / "torchscript.pt"))
        torch.testing.assert_close(script((tiles - mean) / std), ours, rtol=1e-3, atol=1e-3)
