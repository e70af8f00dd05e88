"""Muon: momentum whose every direction counts alike, for the matrices inside the blocks.

Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks". Steps have the size
of AdamW's (Liu et al. 2025, "Muon is scalable for LLM training", equation 4), so that one rate
serves both. As `torch.optim.Muon`, which knows no other parameters and takes matrices one by one.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from mimlib.training.parallel import share_of, whole

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # singular values in (0, 1] come to 0.7 to 1.2
ITERATIONS = 5
ADAMW_RMS = 0.2  # of a typical update of AdamW, in learning rates


class Muon(torch.optim.AdamW):
    """AdamW (fused), except in groups with `hidden`, whose parameters are matrices."""

    def __init__(self, groups: Iterable[dict], dtype: torch.dtype, betas: tuple[float, float]):
        """Take the groups of `parameter_groups`; `dtype` is the number type of the products."""
        super().__init__(groups, lr=0.0, betas=betas, fused=True)
        self.dtype = dtype

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Take one step with the gradients there are, and drop those of the matrices."""
        by_shape = defaultdict(list)
        for group in self.param_groups:
            for matrix in group["params"] if group["hidden"] else ():
                if matrix.grad is not None:
                    by_shape[matrix.shape].append((matrix, group))
        for alike in by_shape.values():
            self._turn(alike)
        super().step()

    def _turn(self, alike: list[tuple[Tensor, dict]]) -> None:
        """Step along the nearest matrices with orthogonal rows (columns), all of one shape."""
        gradients = [matrix.grad for matrix, _ in alike]
        momenta = [self._momentum(matrix) for matrix, _ in alike]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)  # Nesterov's
        together = torch.stack([whole(each).to(self.dtype) for each in ahead])  # [N, R, C]
        scale = ADAMW_RMS * max(together.shape[1:]) ** 0.5
        for (matrix, group), turned in zip(alike, orthogonalize(together)):
            rate = group["lr"]
            matrix.mul_(1 - rate * group["weight_decay"])
            matrix.add_(share_of(turned, matrix), alpha=-rate * scale)
            matrix.grad = None  # AdamW leaves alone what has none

    def _momentum(self, matrix: Tensor) -> Tensor:
        state = self.state[matrix]
        if not state:
            state["step"] = torch.zeros(())  # AdamW looks for one when it is loaded
            state["exp_avg"] = torch.zeros_like(matrix)
        return state["exp_avg"]


def orthogonalize(matrices: Float[Tensor, "N R C"]) -> Float[Tensor, "N R C"]:
    """Bring every singular value near 1 by Newton-Schulz iterations, which are products alone.

    Zero stays zero.
    """
    if matrices.shape[1] > matrices.shape[2]:
        return orthogonalize(matrices.mT).mT
    a, b, c = COEFFICIENTS
    norms = matrices.float().square().sum((1, 2), keepdim=True).sqrt()  # [N, 1, 1]
    x = matrices / norms.clamp(min=1e-7).to(matrices.dtype)
    for _ in range(ITERATIONS):
        gram = x @ x.mT  # [N, R, R]
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x
