"""One process or many: torchrun decides, this file hides the difference.

Without torchrun every function here is the identity, so the trainer reads as for one process.
"""

import atexit
import inspect
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mimlib.protocol import Trainable


class Ranks(NamedTuple):
    """Which of how many processes this is."""

    rank: int
    num_ranks: int


def join(device: torch.device) -> Ranks:
    """Join the other processes of a torchrun launch, if this is one.

    Small CPU tensors travel by gloo and GPU tensors by nccl, so agreeing on a stop signal never
    waits for a GPU.

    Raises:
        ValueError: if torchrun's environment is incomplete or the device is an Apple GPU.
    """
    num_ranks = int(os.environ.get("WORLD_SIZE", "1"))
    if num_ranks == 1 and not dist.is_initialized():
        return Ranks(0, 1)
    if not dist.is_initialized():
        missing = {"RANK", "MASTER_ADDR", "MASTER_PORT"} - os.environ.keys()
        if missing or device.type == "mps":
            raise ValueError(
                f"WORLD_SIZE is {num_ranks}, but {sorted(missing) or 'an Apple GPU'} "
                f"{'is missing' if missing else 'cannot be shared'}; start with torchrun "
                "on CPU or CUDA, or unset WORLD_SIZE for one process"
            )
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(leave)
    return Ranks(dist.get_rank(), dist.get_world_size())


def leave() -> None:
    """Leave the process group, if one was joined."""
    if dist.is_initialized():
        dist.destroy_process_group()


def wrap(method: Trainable, device: torch.device) -> nn.Module:
    """Return what the trainer calls: the method itself, or DDP around it.

    Buffers are not broadcast: fixed tables never change, and what `after_step` updates is equal
    on all ranks because its state is averaged first.
    """
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return method
    # The name of this option changed; torch 2.15 warns about the old one, 2.11 lacks the new one.
    options = inspect.signature(DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
    return DistributedDataParallel(
        method,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{sync: False},
    )


def local_gradients(module: nn.Module) -> AbstractContextManager:
    """Keep gradients on this rank: for all micro-batches of a step but the last."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()


def mean_over_ranks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Average tensors of equal names over the ranks."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return dict(tensors)
    means = {name: tensor.clone() for name, tensor in tensors.items()}
    for name in sorted(means):
        dist.all_reduce(means[name])
        means[name] /= dist.get_world_size()
    return means


def largest_over_ranks(value: int) -> int:
    """Return the largest of the ranks' host integers."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return value
    largest = torch.tensor(value, dtype=torch.int64)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)
