"""What a process of its own does in the tests of collectives."""

import os
from pathlib import Path

import torch
import torch.distributed as dist

from mimlib.layers.collectives import SyncBatchNorm

CHANNELS = 3


def maps() -> torch.Tensor:
    """The images of all ranks; the first ones are darker."""
    draw = torch.Generator().manual_seed(0)
    offsets = torch.arange(6.0)[:, None, None, None]
    return 2 * torch.randn(6, CHANNELS, 4, 5, generator=draw) + offsets


def step(norm: SyncBatchNorm, part: torch.Tensor) -> dict[str, torch.Tensor]:
    """A forward and a backward pass; the loss is not the same for all pixels."""
    part = part.clone().requires_grad_()
    output = norm(part)
    weights = torch.arange(output[0].numel(), dtype=torch.float32).view_as(output[0])
    (output.square() * weights).sum().backward()
    gradients = {"weight": norm.weight.grad, "bias": norm.bias.grad}
    state = {"mean": norm.running_mean, "variance": norm.running_var}
    return {"output": output.detach(), "maps": part.grad, **gradients, **state}


def make() -> SyncBatchNorm:
    """A normalisation that scales and shifts."""
    norm = SyncBatchNorm(CHANNELS)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 2.0, -0.5]))
        norm.bias.copy_(torch.tensor([0.0, 1.0, 2.0]))
    return norm


def work(out: Path, sizes: tuple[int, ...], environment: dict) -> None:
    """Normalise this rank's part of the images."""
    os.environ.update(environment)
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found = step(make(), maps().split(sizes)[rank])
    assert make().to("meta")(maps().to("meta")).is_meta  # where operations are counted
    torch.save(found, out / f"rank_{rank}.pt")
    dist.destroy_process_group()
