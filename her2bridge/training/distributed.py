"""Training on several processes, as ``torchrun`` starts them; one process otherwise."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist

_PATIENCE = timedelta(hours=12)
"""The others wait while the first one reads tiles and measures."""


@contextmanager
def joined(device: str = "auto") -> Iterator[None]:
    """Take part in the group that torchrun's environment describes; nothing where there is none.

    Args:
        device: as it will be trained on; GPUs speak over NCCL, CPUs over Gloo.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) < 2 or dist.is_initialized():
        yield
        return
    on_gpu = device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this one is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this process is the one that writes and tells."""
    return rank() == 0


def wait() -> None:
    """Until all have come here."""
    if dist.is_initialized():
        dist.barrier()


def any_of(said: bool, device: torch.device) -> bool:
    """Whether one of them says so; all must ask at the same step."""
    if not dist.is_initialized():
        return said
    flag = torch.tensor(float(said), device=device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag.item())
