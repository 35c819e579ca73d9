"""What one would write first: tiffslide reads a tile, 32 tiles make a batch, torch in fp32 classifies it."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import plain_network
import protocol
import torch
from tiffslide import TiffSlide


def work(job: protocol.Job, parts: protocol.Parts) -> int:
    folder = Path(job["model"])
    told = plain_network.about(folder)
    model, side, batch = plain_network.load_network(folder), told["size_px"], job["batch"]
    mean, std = (torch.tensor(told[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    classes = []
    with parts.on("classify"), TiffSlide(job["slide"]) as slide, torch.inference_mode():
        width, height = slide.dimensions
        origins = list(itertools.product(range(0, width, side), range(0, height, side)))
        for start in range(0, len(origins), batch):
            tiles = [np.asarray(slide.read_region(one, 0, (side, side))) for one in origins[start : start + batch]]
            pixels = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float() / 255
            classes.append(model((pixels - mean) / std).argmax(dim=1).numpy())
    return protocol.save_tiles(Path(job["out"]), origins, np.concatenate(classes))


if __name__ == "__main__":
    protocol.serve(work)
