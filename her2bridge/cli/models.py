"""``her2bridge models``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from her2bridge.cli.console import RESEARCH_USE_ONLY, printable
from her2bridge.cli.output import Output
from her2bridge.errors import UsageError
from her2bridge.model.bundle import DEFAULT_BUNDLE, Bundle, list_bundles, load_bundle
from her2bridge.qupath.classes import path_classes


def models(
    bundle: Annotated[
        str | None,
        typer.Argument(
            metavar="BUNDLE",
            help="Show this bundle's card in full, and check its weights; its name, or its folder.",
            show_default=False,
        ),
    ] = None,
    onnx: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write this bundle's network as an ONNX file for other programs, if ONNX Runtime computes with it "
            "what we do. Needs the extra onnx.",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Write one JSON object a bundle, each on one line, with the whole card.")
    ] = False,
) -> None:
    """List the model bundles that ship, or show one bundle's card."""
    with Output(as_json=as_json) as output:
        if onnx is not None:
            _export(bundle, onnx, output)
            return
        found = list_bundles() if bundle is None else [load_bundle(bundle)]
        for one in found:
            if as_json:
                output.write(json.dumps(_plain(one), ensure_ascii=False))
                continue
            title = f"{one.name} {one.version}{' (the default)' if one.name == DEFAULT_BUNDLE else ''}"
            output.results.print(printable(title), style="bold")
            for line in _brief(one) if bundle is None else _full(one):
                output.results.print(f"  {line}", soft_wrap=True)
        output.results.print(RESEARCH_USE_ONLY, style="dim")


def _export(name: str | None, path: Path, output: Output) -> None:
    if name is None:
        raise UsageError(
            "No bundle is named.",
            where="--onnx",
            next_step=f"Name one: her2bridge models {DEFAULT_BUNDLE} --onnx FILE.",
        )
    from her2bridge.inference.onnx_export import export_onnx  # loads torch

    bundle = load_bundle(name)
    done = export_onnx(bundle, path)
    said = {"onnx": str(done.path), "checked_in": done.checked_in, "largest_difference": done.largest_difference}
    output.write(json.dumps({"name": bundle.name, "sha256": bundle.sha256, **said}, ensure_ascii=False))
    size = done.path.stat().st_size / 1e6
    output.results.print(printable(f"{done.path}: {bundle.name} {bundle.version}, {size:.1f} MB"), soft_wrap=True)
    output.results.print(
        f"Checked in {done.checked_in}: its probabilities differ from ours by at most {done.largest_difference:.1g}."
    )
    output.results.print(RESEARCH_USE_ONLY, style="dim")


def _plain(bundle: Bundle) -> dict[str, Any]:
    return {
        "name": bundle.name,
        "default": bundle.name == DEFAULT_BUNDLE,
        "sha256": bundle.sha256,
        "path": str(bundle.path),
        "card": bundle.card,
    }


def _brief(bundle: Bundle) -> Iterator[str]:
    """What one needs to know before using it."""
    card, spec = bundle.card, bundle.spec
    written = zip(card["classes"], path_classes(), strict=True)
    yield f"SHA-256: {bundle.sha256}"
    yield f"classes: {', '.join(f'{label} (QuPath: {name})' for label, name in written)}"
    yield f"field: {spec.size_px} px at {spec.mpp:g} µm/px, {spec.field_um:g} µm wide"
    for key in ("intended_use", "training", "metrics", "limits"):
        yield from _lines(key, _scalars(card[key]) if isinstance(card[key], Mapping) else card[key])


def _full(bundle: Bundle) -> Iterator[str]:
    """The whole card."""
    yield f"SHA-256: {bundle.sha256} (the weights are those that the card describes)"
    yield f"folder: {bundle.path}"
    for key, value in bundle.card.items():
        yield from _lines(key, value)


def _lines(key: str, value: Any, indent: str = "") -> Iterator[str]:
    """A value of a card as text: mappings and lists of texts indented, all else on one line."""
    title = printable(f"{indent}{key.replace('_', ' ')}:")
    if isinstance(value, Mapping):
        yield title
        for inner, content in value.items():
            yield from _lines(str(inner), content, f"{indent}  ")
    elif isinstance(value, list) and value and all(isinstance(one, str) and " " in one for one in value):
        yield title
        yield from (printable(f"{indent}  - {one}") for one in value)
    else:
        yield f"{title} {printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))}"


def _scalars(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if not isinstance(value, Mapping | list)}
