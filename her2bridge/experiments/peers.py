"""The seven networks that Table 4 of Han et al. 2022 compares with, by torchvision (an extra), weights at random.

The paper's parameter counts are those of the 1000-class networks, Inception-v3 without its auxiliary classifier.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from her2bridge.training.extras import need

PUBLISHED_CLASSES = 1000
"""Outputs of the networks whose size the paper prints."""

PEERS: Mapping[str, tuple[str, Mapping[str, bool]]] = {
    "VGG16": ("vgg16", {}),
    "Inception-v3": ("inception_v3", {"aux_logits": False, "init_weights": True}),
    "ResNet-50": ("resnet50", {}),
    "DenseNet-169": ("densenet169", {}),
    "ShuffleNetV2-x1.5": ("shufflenet_v2_x1_5", {}),
    "MobileNetV3-large": ("mobilenet_v3_large", {}),
    "EfficientNet-B3": ("efficientnet_b3", {}),
}
"""Our name -> torchvision's function, and what it is told besides the number of classes."""

SMALLEST_PX = {"Inception-v3": 75, "DenseNet-169": 33, "VGG16": 32}
"""Sides of the smallest tile that a network takes, where it asks for more than 32."""

_MISSING = ("nms", "qnms")
_SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def build_peer(name: str, classes: int) -> nn.Module:
    """One of ``PEERS`` with random weights, in training mode: float [n, 3, h, w] to logits, float [n, classes].

    Raises:
        UsageError: torchvision is not installed.
    """
    function, options = PEERS[name]
    network: nn.Module = getattr(torchvision_models(), function)(weights=None, num_classes=classes, **options)
    return network


def torchvision_models() -> Any:
    """``torchvision.models``.

    Beside a torch that its compiled operators do not fit (a CPU build of torch 2.13, for instance), torchvision cannot
    be imported: it describes two operators that nobody declared. They are then declared here, and stay without a body:
    no network of ours calls them. Where the operators are there, nothing is declared.

    Raises:
        UsageError: torchvision is not installed.
    """
    try:
        return need("torchvision.models")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for operator in _MISSING:
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", _SIGNATURE)
    return need("torchvision.models")
