"""The pre-norm transformer block and its parts.

Letters: B images, K tokens, M the tokens that are computed, D token width.
"""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.layers.attention import EVERYONE, Attention, Sight
from mimlib.layers.packing import Shapes, pack
from mimlib.layers.recompute import recompute

# Narrower blocks are bound by the number of operations, not by memory, and keep everything.
RECOMPUTE_FROM_WIDTH = 512  # ViT-B; a ViT-S takes 8 % longer and saves a third
NORM_EPS = 1e-6  # as official: MAE, ConvMAE, CroCo and DINO all use it in their transformers


class Mlp(nn.Module):
    """Two linear maps with an exact (erf) GELU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, tokens: Float[Tensor, "B K D"]) -> Float[Tensor, "B K D"]:
        """Map every token alone."""
        return self.fc2(self.act(self.fc1(tokens)))


class DropPath(nn.Module):
    """Stochastic depth: in training, leave out a branch for some images (Huang et al. 2016).

    Kept branches are divided by the chance to be kept. The draw comes from torch's own generator:
    it is the one randomness allowed outside `sample_views`.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(
        self, branch: Float[Tensor, "B K D"], packed: Shapes | None = None
    ) -> Float[Tensor, "B K D"]:
        """Return the branch, zero for the images that leave it out; `packed`: of a row of them."""
        if not self.training or self.rate == 0.0:
            return branch
        keep, shapes = 1.0 - self.rate, packed or ((len(branch), 1),)
        kept = [torch.rand(images, 1, 1, device=branch.device) < keep for images, _ in shapes]
        if packed is None:
            return branch * kept[0] / keep  # [B, 1, 1]
        row, _ = pack([part.expand(-1, length, -1) for part, (_, length) in zip(kept, shapes)])
        return branch * row / keep  # [1, K, 1]


class ResidualBlock(nn.Module):
    """x <- x + Mix(LN(x)); x <- x + MLP(LN(x)): what all blocks share but how tokens mix."""

    def __init__(
        self,
        width: int,
        attn: nn.Module,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm_eps: float = NORM_EPS,
        recompute_from: int = RECOMPUTE_FROM_WIDTH,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.attn = attn
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.mlp = Mlp(width, int(width * mlp_ratio))
        self.drop_path = DropPath(drop_path)
        self.recomputes = width >= recompute_from

    def add_mlp(
        self, norm: nn.LayerNorm, *terms: Float[Tensor, "B K D"], packed: Shapes | None = None
    ) -> Float[Tensor, "B K D"]:
        """Return x + MLP(LN(x)), where x is the sum of the terms."""
        tokens, hidden = self._chain(norm, self.mlp.fc1, *terms)  # [B, K, D], [B, K, 4*D]
        _, branch = self._chain(self.mlp.act, self.mlp.fc2, hidden)  # [B, K, D]
        return tokens + self.drop_path(branch, packed)

    def _chain(self, cheap: nn.Module, costly: Callable, *terms: Tensor) -> tuple[Tensor, Any]:
        """Return x and costly(cheap(x)), where x is the sum of the terms.

        A wide block keeps neither cheap(x) nor the sum for the backward pass, which computes them
        again; torch stops as soon as they are there, so `costly` is not repeated and every gradient
        is the same to the last bit. The terms beside the first are branches, half as wide as the
        sum in bfloat16. For LayerNorm and GELU this drops a third of what a block keeps.
        """

        def run(first: Tensor, *branches: Tensor) -> tuple[Tensor, Any]:
            total = sum(branches, start=first)
            return total, costly(cheap(total))

        return recompute(run, *terms) if self.recomputes else run(*terms)


class Block(ResidualBlock):
    """x <- x + Attention(LN(x)); x <- x + MLP(LN(x)).

    ViT, section 3.1, equations 2 and 3.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        drop_path: float = 0.0,
        norm_eps: float = NORM_EPS,
        qkv_bias: bool = True,
    ):
        super().__init__(width, Attention(width, heads, qkv_bias), mlp_ratio, drop_path, norm_eps)

    def forward(
        self,
        tokens: Float[Tensor, "B K D"],
        num_outputs: int | None = None,
        sight: Sight = EVERYONE,
    ) -> Float[Tensor, "B M D"]:
        """Update all tokens, or compute only the last `num_outputs` of them."""
        terms = self.attend(tokens, num_outputs, sight)
        return self.add_mlp(self.norm2, *terms, packed=sight.packed)

    def attend(
        self,
        tokens: Float[Tensor, "B K D"],
        num_outputs: int | None = None,
        sight: Sight = EVERYONE,
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B M D"]]:
        """Return x and Attn(LN(x)), of the last `num_outputs` tokens or of all."""
        if num_outputs is None:
            tokens, projected = self._chain(self.norm1, self.attn.project, tokens)
        else:
            projected = self.attn.project(self.norm1(tokens), num_outputs)
            tokens = tokens[:, -num_outputs:]  # [B, M, D]
        return tokens, self.drop_path(self.attn.attend(projected, sight), sight.packed)

    def weigh(
        self, tokens: Float[Tensor, "B K D"], sight: Sight = EVERYONE
    ) -> Float[Tensor, "B A K K"]:
        """Return how much each token (row) takes from each (column) in its attention."""
        return self.attn.weigh(self.attn.project(self.norm1(tokens)), sight)


def initialize(module: nn.Module) -> None:
    """Initialise one layer as MAE does (appendix A.1); use as `network.apply(initialize)`.

    Linear weights Xavier-uniform, biases 0. The fused query-key-value matrix is taken as one
    matrix of 3 D rows. LayerNorm starts at weight 1 and bias 0, which is torch's default.
    """
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
