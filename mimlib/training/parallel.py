"""One process or many: torchrun decides, this file hides the difference.

Without torchrun every function here is the identity, so the trainer reads as for one process.
"""

import atexit
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from mimlib.protocol import Trainable


class Ranks(NamedTuple):
    """Which of how many processes this is."""

    rank: int
    num_ranks: int


def join(device: torch.device) -> Ranks:
    """Join the other processes of a torchrun launch, if this is one.

    Small CPU tensors travel by gloo and GPU tensors by nccl, so agreeing on a stop signal never
    waits for a GPU.
    Raises ValueError if torchrun's environment is incomplete or the device is an Apple GPU.
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


def is_alone() -> bool:
    """Say whether there are no other ranks."""
    return not dist.is_initialized() or dist.get_world_size() == 1


def is_sharded(module: nn.Module) -> bool:
    """Say whether FSDP2 holds the weights of this module in parts."""
    return hasattr(module, "set_requires_gradient_sync")


def wrap(method: Trainable, device: torch.device, shard: bool = False) -> nn.Module:
    """Return what the trainer calls: the method itself, sharded in place, or DDP around it.

    Buffers are not broadcast: fixed tables never change, and what `after_step` updates is equal
    on all ranks because its state is averaged first.
    """
    if is_alone():
        return method
    if shard:
        from mimlib.training.sharding import shard_in_place  # slow to import, rarely used

        return shard_in_place(method, device)
    # The name of this option changed; torch 2.15 warns about the old one, 2.11 lacks the new one.
    options = inspect.signature(DistributedDataParallel).parameters
    sync = "forward_sync_buffers" if "forward_sync_buffers" in options else "broadcast_buffers"
    return DistributedDataParallel(
        method,
        device_ids=[device] if device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        **{sync: False},
    )


@contextmanager
def local_gradients(module: nn.Module) -> Iterator[None]:
    """Keep gradients on this rank: for all micro-batches of a step but the last."""
    if isinstance(module, DistributedDataParallel):
        with module.no_sync():
            yield
    elif is_sharded(module):
        module.set_requires_gradient_sync(False)
        yield
        module.set_requires_gradient_sync(True)
    else:
        yield


def local(tensor: Tensor) -> Tensor:
    """Return the part of a sharded tensor that this rank holds."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a sharded tensor put together; all ranks must ask."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """Return the part of a tensor, whole on every rank, that belongs to a sharded tensor's part."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor  # slow to import, rarely used

    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def get_state(method: Trainable, optimizer: Optimizer) -> tuple[dict, dict]:
    """Return the whole state of the method and of the optimiser; all ranks must ask."""
    if not is_sharded(method):
        return method.state_dict(), optimizer.state_dict()
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_state_dict(method, optimizer, options=options)


def set_state(method: Trainable, optimizer: Optimizer, model: dict, moments: dict) -> None:
    """Load what `get_state` returned; every rank gives the whole and keeps its part.

    Raises RuntimeError if names or shapes differ.
    """
    if not is_sharded(method):
        method.load_state_dict(model)
        optimizer.load_state_dict(moments)
        return
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

    states = {"model_state_dict": model, "optim_state_dict": moments}
    set_state_dict(method, optimizer, **states, options=StateDictOptions(full_state_dict=True))


def mean_over_ranks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Average tensors of equal names over the ranks."""
    if is_alone():
        return dict(tensors)
    means = {name: tensor.clone() for name, tensor in tensors.items()}
    for name in sorted(means):
        dist.all_reduce(means[name])
        means[name] /= dist.get_world_size()
    return means


def weigh_gradients(method: Trainable, weights: Sequence[Tensor]) -> Tensor:
    """Turn a mean of gradients times weights, [] of each micro-batch, into their weighted mean.

    Returns [], what a mean of this rank is to be multiplied by before it is averaged over ranks.
    """
    own = torch.stack([*weights]).float().mean()
    mean = mean_over_ranks({"weight": own})["weight"]
    mean = mean.clamp(min=torch.finfo(mean.dtype).tiny)  # where nothing counts: 0 / tiny, not 0 / 0
    for parameter in method.parameters():
        if parameter.grad is not None:
            local(parameter.grad).div_(mean)
    return own / mean


def largest_over_ranks(value: int) -> int:
    """Return the largest of the ranks' host integers."""
    if is_alone():
        return value
    largest = torch.tensor(value, dtype=torch.int64)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)
