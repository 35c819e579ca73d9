"""The rules of the house (docs/how-it-works.md, "Rooms and floors"), held by reading the sources.

Each rule is a function from a source to its faults. Each is tried on every module, and, so that it is known to be
able to fail, on snippets that break it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import her2bridge

PACKAGE = Path(her2bridge.__file__).parent
ROOT = "her2bridge"

LINE = (
    *("errors", "version", "records", "events", "pace", "stopwatch", "storage"),
    *("resampling", "view", "calibration", "slides", "tiling", "scoring"),
    *("qupath", "model", "inference", "settings", "provenance", "scope", "analysis", "run"),
    *("analyze", "restore", "demo", "cluster", "scripts", "cli", "__main__"),
)
"""From the ground up: a module may import those before it, of a package that it lies in all, and nothing else."""

BESIDE = {"synth": "qupath", "report": "qupath", "training": "inference", "experiments": "inference"}
"""What stands beside the line, and the highest place on the line that it may import."""

ALSO = {"experiments": {"training", "synth"}, "demo": {"synth"}, "cluster": {"report"}, "run": {"report"}}
"""Who may import from beside the line; ``cli`` may import all."""

MAX_MODULE, MAX_FUNCTION = 400, 60

ONLY_UNDER = {
    "torch": ("model", "inference", "training", "experiments"),
    "torchvision": ("model", "inference", "training", "experiments"),
    "safetensors": ("model", "inference", "training", "experiments"),
    "openvino": ("inference",),
    "triton": ("inference",),
    "onnx": ("inference",),
    "onnxruntime": ("inference",),
    "tiffslide": ("slides",),
    "openslide": ("slides",),
    "tmapslide": ("slides",),
    "paquo": ("qupath.via_paquo",),
    "jpype": ("qupath.via_paquo",),
    "typer": ("cli",),
}
NEVER_IMPORTED = ("pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib")
NEVER_CALLED = ("os.system", "os.popen", "eval", "exec", "torch.load", "print")

QUPATH_KEYS = {
    "serverBuilder",
    "builderType",
    "providerClassName",
    "entryID",
    "imageName",
    "randomizedName",
    "createTimestamp",
    "modifyTimestamp",
    "lastID",
    "pathClasses",
    "objectType",
    "isLocked",
    "isEllipse",
    "nucleusGeometry",
    "classification",
    "classifications",
    "_her2bridge",
    "classes.json",
    "data.qpdata",
    "server.json",
    "summary.json",
    "Object ID",
}
QUPATH_WORDS = ("HER2 AI", "HER2: p(", "HER2: %", "qupath.lib", "Data file version")


@dataclass(frozen=True)
class Source:
    """One module: its dotted name without the package's, and its text."""

    name: str
    text: str

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def unit(self) -> str:
        return self.name.partition(".")[0]


Rule = Callable[[Source], Iterator[str]]


@cache
def sources() -> tuple[Source, ...]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found.append(Source(name, path.read_text(encoding="utf-8")))
    return tuple(found)


def imported(source: Source, tree: ast.AST | None = None) -> Iterator[tuple[int, str, str | None]]:
    """Every import, wherever it stands: line, module, and the name taken from it (None for the module itself)."""
    for node in ast.walk(source.tree if tree is None else tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "." * node.level + (node.module or ""), None
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, str(node.module), alias.name) for alias in node.names)


