"""Model bundles: a folder with ``weights.safetensors`` and ``card.json``; nothing in it is ever unpickled.

The weights are in training form (they can be trained on): convolutions and the linear layer in half precision, batch
norm and GCT in fp32. The card says what the network is and what it must be fed:

    name, version, created, license, intended_use, limits, training, metrics
    architecture     {"family": "repvgg", "block", "attention", "stages": [{"channels", "blocks", "stride"}, …]}
    classes          the six labels, in the order of the outputs
    patch_size_px    side of a tile, pixels
    spacing_um_px    µm per pixel of a tile
    transform        {"mean": [3], "std": [3]} of RGB, uint8 divided by 255: input = (rgb / 255 − mean) / std
    temperature      optional: what the logits are divided by before the softmax; 1 where it is absent
    hashes           {"weights.safetensors": sha256 of the file}
    whspn            optional: {"data": what it learned from, "widths", …}; the weights then hold it, as ``whspn.…``

**The bundle's sha256** is that of its card in canonical form (UTF-8 JSON, keys sorted, no spaces). The card names the
weights' sha256, so it covers both files, and line endings or indentation do not change it.

Only ``Bundle.network`` and saving load torch: listing bundles is quick, and a run on OpenVINO begins soon.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from her2bridge.errors import BundleDamaged, BundleNotFound
from her2bridge.model.fused_numbers import FusedNumbers, fuse_numbers
from her2bridge.model.spec import NetworkSpec, Shapes, Stage, tensor_shapes
from her2bridge.model.weights import NEXT, check_shapes, read_arrays, read_shapes, told_as_damage
from her2bridge.records import TileClass, TileSpec
from her2bridge.scoring.whspn import Whspn

if TYPE_CHECKING:
    import torch

    from her2bridge.model.repvgg import RepVGG

DEFAULT_BUNDLE = "her2-synthetic-gct-2"
"""The bundle that is used where none is named."""

WEIGHTS_FILE = "weights.safetensors"
CARD_FILE = "card.json"
FORMAT = 1
"""Version of the folder's layout, ``format`` in the card."""

_WHSPN = "whspn."
"""How the names of the WHSPN's tensors begin."""

_SHIPPED = Path(__file__).parent / "bundles"
_LABELS = [tile_class.label for tile_class in TileClass]


@dataclass(frozen=True, eq=False)
class Bundle:
    """A bundle on disk.

    Attributes:
        name: what it is called.
        version: its version, as in the card.
        path: its folder.
        sha256: covers card and weights; see the module's head.
        card: the parsed card.
        spec: the field the network wants to see.
    """

    name: str
    version: str
    path: Path
    sha256: str
    card: Mapping[str, Any]
    spec: TileSpec

    @property
    def temperature(self) -> float:
        """What the logits are divided by before the softmax (Guo et al. 2017); changes no class."""
        return float(self.card.get("temperature", 1.0))

    def network(self) -> RepVGG:
        """The network in training form, fp32, on the CPU, in eval mode: a fresh one at each call.

        Raises:
            BundleDamaged: the weights are not what the card says.
        """
        from safetensors.torch import load_file

        from her2bridge.model.repvgg import build_empty

        path = self.path / WEIGHTS_FILE
        with told_as_damage(path):
            tensors = load_file(path)
        _check(self.card, _shapes(tensors), self.path)
        network = build_empty(_network_spec(self.card))
        for name, target in _stored(network).items():
            target.copy_(tensors[name])
        return network.eval()

    def fused(self) -> FusedNumbers:
        """The network as it is run, as plain numbers; needs no torch.

        Raises:
            BundleDamaged: the weights are not what the card says.
        """
        arrays = read_arrays(self.path / WEIGHTS_FILE)
        _check(self.card, {name: array.shape for name, array in arrays.items()}, self.path)
        return fuse_numbers(_network_spec(self.card), arrays)

    @cached_property
    def whspn(self) -> Whspn | None:
        """The second network, in double precision; None where the bundle has none. Needs no torch.

        Raises:
            BundleDamaged: its tensors are not those of a WHSPN.
        """
        if "whspn" not in self.card:
            return None
        from safetensors import safe_open

        path = self.path / WEIGHTS_FILE
        try:
            with safe_open(path, "numpy") as file:
                names = [name for name in file.keys() if name.startswith(_WHSPN)]  # noqa: SIM118 - not a dict
                arrays = {name.removeprefix(_WHSPN): file.get_tensor(name) for name in names}
            return Whspn.from_arrays(arrays, self.card["whspn"]["data"])
        except (TypeError, ValueError) as error:  # TypeError: a number format that numpy lacks
            raise BundleDamaged(f"The WHSPN's weights are none: {error}.", where=str(path), next_step=NEXT) from error


