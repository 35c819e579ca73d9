"""WSInfer, as its command ``wsinfer run`` does it: patches within the tissue, inference to CSV, CSV to GeoJSON.

Its command line asks a model hub for a list of models as soon as it is imported. The three functions that the command
calls are called here instead, with the command's own defaults; the model is a TorchScript file and a configuration, as
for ``--model-path`` and ``--config``. Nothing of WSInfer is changed. ``end_to_end.py`` gives it a home folder of its
own, because importing it makes a folder there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import plain_network
import protocol

plain_network.declare_operators()

import pandas as pd  # noqa: E402
from wsinfer.modellib.models import LocalModelTorchScript  # noqa: E402
from wsinfer.modellib.run_inference import run_inference  # noqa: E402
from wsinfer.patchlib import segment_and_patch_directory_of_slides  # noqa: E402
from wsinfer.write_geojson import write_geojsons  # noqa: E402
from wsinfer_zoo.client import ModelConfiguration  # noqa: E402


def model_of(folder: Path) -> LocalModelTorchScript:
    """The weights, and what WSInfer's specification of a model asks for."""
    told = plain_network.about(folder)
    normalise = {"name": "Normalize", "arguments": {"mean": told["mean"], "std": told["std"]}}
    config = ModelConfiguration.from_dict(
        {
            "spec_version": "1.0",
            "architecture": "repvgg_a0",
            "num_classes": len(told["classes"]),
            "class_names": told["classes"],
            "patch_size_pixels": told["size_px"],
            "spacing_um_px": told["mpp"],
            "transform": [{"name": "ToTensor"}, normalise],
        }
    )
    return LocalModelTorchScript(config=config, model_path=str(folder / "torchscript.pt"))


def work(job: protocol.Job, parts: protocol.Parts) -> int:
    slide, out = Path(job["slide"]), Path(job["out"])
    model = model_of(Path(job["model"]))
    with parts.on("mask"):
        segment_and_patch_directory_of_slides(
            wsi_dir=slide.parent,
            save_dir=out,
            patch_size_px=model.config.patch_size_pixels,
            patch_spacing_um_px=model.config.spacing_um_px,
        )
    with parts.on("classify"):
        failed = run_inference(
            wsi_dir=slide.parent,
            results_dir=out,
            model_info=model,
            batch_size=job["batch"],
            num_workers=job["workers"],
            speedup=job.get("speedup", False),
        )
    if any(failed):
        raise RuntimeError(f"WSInfer failed: {failed}")
    csvs = list((out / "model-outputs-csv").glob("*.csv"))
    with parts.on("write"):
        write_geojsons(csvs, out, max(1, job["workers"]))
    table = pd.read_csv(csvs[0])
    probabilities = table[[name for name in table.columns if name.startswith("prob_")]].to_numpy()
    return protocol.save_tiles(out, table[["minx", "miny"]].to_numpy(), np.argmax(probabilities, axis=1))


if __name__ == "__main__":
    protocol.serve(work)
