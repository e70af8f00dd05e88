"""What a step costs: floating-point operations, the rate of this device, a trace of kernels."""

import time
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from mimlib.protocol import Trainable

TRACE_STEPS = 5  # traced after one warm-up step
TABLE_ROWS = 30
MEASURE_SECONDS = 0.2  # of matrix products; the best one counts, a busy machine slows the others


def count_flops(method: Trainable, views: Any) -> int:
    """Count the operations of one forward and backward pass, two per multiply-add.

    Parameters and views are replaced by shapes without data, so nothing is computed and nothing
    of the method changes.

    Returns:
        The count, or 0 for a method that cannot run on shapes alone: with a warning, unless its
        `runs_on_shapes` is False.
    """
    if not getattr(method, "runs_on_shapes", True):
        return 0
    from torch.utils.flop_counter import FlopCounterMode  # slow to import

    def shape_only(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device="meta", requires_grad=tensor.requires_grad)

    step = _Step(method)
    state = {**dict(step.named_parameters()), **dict(step.named_buffers())}
    shapes = {name: shape_only(tensor) for name, tensor in state.items()}
    try:
        with FlopCounterMode(display=False) as counter:
            torch.func.functional_call(step, shapes, (tree_map_only(Tensor, shape_only, views),))
    except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
        _warn_uncounted(type(method).__name__, f"{type(error).__name__}: {error}".splitlines()[0])
        return 0
    return counter.get_total_flops()


@lru_cache
def _warn_uncounted(name: str, reason: str) -> None:
    """Say once for each method and reason why its operations are not counted."""
    warnings.warn(
        f"the operations of {name} are not counted, it has no MFU: it does not run on shapes "
        f"without data ({reason})",
        stacklevel=3,
    )


class _Step(nn.Module):
    """Forward and backward pass in one call, so that both see the same parameters."""

    def __init__(self, method: Trainable):
        super().__init__()
        self.method = method

    def forward(self, views: Any) -> None:
        """Compute the gradients."""
        self.method(views).loss.backward()


def saved_bytes(method: Trainable, views: Any) -> int:
    """Count the bytes that a forward pass keeps for the backward pass, parameters left out.

    A tensor saved twice counts once. Nothing of the method changes.
    """
    kept: dict[int, Tensor] = {}
    own = {tensor.untyped_storage()._cdata for tensor in method.state_dict().values()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in own:
            kept[storage] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = method(views)
    count = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    del output
    kept.clear()
    return count


@lru_cache
def matmul_rate(device: torch.device, dtype: torch.dtype, num_threads: int) -> float:
    """Measure the fastest large matrix product of this device, in operations per second.

    MFU is relative to this, not to a data sheet. `num_threads` only keeps the cache honest.
    """
    side = 8192 if device.type == "cuda" else 1024
    left = torch.randn(side, side, device=device).to(dtype)

    def seconds() -> float:
        start = time.perf_counter()
        product = left @ left
        product[0, 0].item()  # waits for the device
        return time.perf_counter() - start

    seconds()  # builds the kernel, wakes the device
    end, best = time.perf_counter() + MEASURE_SECONDS, seconds()
    while time.perf_counter() < end:
        best = min(best, seconds())
    return 2 * side**3 / best


def trace(out: Path, device: torch.device) -> torch.profiler.profile:
    """Trace a few steps into `out/profile/`: trace.json for a viewer, kernels.txt to read."""
    folder = out / "profile"
    folder.mkdir(exist_ok=True)
    activities = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    sort_by = f"self_{'cuda' if device.type == 'cuda' else 'cpu'}_time_total"

    def write(profiler: torch.profiler.profile) -> None:
        profiler.export_chrome_trace(str(folder / "trace.json"))
        table = profiler.key_averages().table(sort_by=sort_by, row_limit=TABLE_ROWS)
        (folder / "kernels.txt").write_text(table, encoding="utf-8")

    schedule = torch.profiler.schedule(wait=1, warmup=1, active=TRACE_STEPS, repeat=1)
    return torch.profiler.profile(activities=activities, schedule=schedule, on_trace_ready=write)