def load_bundle(name_or_path: str | Path | None = None) -> Bundle:
    """A bundle by name (one that ships) or by folder; None stands for the default one.

    Raises:
        BundleNotFound: neither a bundle that ships nor a folder with a card.
        BundleDamaged: the card is not a card, the weights have another hash, or their tensors are not the network's.
    """
    folder = _find(DEFAULT_BUNDLE if name_or_path is None else name_or_path)
    bundle = _read(folder)
    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise BundleDamaged("The bundle has no weights.", where=str(weights), next_step=NEXT)
    if _file_sha256(weights) != bundle.card["hashes"][WEIGHTS_FILE]:
        raise BundleDamaged(
            "The weights are not those that the card describes: their SHA-256 differs.",
            where=str(weights),
            next_step="Copy the whole bundle again (with Git LFS or a partial download, check that it is complete).",
        )
    _check(bundle.card, read_shapes(weights), folder)
    _ = bundle.whspn  # read now, so that damage is told now
    return bundle


def list_bundles() -> list[Bundle]:
    """The bundles that ship, by name; reads cards only.

    Raises:
        BundleDamaged: a card is not a card.
    """
    if not _SHIPPED.is_dir():
        return []
    return [_read(card.parent) for card in sorted(_SHIPPED.glob(f"*/{CARD_FILE}"))]


def save_bundle(folder: Path, network: RepVGG, card: Mapping[str, Any], whspn: Whspn | None = None) -> Bundle:
    """Write a network in training form and its card; what the folder held of both before is replaced.

    ``format``, ``architecture``, ``classes``, ``hashes`` and, if absent, ``created`` are filled in here; so are
    ``data`` and ``widths`` of ``whspn``. Where no WHSPN is given, the card's ``whspn`` is left out: it spoke of another
    network's.

    Raises:
        BundleDamaged: the card lacks something, or the network is not one a bundle can hold (a fused one).
    """
    import torch
    from safetensors.torch import save

    spec = network.spec
    filled = {
        "format": FORMAT,
        "created": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        **card,
        "architecture": {
            "family": "repvgg",
            "block": spec.block,
            "attention": spec.attention,
            "stages": [{"channels": s.channels, "blocks": s.blocks, "stride": s.stride} for s in spec.stages],
        },
        "classes": _LABELS,
    }
    filled.pop("whspn", None)
    tensors = {
        name: value.detach().to("cpu", torch.float16 if _is_half(name, value) else torch.float32).contiguous()
        for name, value in _stored(network).items()
    }
    second = {}
    if whspn is not None:
        filled["whspn"] = {**card.get("whspn", {}), "data": whspn.trained_on, "widths": list(whspn.mlp.widths)}
        second = {f"{_WHSPN}{name}": torch.from_numpy(array) for name, array in whspn.arrays().items()}
    weights = save({**tensors, **second})
    filled["hashes"] = {WEIGHTS_FILE: hashlib.sha256(weights).hexdigest()}
    _check_card(filled, folder)
    check_shapes(_shapes(tensors), tensor_shapes(_network_spec(filled)), folder / WEIGHTS_FILE)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / WEIGHTS_FILE, weights)
    _replace(folder / CARD_FILE, (json.dumps(filled, indent=2, ensure_ascii=False) + "\n").encode())
    return load_bundle(folder)


