"""Class attention: one vector that looks at tokens and gathers what it needs from them.

Touvron et al., CaiT (arXiv 2103.17239), section 3. SelfPatch (arXiv 2206.07990, section 3.2) sums
up an image with it, and the neighbours of a patch.

As official (SelfPatch), without CaiT's layer scale.

Letters: B images, N tokens, Q summaries, K tokens that a summary looks at, D width, A heads, d
width of a head; "k" neighbours.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from mimlib.layers.blocks import ResidualBlock
from mimlib.layers.masking import gather_tokens
from mimlib.layers.neighbours import Neighbours


class ClassAttention(nn.Module):
    """Each summary gathers from its tokens and from itself; the tokens do not change."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))

    def offer(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N kv"]:
        """Map tokens to keys and values, side by side, in one product."""
        weight = torch.cat([self.k.weight, self.v.weight])  # [2*D, D]
        return F.linear(tokens, weight, torch.cat([self.k.bias, self.v.bias]))  # [B, N, 2*D]

    def forward(
        self,
        summary: Float[Tensor, "#B #Q D"],
        memory: Float[Tensor, "B Q K kv"],
        valid: Bool[Tensor, "B Q K"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """Let each summary look at its memory.

        Args:
            summary: one for all may stand for many.
            memory: keys and values of what each summary sees beside itself.
            valid: which of it counts; None: all.
        """
        query = rearrange(self.q(summary), "b q (a d) -> b q 1 a d", a=self.heads)
        own = self._split(self.offer(summary)[:, :, None])  # [#B, #Q, 1, A, d] each
        keys, values = self._split(memory)  # [B, Q, K, A, d] each
        query = query * query.shape[-1] ** -0.5
        likeness = (query * keys).sum(dim=-1)  # [B, Q, K, A]
        if valid is not None:
            likeness = likeness.masked_fill(~valid[..., None], -torch.inf)
        itself = (query * own[0]).sum(dim=-1).expand(*likeness.shape[:2], 1, -1)
        weights = torch.cat([itself, likeness], dim=2).softmax(dim=2).to(values.dtype)[..., None]
        gathered = weights[:, :, 0] * own[1][:, :, 0] + (weights[:, :, 1:] * values).sum(dim=2)
        return self.proj(rearrange(gathered, "b q a d -> b q (a d)"))

    def _split(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = rearrange(
            memory, "b q k (two a d) -> two b q k a d", two=2, a=self.heads
        )  # [B, Q, K, A, d] each
        return keys, values


class ClassBlock(ResidualBlock):
    """c <- c + ClassAttn(LN([c ; tokens])); c <- c + MLP(LN(c))."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, ClassAttention(width, heads))

    def offer(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N kv"]:
        """Return what the tokens show: once for all who look at them."""
        return self.attn.offer(self.norm1(tokens))

    def forward(
        self,
        summary: Float[Tensor, "#B #Q D"],
        memory: Float[Tensor, "B Q K kv"],
        valid: Bool[Tensor, "B Q K"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """Update each summary by its memory, see ClassAttention."""
        seen = self.attn(self.norm1(summary), memory, valid)
        return self.digest(self.norm2, summary.expand_as(seen), seen)


class Aggregator(nn.Module):
    """Sums up an image, and around every patch its neighbours, with the same weights.

    SelfPatch, section 3.2: both begin with the same class token. Keys and values of a token are
    computed once, not for everyone who looks at it: a patch's 5-token sequence of class token and
    k neighbours is never built.
    """

    def __init__(self, width: int, heads: int, depth: int = 2):
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(ClassBlock(width, heads) for _ in range(depth))
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(
        self, tokens: Float[Tensor, "B N D"], neighbours: Neighbours | None = None
    ) -> tuple[Float[Tensor, "B 1 D"], Float[Tensor, "B N D"] | None]:
        """Return a summary of all tokens and, given neighbours, one of each patch's.

        Neither has been through a final LayerNorm.
        """
        image = patches = self.cls_token  # [1, 1, D]
        for block in self.blocks:
            memory = block.offer(tokens)  # [B, N, 2*D]
            image = block(image, memory[:, None])  # [B, 1, D]
            if neighbours is not None:
                around = gather_tokens(memory, neighbours.index.flatten(1))
                around = around.unflatten(1, neighbours.index.shape[1:])  # [B, N, k, 2*D]
                patches = block(patches, around, neighbours.valid)  # [B, N, D]
        return image, None if neighbours is None else patches
