"""Activations that are computed again in the backward pass instead of being kept."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def recompute(run: Callable, *arguments: Tensor | int) -> Any:
    """Call `run`, keep its arguments alone, and call it again in the backward pass."""
    if not torch.is_grad_enabled():
        return run(*arguments)
    return checkpoint(
        run, *arguments, use_reentrant=False, preserve_rng_state=False, determinism_check="none"
    )
