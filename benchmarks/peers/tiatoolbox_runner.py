"""TIAToolbox: its ``PatchPredictor`` with a model of one's own, from the tissue mask to QuPath's GeoJSON.

The model follows its documentation: a ``ModelABC`` whose ``infer_batch`` is its own for classifiers, with pixels
normalised for a batch at a time. On a CPU it does not use ``torch.compile``. The parts are timed around the methods
that its ``run`` calls; nothing of it is changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import plain_network
import protocol
import torch

plain_network.declare_operators()

from tiatoolbox.models.architecture.vanilla import CNNModel  # noqa: E402
from tiatoolbox.models.engine.io_config import IOPatchPredictorConfig  # noqa: E402
from tiatoolbox.models.engine.patch_predictor import PatchPredictor  # noqa: E402
from tiatoolbox.models.models_abc import ModelABC  # noqa: E402


class Model(ModelABC):
    """uint8 tiles as float [n, 3, h, w] to probabilities [n, 6]."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        told = plain_network.about(folder)
        self.network = plain_network.load_network(folder)
        for name in ("mean", "std"):
            self.register_buffer(name, 255.0 * torch.tensor(told[name]).view(1, 3, 1, 1))
        self.class_dict = dict(enumerate(told["classes"]))

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.network((tiles - self.mean) / self.std), -1)

    infer_batch = staticmethod(CNNModel.infer_batch)
    postproc = staticmethod(CNNModel.postproc)


class Timed(PatchPredictor):
    """Notes how long each part takes."""

    parts: protocol.Parts

    def get_dataloader(self, *args: Any, **kwargs: Any) -> Any:
        with self.parts.on("mask"):
            return super().get_dataloader(*args, **kwargs)

    def infer_wsi(self, *args: Any, **kwargs: Any) -> Any:
        with self.parts.on("classify"):
            self.raw = super().infer_wsi(*args, **kwargs)
        return self.raw

    def save_predictions(self, *args: Any, **kwargs: Any) -> Any:
        with self.parts.on("write"):
            return super().save_predictions(*args, **kwargs)


def work(job: protocol.Job, parts: protocol.Parts) -> int:
    out, folder = Path(job["out"]), Path(job["model"])
    told = plain_network.about(folder)
    with parts.on("load"):
        model = Model(folder)
        predictor = Timed(model, batch_size=job["batch"], num_workers=job["workers"], device="cpu", verbose=False)
    predictor.parts = parts
    config = IOPatchPredictorConfig(
        patch_input_shape=(told["size_px"], told["size_px"]),
        stride_shape=(told["size_px"], told["size_px"]),
        input_resolutions=[{"resolution": told["mpp"], "units": "mpp"}],
    )
    predictor.run(
        [Path(job["slide"])],
        patch_mode=False,
        ioconfig=config,
        save_dir=out / "results",
        output_type="qupath",
        return_probabilities=True,
        # It does not read a plain TIFF's resolution by itself.
        wsireader_kwargs={"mpp": (told["mpp"], told["mpp"]), "power": 10 / told["mpp"]},
    )
    coordinates, probabilities = (np.asarray(predictor.raw[name]) for name in ("coordinates", "probabilities"))
    return protocol.save_tiles(out, coordinates[:, :2], probabilities.argmax(axis=1))


if __name__ == "__main__":
    protocol.serve(work)
