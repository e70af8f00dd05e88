"""What ranks tell each other inside a forward pass; a process alone has nobody to tell.

Letters: B images of this rank, C channels.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn


class SyncBatchNorm(nn.BatchNorm2d):
    """Batch normalization over the images of all ranks.

    torch has it for GPUs only, and DistributedDataParallel refuses its class on a CPU.
    """

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Normalize each channel, in training mode by the mean and variance over B, H and W.

        Raises:
            ValueError: in training mode, if a channel has one value only.
        """
        if self.training and dist.is_initialized() and dist.get_world_size() > 1:
            if maps.is_meta:  # counting operations
                return F.batch_norm(maps, None, None, self.weight, self.bias, training=True)
            return self.normalize_together(maps)
        if self.training and maps.numel() == maps.shape[1]:
            raise ValueError(
                f"there is one value per channel to normalize in maps of {tuple(maps.shape)}; "
                "train on two images or more at once"
            )
        return super().forward(maps)

    def normalize_together(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Normalize by the statistics of all ranks, and follow them with the running ones."""
        values = maps.float()
        count = torch.tensor(maps.numel() / maps.shape[1], device=maps.device)
        dist.all_reduce(count)
        mean = SumOverRanks.apply(values.sum((0, 2, 3))) / count  # [C]
        centered = values - mean[:, None, None]
        variance = SumOverRanks.apply(centered.square().sum((0, 2, 3))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (centered * scale[:, None, None] + self.bias[:, None, None]).to(maps.dtype)


def gather_from_ranks(
    rows: Shaped[Tensor, "B ..."], gradient: bool = False
) -> tuple[Shaped[Tensor, "C ..."], int]:
    """Return the rows of all ranks, and where those of this rank begin.

    Every rank gives equally many. With `gradient`, the rows of each rank learn from the losses of
    all ranks; otherwise none learns.
    """
    rows = rows if gradient else rows.detach()
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows, 0
    first = dist.get_rank() * len(rows)
    if rows.is_meta:  # counting operations
        return rows.repeat(dist.get_world_size(), *[1] * (rows.ndim - 1)), first
    return RowsOfRanks.apply(rows), first


class RowsOfRanks(torch.autograd.Function):
    """The rows of all ranks, one rank's after the other's; each rank's move the losses of all."""

    @staticmethod
    def forward(context: object, rows: Tensor) -> Tensor:
        """Gather the rows."""
        everyone = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, rows.contiguous())
        return torch.cat(everyone)

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        """Return what the losses of all ranks say of the rows of this one."""
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(dist.get_world_size())[dist.get_rank()]


class SumOverRanks(torch.autograd.Function):
    """The sum of a tensor over the ranks; each rank's part moves the losses of all."""

    @staticmethod
    def forward(context: object, part: Tensor) -> Tensor:
        """Add up the parts."""
        total = part.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(context: object, gradient: Tensor) -> Tensor:
        """Add up the gradients of all ranks' losses."""
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total