def lies_under(name: str, places: tuple[str, ...]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of an expression; empty where it is something else."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def docstrings(tree: ast.Module) -> set[int]:
    """Ids of the nodes of all strings that stand for themselves: docstrings, and those below attributes."""
    return {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}


def may_import(unit: str) -> set[str]:
    """Which units a unit may import."""
    if unit in ("cli", "__main__"):
        return {*LINE, *BESIDE}
    if unit in BESIDE:
        return {*LINE[: LINE.index(BESIDE[unit]) + 1], *ALSO.get(unit, ()), unit}
    return {*LINE[: LINE.index(unit) + 1], *ALSO.get(unit, ())}


# The rules


def floors(source: Source) -> Iterator[str]:
    if source.name == "":  # the front door looks everywhere
        return
    if source.unit not in LINE and source.unit not in BESIDE:
        yield f"{source.unit} has no place in the house: give it one in LINE or BESIDE"
        return
    for line, module, _ in imported(source):
        package, _, rest = module.partition(".")
        if package == ROOT and rest and rest.partition(".")[0] not in may_import(source.unit):
            yield f"line {line}: {source.unit} lies below {rest}"


def no_import_from_the_root(source: Source) -> Iterator[str]:
    for line, module, name in imported(source):
        if module == ROOT:
            yield f"line {line}: {name or module} from the package root"
        if module.startswith("."):
            yield f"line {line}: a relative import"


def packages_in_their_rooms(source: Source) -> Iterator[str]:
    for line, module, _ in imported(source):
        package = module.partition(".")[0]
        if package in ONLY_UNDER and not lies_under(source.name, ONLY_UNDER[package]):
            yield f"line {line}: {package} belongs under {', '.join(ONLY_UNDER[package])}"
        if package in NEVER_IMPORTED:
            yield f"line {line}: {package}"


def nothing_dangerous_and_no_print(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call):
            if dotted(node.func) in NEVER_CALLED:
                yield f"line {node.lineno}: {dotted(node.func)}"
            for keyword in node.keywords:
                if keyword.arg in ("shell", "allow_pickle") and ast.unparse(keyword.value) != "False":
                    yield f"line {node.lineno}: {keyword.arg}"
    for line, module, name in imported(source):
        if f"{module}.{name}" in NEVER_CALLED:
            yield f"line {line}: {module}.{name}"


def qupath_in_its_room(source: Source) -> Iterator[str]:
    if source.unit == "qupath":
        return
    tree = source.tree
    free = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in free:
            text = node.value
            if text in QUPATH_KEYS or any(word in text for word in QUPATH_WORDS):
                yield f"line {node.lineno}: {text!r} belongs in qupath/"


def blind_excepts(source: Source) -> Iterator[str]:
    """Handlers of everything; one that ends by raising again what it caught (to tidy up) is none."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
        names = {dotted(one) if one is not None else "all" for one in caught}
        last = node.body[-1]
        raises_again = isinstance(last, ast.Raise) and last.exc is None
        if "Exception" in names or (names & {"BaseException", "all"} and not raises_again):
            yield f"line {node.lineno}: except {', '.join(sorted(names))}"


def no_blind_except(source: Source) -> Iterator[str]:
    """``run`` may have one, which logs the traceback."""
    found = list(blind_excepts(source))
    if source.name == "run" and len(found) == 1:
        handlers = [node for node in ast.walk(source.tree) if isinstance(node, ast.ExceptHandler)]
        blind = next(node for node in handlers if node.type is not None and dotted(node.type) == "Exception")
        if any(isinstance(node, ast.Attribute) and node.attr == "exception" for node in ast.walk(blind)):
            return
        found = [f"{found[0]}, and no traceback is logged"]
    yield from found


def small_enough(source: Source) -> Iterator[str]:
    count = len(source.text.splitlines())
    if count > MAX_MODULE:
        yield f"{count} lines"
    for node in ast.walk(source.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count = (node.end_lineno or node.lineno) - node.lineno + 1
            if count > MAX_FUNCTION:
                yield f"line {node.lineno}: {node.name} has {count} lines"


def annotations_are_postponed(source: Source) -> Iterator[str]:
    if source.tree.body and not any(name == "annotations" for _, _, name in imported(source)):
        yield "from __future__ import annotations is missing"


RULES: tuple[Rule, ...] = (
    floors,
    no_import_from_the_root,
    packages_in_their_rooms,
    nothing_dangerous_and_no_print,
    qupath_in_its_room,
    no_blind_except,
    small_enough,
    annotations_are_postponed,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule: Rule) -> None:
    faults = [f"{source.name or ROOT}: {fault}" for source in sources() for fault in rule(source)]
    assert not faults, "\n".join(["", *faults])


def test_the_sources_were_found() -> None:
    names = {source.name for source in sources()}
    assert {"", "errors", "records", "run", "qupath", "qupath.seam", "inference.runtime.base"} <= names
    assert set(BESIDE).isdisjoint(LINE)
    assert len(set(LINE)) == len(LINE)


def test_the_one_blind_except_is_there() -> None:
    """Were it gone, one bad image would stop a cohort."""
    assert [source.name for source in sources() for _ in blind_excepts(source)] == ["run"]


def cycles(modules: tuple[Source, ...]) -> list[str]:
    """A ring of modules that need each other to be loaded, if there is one."""
    names = {f"{ROOT}.{source.name}" for source in modules}
    graph: dict[str, set[str]] = {}
    for source in modules:
        tree = source.tree
        tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        own = f"{ROOT}.{source.name}"
        named = imported(source, tree)
        graph[own] = {f"{m}.{n}" if f"{m}.{n}" in names else m for _, m, n in named} & names - {own}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def test_no_imports_in_a_ring() -> None:
    assert cycles(sources()) == []


def test_a_ring_is_seen() -> None:
    a = Source("qupath.a", "from her2bridge.qupath import b")
    b = Source("qupath.b", "from her2bridge.qupath.a import x")
    harmless = Source("qupath.b", "if TYPE_CHECKING:\n    from her2bridge.qupath.a import x")
    assert set(cycles((a, b))) == {"her2bridge.qupath.a", "her2bridge.qupath.b"}
    assert cycles((a, harmless)) == []


LONG = "def f():\n" + "    x = 1\n" * 60
HANDLER = "try:\n    x()\nexcept {}:\n    {}\n"


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (floors, "errors", "import her2bridge.records"),
        (floors, "records", "from her2bridge.events import Event"),
        (floors, "tiling", "from her2bridge.scoring import score_slide"),
        (floors, "scoring.rule", "from her2bridge.qupath.seam import Entry"),
        (floors, "qupath.results", "def f():\n    from her2bridge.inference.engine import SlideJob"),
        (floors, "model.bundle", "if TYPE_CHECKING:\n    from her2bridge.inference.engine import SlideJob"),
        (floors, "provenance", "import her2bridge.run as r"),
        (floors, "run", "from her2bridge.analyze import analyze_slide"),
        (floors, "run", "from her2bridge.cli.app import main"),
        (floors, "synth.tiles", "from her2bridge.model.bundle import load_bundle"),
        (floors, "inference.engine", "from her2bridge.synth.tiles import tile"),
        (floors, "training.fit", "from her2bridge.run import run_project"),
        (floors, "training.fit", "from her2bridge.experiments.table4 import x"),
        (floors, "misc", "x = 1"),
        (no_import_from_the_root, "run", "from her2bridge import TileSpec"),
        (no_import_from_the_root, "run", "from her2bridge import provenance"),
        (no_import_from_the_root, "run", "import her2bridge"),
        (no_import_from_the_root, "run", "from . import provenance"),
        (no_import_from_the_root, "qupath.open", "from ..run import x"),
        (packages_in_their_rooms, "tiling", "import torch"),
        (packages_in_their_rooms, "synth.tiles", "def f():\n    from torch.nn import functional"),
        (packages_in_their_rooms, "cli.doctor", "import torch.cuda"),
        (packages_in_their_rooms, "modelling", "import torch"),
        (packages_in_their_rooms, "run", "import typer"),
        (packages_in_their_rooms, "qupath.via_files.rois", "from tiffslide import TiffSlide"),
        (packages_in_their_rooms, "qupath.open", "import paquo"),
        (packages_in_their_rooms, "model.bundle", "import pickle"),
        (packages_in_their_rooms, "storage", "from joblib import load"),
        (nothing_dangerous_and_no_print, "storage", "os.system('ls')"),
        (nothing_dangerous_and_no_print, "storage", "from os import system"),
        (nothing_dangerous_and_no_print, "storage", "subprocess.run('ls', shell=True)"),
        (nothing_dangerous_and_no_print, "storage", "subprocess.run('ls', shell=yes)"),
        (nothing_dangerous_and_no_print, "model.bundle", "torch.load('x')"),
        (nothing_dangerous_and_no_print, "model.bundle", "np.load('x', allow_pickle=True)"),
        (nothing_dangerous_and_no_print, "run", "def f():\n    return eval('1')"),
        (nothing_dangerous_and_no_print, "run", "exec('x = 1')"),
        (nothing_dangerous_and_no_print, "cli.app", "print('done')"),
        (qupath_in_its_room, "run", "key = 'serverBuilder'"),
        (qupath_in_its_room, "run", "entry.metadata['HER2 AI score']"),
        (qupath_in_its_room, "report.html", "f'HER2 AI {name}'"),
        (qupath_in_its_room, "analyze", "{'objectType': 'tile'}"),
        (qupath_in_its_room, "analyze", "name == 'qupath.lib.objects.PathTileObject'"),
        (qupath_in_its_room, "analyze", "x = 'Object ID'"),
        (no_blind_except, "analysis", HANDLER.format("Exception", "pass")),
        (no_blind_except, "analysis", HANDLER.format("(ValueError, Exception) as error", "raise")),
        (no_blind_except, "analysis", HANDLER.format("BaseException", "pass")),
        (no_blind_except, "analysis", "try:\n    x()\nexcept:\n    pass\n"),
        (no_blind_except, "run", HANDLER.format("Exception", "pass")),
        (no_blind_except, "run", 2 * HANDLER.format("Exception", "_LOG.exception('x')")),
        (small_enough, "run", LONG),
        (small_enough, "run", f"class A:\n{LONG}".replace("\n", "\n  ")),
        (small_enough, "run", "x = 1\n" * 401),
        (annotations_are_postponed, "run", "x = 1"),
    ],
)
def test_what_breaks_a_rule_is_seen(rule: Rule, name: str, text: str) -> None:
    assert list(rule(Source(name, text)))


@pytest.mark.parametrize(
    ("rule", "name", "text"),
    [
        (floors, "", "from her2bridge.run import run_project"),
        (floors, "events", "from her2bridge.records import Region"),
        (floors, "qupath.open", "from her2bridge.qupath.via_files.backend import FilesProject"),
        (floors, "demo", "from her2bridge.synth.slide import write_slide"),
        (floors, "experiments.table4", "from her2bridge.training.fit import fit"),
        (floors, "cli.app", "from her2bridge.training.fit import fit"),
        (floors, "run", "import numpy\nimport her2bridge.events as ev"),
        (no_import_from_the_root, "run", "import her2bridge.events as ev\nfrom her2bridge.records import Region"),
        (packages_in_their_rooms, "inference.runtime.torch_runtime", "import torch"),
        (packages_in_their_rooms, "slides", "import tiffslide"),
        (packages_in_their_rooms, "cli.app", "import typer"),
        (nothing_dangerous_and_no_print, "run", "network.eval()\nre.compile('x')\nconsole.print('x')"),
        (nothing_dangerous_and_no_print, "run", "subprocess.run(['ls'], shell=False)"),
        (qupath_in_its_room, "qupath.results", "key = 'HER2 AI score'"),
        (qupath_in_its_room, "run", "'''Writes HER2 AI score.'''\nx = 1\n'''Object ID'''"),
        (no_blind_except, "analysis", HANDLER.format("ValueError", "pass")),
        (no_blind_except, "storage", HANDLER.format("BaseException", "raise")),
        (no_blind_except, "run", HANDLER.format("Exception", "_LOG.exception('x')")),
        (small_enough, "run", "x = 1\n" * 400),
        (small_enough, "run", LONG.replace("    x = 1\n", "", 1)),
        (annotations_are_postponed, "qupath", ""),
    ],
)
def test_what_keeps_a_rule_is_let_pass(rule: Rule, name: str, text: str) -> None:
    assert not list(rule(Source(name, text)))
