"""Decoder blocks for two images: the tokens of the first are informed by the second, its memory.

CroCo, section 3, "Decoder": two ways to let the images meet. Both blocks are called alike:
`tokens, memory = block(tokens, memory, ...)`.

Letters: B pairs, K tokens of image 1, M those that are computed, R tokens of image 2, D width.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.layers.attention import CrossAttention, Sight
from mimlib.layers.blocks import NORM_EPS, Block


class CrossBlock(Block):
    """A block with a second attention in its middle, to the memory.

        x <- x + Attn(LN(x));  x <- x + CrossAttn(LN(x), LN(memory));  x <- x + MLP(LN(x))

    The memory goes on unchanged: every block looks at the same encoded image 2, each through a
    LayerNorm of its own.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float = 4.0,
        norm_eps: float = NORM_EPS,
        qkv_bias: bool = True,
        norm_memory: bool = True,
    ):
        super().__init__(width, heads, mlp_ratio, norm_eps=norm_eps, qkv_bias=qkv_bias)
        self.cross_attn = CrossAttention(width, heads, qkv_bias)
        self.norm3 = nn.LayerNorm(width, eps=norm_eps)  # before the MLP; norm2: before cross_attn
        # Of the memory; the name is the official.
        self.norm_y = nn.LayerNorm(width, eps=norm_eps) if norm_memory else nn.Identity()

    def forward(
        self,
        tokens: Float[Tensor, "B K D"],
        memory: Float[Tensor, "B R D"],
        rope: Float[Tensor, "_ K factors"] | None = None,
        memory_rope: Float[Tensor, "_ R factors"] | None = None,
        num_outputs: int | None = None,
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B R D"]]:
        """Update all tokens of image 1, or compute only the last `num_outputs` of them.

        Args:
            tokens: of image 1.
            memory: tokens of image 2.
            rope: rotary positions of the tokens.
            memory_rope: rotary positions of the memory.
            num_outputs: how many of the last tokens are wanted; None: all.

        Returns:
            The tokens, and the memory as it was.
        """
        terms = self.attend(tokens, num_outputs, Sight(rope))  # [B, M, D] each
        _, queries = self._chain(self.norm2, self.cross_attn.project_queries, *terms)
        _, offered = self._chain(self.norm_y, self.cross_attn.project_memory, memory)
        rope = rope if rope is None else rope[:, -terms[0].shape[1] :]
        seen = self.cross_attn.mix((queries, offered), rope, memory_rope)  # [B, M, D]
        return self.digest(self.norm3, *terms, self.drop_path(seen)), memory

    def cross_weights(
        self,
        tokens: Float[Tensor, "B K D"],
        memory: Float[Tensor, "B R D"],
        rope: Float[Tensor, "_ K factors"] | None = None,
        memory_rope: Float[Tensor, "_ R factors"] | None = None,
    ) -> Float[Tensor, "B A K R"]:
        """Return how much each token takes from each of the memory; rows sum to 1."""
        asking = self.norm2(sum(self.attend(tokens, sight=Sight(rope))))
        return self.cross_attn.weights(asking, self.norm_y(memory), rope, memory_rope)


class CatBlock(Block):
    """A plain block on both images at once: all tokens attend to all tokens.

    Here the memory changes too. The paper does not say whether the two images are told apart by an
    embedding; nothing is added here.
    """

    def forward(
        self,
        tokens: Float[Tensor, "B K D"],
        memory: Float[Tensor, "B R D"],
        rope: Float[Tensor, "_ K factors"] | None = None,
        memory_rope: Float[Tensor, "_ R factors"] | None = None,
        num_outputs: int | None = None,
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B R D"]]:
        """Update all tokens of both images, or only the last `num_outputs` of image 1.

        Args and Returns: as for CrossBlock; with `num_outputs` the memory is not updated.
        """
        both, both_rope = _join(tokens, memory, rope, memory_rope)
        both = super().forward(both, num_outputs, Sight(both_rope))
        if num_outputs is not None:
            return both, memory  # [B, M, D]
        return both[:, memory.shape[1] :], both[:, : memory.shape[1]]

    def cross_weights(
        self,
        tokens: Float[Tensor, "B K D"],
        memory: Float[Tensor, "B R D"],
        rope: Float[Tensor, "_ K factors"] | None = None,
        memory_rope: Float[Tensor, "_ R factors"] | None = None,
    ) -> Float[Tensor, "B A K R"]:
        """Return how much each token takes from each of the memory; the rest from its own image."""
        both, both_rope = _join(tokens, memory, rope, memory_rope)
        weights = self.attn.weights(self.norm1(both), both_rope)  # [B, A, R + K, R + K]
        return weights[:, :, memory.shape[1] :, : memory.shape[1]]


def _join(
    tokens: Tensor, memory: Tensor, rope: Tensor | None, memory_rope: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Put the memory in front, so that the last tokens stay the last."""
    both = torch.cat([memory, tokens], dim=1)  # [B, R + K, D]
    if rope is None or memory_rope is None:
        return both, None
    parts = [part.expand(len(both), -1, -1) for part in (memory_rope, rope)]
    return both, torch.cat(parts, dim=1)