def card_sha256(card: Mapping[str, Any]) -> str:
    """The bundle's sha256, from its card; see the module's head."""
    canonical = json.dumps(card, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _find(name_or_path: str | Path) -> Path:
    text = str(name_or_path)
    if isinstance(name_or_path, str) and re.fullmatch(r"[\w.+-]+", text) and (_SHIPPED / text / CARD_FILE).is_file():
        return _SHIPPED / text
    folder = Path(name_or_path).expanduser()
    if folder.name == CARD_FILE:
        folder = folder.parent
    if (folder / CARD_FILE).is_file():
        return folder
    names = [card.parent.name for card in sorted(_SHIPPED.glob(f"*/{CARD_FILE}"))]
    raise BundleNotFound(
        f"There is no model bundle {text!r}.",
        where=str(folder),
        next_step=f"Name one that ships ({', '.join(names) or 'none does'}) or a folder that holds {CARD_FILE} and "
        f"{WEIGHTS_FILE}.",
    )


def _read(folder: Path) -> Bundle:
    path = folder / CARD_FILE
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BundleDamaged("The model's card cannot be read as JSON.", where=str(path), next_step=NEXT) from error
    _check_card(card, folder)
    return Bundle(
        name=card["name"],
        version=card["version"],
        path=folder,
        sha256=card_sha256(card),
        card=card,
        spec=TileSpec(int(card["patch_size_px"]), float(card["spacing_um_px"])),
    )


def _check_card(card: Any, folder: Path) -> None:
    """Each fault by name, all at once."""
    faults = ["it is not a JSON object"] if not isinstance(card, dict) else _card_faults(card)
    if faults:
        raise BundleDamaged(
            f"The model's card is not one: {'; '.join(faults)}.", where=str(folder / CARD_FILE), next_step=NEXT
        )


def _card_faults(card: dict[str, Any]) -> list[str]:
    faults = [f"{key} must be text" for key in _TEXTS if not isinstance(card.get(key), str) or not card.get(key)]
    faults += [f"{key} is missing" for key in ("training", "metrics", "limits") if key not in card]
    if card.get("format") != FORMAT:
        faults.append(f"format must be {FORMAT} (a later her2bridge may have written it)")
    if card.get("classes") != _LABELS:
        faults.append(f"classes must be {_LABELS}")
    size, mpp = card.get("patch_size_px"), card.get("spacing_um_px")
    if not isinstance(size, int) or size <= 0:
        faults.append("patch_size_px must be a whole number above 0")
    if not _are_numbers([mpp], 1) or not isinstance(mpp, int | float) or mpp <= 0:
        faults.append("spacing_um_px must be a number above 0")
    temperature = card.get("temperature", 1.0)
    if not _are_numbers([temperature], 1) or temperature <= 0:
        faults.append("temperature must be a number above 0")
    transform = card.get("transform")
    if not isinstance(transform, dict) or not all(_are_numbers(transform.get(key), 3) for key in ("mean", "std")):
        faults.append("transform must hold mean and std, three numbers each")
    elif min(transform["std"]) <= 0:
        faults.append("transform: std must lie above 0")
    hashes = card.get("hashes")
    if not isinstance(hashes, dict) or not re.fullmatch(r"[0-9a-f]{64}", str(hashes.get(WEIGHTS_FILE))):
        faults.append(f"hashes must hold the SHA-256 of {WEIGHTS_FILE}")
    whspn = card.get("whspn", {"data": "none"})
    if not isinstance(whspn, dict) or not isinstance(whspn.get("data"), str) or not whspn["data"]:
        faults.append("whspn must say what it learned from: data, a text")
    return faults + _architecture_faults(card.get("architecture"))


_TEXTS = ("name", "version", "created", "license", "intended_use")


def _architecture_faults(architecture: Any) -> list[str]:
    if not isinstance(architecture, dict) or architecture.get("family") != "repvgg":
        return ["architecture.family must be repvgg, the only one we know"]
    faults = []
    if architecture.get("attention") not in ("none", "gct", "se"):
        faults.append("architecture.attention must be none, gct or se")
    if architecture.get("block") not in ("ecm", "plain", "plain-bn"):
        faults.append("architecture.block must be ecm, plain or plain-bn")
    stages = architecture.get("stages")
    keys = ("channels", "blocks", "stride")
    if not isinstance(stages, list) or not stages or not all(_are_counts(stage, keys) for stage in stages):
        faults.append("architecture.stages must list channels, blocks and stride of each stage")
    return faults


def _are_counts(stage: Any, keys: tuple[str, ...]) -> bool:
    return isinstance(stage, dict) and all(isinstance(stage.get(key), int) and stage[key] > 0 for key in keys)


def _are_numbers(values: Any, count: int) -> bool:
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)


def _network_spec(card: Mapping[str, Any]) -> NetworkSpec:
    architecture = card["architecture"]
    stages = tuple(Stage(s["channels"], s["blocks"], s["stride"]) for s in architecture["stages"])
    return NetworkSpec(stages, architecture["attention"], len(card["classes"]), architecture["block"])


def _stored(network: RepVGG) -> dict[str, torch.Tensor]:
    """The tensors that a bundle holds; batch norm's counters of batches serve no one."""
    return {name: value for name, value in network.state_dict().items() if not name.endswith("num_batches_tracked")}


def _is_half(name: str, value: torch.Tensor) -> bool:
    # Convolution and linear weights are the only matrices; GCT's are [1, c, 1, 1] and decide how channels are weighed.
    return value.ndim >= 2 and ".attention.alpha" not in name and not re.search(r"\.attention\.(gamma|beta)$", name)


def _shapes(tensors: Mapping[str, torch.Tensor]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def _check(card: Mapping[str, Any], found: Shapes, folder: Path) -> None:
    """All tensors but the WHSPN's, if the card speaks of one; if not, its tensors are out of place."""
    of_the_network = {n: shape for n, shape in found.items() if "whspn" not in card or not n.startswith(_WHSPN)}
    check_shapes(of_the_network, tensor_shapes(_network_spec(card)), folder / WEIGHTS_FILE)


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace(path: Path, data: bytes) -> None:
    """Write beside the target, then rename: a reader sees the old file or the new one."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    finally:
        Path(name).unlink(missing_ok=True)
