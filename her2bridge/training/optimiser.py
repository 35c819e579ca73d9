"""What the loop is set up with: device, precision, groups of parameters, weights of classes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from her2bridge.errors import UsageError
from her2bridge.inference.runtime.torch_runtime import Hardware, precisions, resolve_precision
from her2bridge.records import IntArray, TileClass
from her2bridge.training import distributed
from her2bridge.training.recipes import Recipe

_MOST_WEIGHT = 10.0  # of a rare class in the loss, against the mean


def own_device(wanted: str) -> str:
    """Of several processes with GPUs each takes its own.

    Raises:
        UsageError: all were given the same one.
    """
    if distributed.size() > 1 and wanted.startswith("cuda:"):
        raise UsageError(
            f"Several processes cannot train on {wanted} alone.",
            where="--device",
            next_step="Give cuda or auto: each process takes a GPU of its own.",
        )
    if distributed.size() > 1 and wanted in ("auto", "cuda") and torch.cuda.is_available():
        return f"cuda:{torch.cuda.current_device()}"
    return wanted


def precision_of(recipe: Recipe, wanted: str, device: torch.device, hardware: Hardware) -> torch.dtype:
    """fp16 would need its gradients scaled; where there is no bf16, fp32 it is.

    Raises:
        UsageError: the device does not compute in it.
    """
    if wanted == "fp16":
        raise UsageError(
            "Training in fp16 is not offered: its gradients run out of range.",
            where="--precision",
            next_step="Give auto, bf16 or fp32.",
        )
    if wanted == "auto":
        has_bf16 = recipe.mixed_precision and "bf16" in precisions(device, hardware)
        return torch.bfloat16 if has_bf16 else torch.float32
    return torch.bfloat16 if resolve_precision(wanted, device, hardware) == "bf16" else torch.float32


def groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters that weight decay pulls, and those that it leaves alone: biases, batch norm, GCT."""
    pulled: list[nn.Parameter] = []
    left: list[nn.Parameter] = []
    for parameter in network.parameters():
        is_matrix = parameter.ndim >= 2 and parameter.shape[0] > 1
        (pulled if is_matrix or recipe.decay_all else left).append(parameter)
    groups = [{"params": pulled, "weight_decay": recipe.weight_decay}, {"params": left, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def class_weights(labels: IntArray) -> Tensor:
    """Weights of the six classes in the loss, float32 [6]: each class counts alike, up to a limit."""
    counts = np.bincount(labels, minlength=len(TileClass))
    weights = counts.sum() / (np.count_nonzero(counts) * counts.clip(min=1))
    return torch.from_numpy(np.minimum(weights, _MOST_WEIGHT).astype(np.float32))
