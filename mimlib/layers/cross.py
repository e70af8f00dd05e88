"""Decoder blocks for two images: the tokens of the first are informed by the second, its memory.

CroCo, section 3, "Decoder": two ways to let the images meet. Both blocks are called alike:
`tokens, memory = block(tokens, memory, num_outputs, sight)`, where the sight holds the rotary
positions of both.

Letters: B pairs, K tokens of image 1, M those that are computed, R tokens of image 2, D width.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.layers.attention import EVERYONE, CrossAttention, Sight
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
        num_outputs: int | None = None,
        sight: Sight = EVERYONE,
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B R D"]]:
        """Return all tokens of image 1, or only the last `num_outputs`, and the same memory."""
        terms = self.attend(tokens, num_outputs, Sight(sight.rope))  # [B, M, D] each
        _, queries = self._chain(self.norm2, self.cross_attn.project_queries, *terms)
        _, both = self._chain(self.norm_y, self.cross_attn.project_memory, memory)
        gathered = self.cross_attn.attend((queries, both), sight)  # [B, M, D]
        return self.add_mlp(self.norm3, *terms, self.drop_path(gathered)), memory

    def cross_weigh(
        self,
        tokens: Float[Tensor, "B K D"],
        memory: Float[Tensor, "B R D"],
        sight: Sight = EVERYONE,
    ) -> Float[Tensor, "B A K R"]:
        """Return how much each token takes from each of the memory; rows sum to 1."""
        tokens = self.norm2(sum(self.attend(tokens, sight=Sight(sight.rope))))
        attn = self.cross_attn
        both = attn.project_memory(self.norm_y(memory))
        return attn.weigh((attn.project_queries(tokens), both), sight)


class CatBlock(Block):
    """A plain block on both images at once: all tokens attend to all tokens.

    Here the memory changes too. The paper does not say whether the two images are told apart by an
    embedding; nothing is added here.
    """

    def forward(
        self,
        tokens: Float[Tensor, "B K D"],
        memory: Float[Tensor, "B R D"],
        num_outputs: int | None = None,
        sight: Sight = EVERYONE,
    ) -> tuple[Float[Tensor, "B M D"], Float[Tensor, "B R D"]]:
        """Update all tokens of both images, or only the last `num_outputs` of image 1."""
        both = super().forward(*_join(tokens, memory, num_outputs, sight))
        if num_outputs is not None:
            return both, memory  # [B, M, D]
        return both[:, memory.shape[1] :], both[:, : memory.shape[1]]

    def cross_weigh(
        self,
        tokens: Float[Tensor, "B K D"],
        memory: Float[Tensor, "B R D"],
        sight: Sight = EVERYONE,
    ) -> Float[Tensor, "B A K R"]:
        """Return how much each token takes from each of the memory; the rest from its own image."""
        both, _, sight = _join(tokens, memory, None, sight)
        return self.weigh(both, sight)[:, :, memory.shape[1] :, : memory.shape[1]]


def _join(
    tokens: Tensor, memory: Tensor, num_outputs: int | None, sight: Sight
) -> tuple[Tensor, int | None, Sight]:
    """Put the memory in front, so that the last tokens stay the last."""
    both = torch.cat([memory, tokens], dim=1)  # [B, R + K, D]
    if sight.rope is None:
        return both, num_outputs, EVERYONE
    memory_rope = sight.rope if sight.memory_rope is None else sight.memory_rope
    ropes = [part.expand(len(both), -1, -1) for part in (memory_rope, sight.rope)]
    return both, num_outputs, Sight(torch.cat(ropes, dim=1))
