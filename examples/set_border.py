"""Set the border between 2+ and 3+ of a bundle by labelled tiles of real tissue: seconds, and nothing is trained.

    her2bridge labels CORES/labels --negative-is-zero --offsets 7 --out LABELS
    python examples/set_border.py BUNDLE LABELS --mix EARLIER 0.4 --output her2bridge/model/bundles/NAME

Drawings have no natural border between moderate and strong; real tissue below 3+ has. What is added to the logit of 3+
is the most that calls no tile labelled 0, 1+ or 2+ strong, less a margin: one number. Tiles labelled 3+ have no say in
it, so that it can be judged by them. Before, the weights can be mixed with those of the bundle that training went on
from: between the two lie networks that are good at what either is good at (Wortsman et al. 2022). How well it does is
measured with each slide left out in turn: its border comes from the other slides.

Each figure is of the tiles in LABELS, and says as much as these labels do: who drew them is told by --labels-by.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train_shipped_model import EVALUATION, SIZE_PX, confusion, metrics_of, render

from her2bridge.model.bundle import load_bundle, save_bundle
from her2bridge.model.repvgg import RepVGG, fuse
from her2bridge.records import Float32Array, IntArray, TileClass
from her2bridge.training.dataset import load_dataset, read_pixels
from her2bridge.training.fit import logits_of
from her2bridge.training.metrics import measure_tiles
from her2bridge.training.samples import Samples

LIMITS = [
    "Trained on drawings of tissue: figures on synthetic tiles say nothing of accuracy on real slides.",
    "Normal glands, muscle and stroma of real slides may be taken for unstained tumour, or it for them.",
    "Made for membranous HER2 staining, DAB and haematoxylin, gastric adenocarcinoma, 0.25 µm per pixel.",
    "The borders between the grades are set by the generator, that of 3+ by roughly labelled tiles of five real cores "
    "of one laboratory, not by a pathologist. Another stain may need another border: strong 2+ may be called 3+.",
    "No pixel of the cores was trained on, but the drawings, the mixture of two trainings and the border of 3+ were "
    "chosen after looking at them: figures on them are not those of unseen slides.",
]

STRONG = int(TileClass.THREE)


def rise_of(logits: Float32Array, labels: IntArray, margin: float) -> float:
    """What can be added to the logit of 3+ until a tile labelled 0, 1+ or 2+ is within ``margin`` of it."""
    below = labels < STRONG
    if not below.any():
        return 0.0
    others = np.delete(logits[below], STRONG, axis=1).max(axis=1)
    return max(0.0, float((others - logits[below, STRONG]).min()) - margin)


def raised(logits: Float32Array, rise: float) -> IntArray:
    """Classes, int64 [n], with the border moved."""
    return np.asarray((logits + rise * (np.arange(len(TileClass)) == STRONG)).argmax(axis=1), dtype=np.int64)


def leave_one_out(
    logits: Float32Array, labels: IntArray, slide: IntArray, margin: float
) -> tuple[IntArray, dict[str, float]]:
    """Classes of each slide's tiles by the border of the others, and these borders by the slide's number."""
    found = np.empty(len(labels), dtype=np.int64)
    rises = {}
    for number in np.unique(slide).tolist():
        own = slide == number
        rises[str(number)] = round(rise_of(logits[~own], labels[~own], margin), 3)
        found[own] = raised(logits[own], rises[str(number)])
    return found, rises


def mixed(network: RepVGG, earlier: RepVGG, share: float) -> RepVGG:
    """The weighted mean of two networks' weights, in the first one's place."""
    others = earlier.state_dict()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.lerp_(others[name], share)
    return network


def on_drawings(network: RepVGG, per_class: int, seed: int) -> dict[str, Any]:
    """Figures on drawings of seeds that were never trained on."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        unseen = render(pool, seed, EVALUATION, [per_class] * len(TileClass), SIZE_PX, 2)
    return metrics_of(confusion(fuse(network), unseen), "synthetic tiles of unseen seeds, whole, fused network, fp32")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("labels", type=Path, help="a dataset that her2bridge labels made")
    parser.add_argument("--output", type=Path, help="write the bundle here; without it, only figures are told")
    parser.add_argument("--mix", nargs=2, metavar=("EARLIER", "SHARE"), help="a bundle, and its share of the weights")
    parser.add_argument("--margin", type=float, default=0.25, help="logits that the border stays off labelled tiles")
    parser.add_argument("--labels-by", default="people who are no pathologists")
    parser.add_argument("--evaluate-per-class", type=int, default=150)
    parser.add_argument("--seed", type=int, default=2022)
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    bundle = load_bundle(arguments.bundle)
    dataset = load_dataset(arguments.labels)
    labels, slide = dataset.tiles.labels, dataset.tiles.slide
    network, mixed_in = bundle.network(), [bundle]
    if arguments.mix is not None:
        mixed_in.append(load_bundle(Path(arguments.mix[0])))
        network = mixed(network, mixed_in[1].network(), float(arguments.mix[1]))
    samples = Samples(read_pixels(dataset, np.arange(len(labels))), labels)
    logits = logits_of(fuse(network), samples, device="cpu")
    before = measure_tiles(labels, logits.argmax(axis=1).astype(np.int64))
    found, rises = leave_one_out(logits, labels, slide, arguments.margin)
    left_out, rise = measure_tiles(labels, found), rise_of(logits, labels, arguments.margin)
    for title, figures in (("as it is", before), ("each slide by the border of the others", left_out)):
        print(f"{title}: macro-F1 {figures.macro_f1:.3f}, accuracy {figures.accuracy:.3f}, {figures.tiles} tiles")
        print(np.array(figures.confusion))
    print(f"added to the logit of 3+: {rise:.3f}; with one slide left out: {rises}")
    if arguments.output is None:
        return
    with torch.no_grad():
        network.state_dict()["head.bias"][STRONG] += rise
    border = {
        "added_to_the_logit_of_3+": round(rise, 3),
        "mixed_with": None if arguments.mix is None else [Path(arguments.mix[0]).name, float(arguments.mix[1])],
        "labels_by": arguments.labels_by,
        "margin": arguments.margin,
        "tiles": len(labels),
        "slides": len(dataset.slides),
        "dataset": dataset.sha256,
        "macro_f1_before": round(before.macro_f1, 4),
        "macro_f1_each_slide_left_out": round(left_out.macro_f1, 4),
        "script": "examples/set_border.py",
    }
    card = {**bundle.card, "name": arguments.output.name, "version": "2.0.0"}
    card.pop("created")
    card.pop("temperature", None)  # it was fitted on other logits
    data = f"{card['training']['data']}; the border of 3+ set by tiles that {arguments.labels_by} labelled"
    card["training"] = {
        **card["training"],
        "data": data,
        "border": border,
        "slides": [one.fingerprint for one in dataset.slides],
    }
    card["limits"] = LIMITS
    card["metrics"] = on_drawings(network, arguments.evaluate_per_class, arguments.seed)
    saved = save_bundle(arguments.output, network, card)
    print(json.dumps(card["metrics"], indent=1))
    print(f"{saved.path}  sha256 {saved.sha256[:12]}")


if __name__ == "__main__":
    main()
