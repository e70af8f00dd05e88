"""Class attention: one vector that looks at tokens and gathers what it needs from them.

Touvron et al., CaiT (arXiv 2103.17239), section 3. SelfPatch (arXiv 2206.07990, section 3.2) sums
up an image with it, and the neighbours of a patch.

As official (SelfPatch), without CaiT's layer scale.

Letters: B images, N tokens, Q summaries of an image, K tokens that a summary looks at, R summaries
in all, D width, A heads, d width of a head; "k" neighbours, "kv" keys and values.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.layers.blocks import ResidualBlock
from mimlib.layers.masking import gather_tokens
from mimlib.layers.neighbours import Neighbours
from mimlib.layers.packing import pack, unpack


class Memory(NamedTuple):
    """What Q summaries of each image look at, beside themselves."""

    offers: Tensor  # [B, Q, K, 2 * D] keys and values
    valid: Tensor | None = None  # [B, Q, K] bool, which of them count; None: all


class ClassAttention(nn.Module):
    """Each summary gathers from its tokens and from itself; the tokens do not change."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))

    def offer(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B kv"]:
        """Map tokens to keys and values, side by side, in one product."""
        weight = torch.cat([self.k.weight, self.v.weight])  # [2*D, D]
        return F.linear(tokens, weight, torch.cat([self.k.bias, self.v.bias]))  # [..., 2*D]

    def forward(
        self, summaries: Float[Tensor, "#R D"], memories: Sequence[Memory]
    ) -> Float[Tensor, "R D"]:
        """Let each summary look at its memory.

        Args:
            summaries: of all memories, one after the other; one for all may stand for many.
            memories: what B * Q summaries each look at; R of them in all.
        """
        counts = [memory.offers.shape[:2] for memory in memories]  # (B, Q) each
        rows = sum(count.numel() for count in counts)
        query = rearrange(self.q(summaries), "r (a d) -> r 1 a d", a=self.heads)
        query = query * query.shape[-1] ** -0.5
        asked = torch.stack([query, *self._split(self.offer(summaries)[:, None])])
        parts = asked.expand(-1, rows, -1, -1, -1).split([n.numel() for n in counts], dim=1)
        seen = [
            self._look(part.unflatten(1, count), memory).flatten(0, 1)
            for part, count, memory in zip(parts, counts, memories)
        ]
        return self.proj(torch.cat(seen))

    def _look(self, asked: Tensor, memory: Memory) -> Tensor:
        """Let summaries gather: `asked` [3, B, Q, 1, A, d] is their queries, keys and values."""
        query, own_key, own_value = asked
        keys, values = self._split(memory.offers)  # [B, Q, K, A, d] each
        likeness = (query * keys).sum(dim=-1)  # [B, Q, K, A]
        if memory.valid is not None:
            likeness = likeness.masked_fill(~memory.valid[..., None], -torch.inf)
        likeness = torch.cat([(query * own_key).sum(dim=-1), likeness], dim=2)
        weights = likeness.softmax(dim=2).to(values.dtype)[..., None]
        gathered = weights[:, :, 0] * own_value[:, :, 0] + (weights[:, :, 1:] * values).sum(dim=2)
        return gathered.flatten(-2)  # [B, Q, D]

    def _split(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = rearrange(memory, "... (two a d) -> two ... a d", two=2, a=self.heads)
        return keys, values  # [..., A, d] each


class ClassBlock(ResidualBlock):
    """c <- c + ClassAttn(LN([c ; tokens])); c <- c + MLP(LN(c))."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, ClassAttention(width, heads))

    def offer(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B kv"]:
        """Return what the tokens show: once for all who look at them."""
        return self.attn.offer(self.norm1(tokens))

    def forward(
        self, summaries: Float[Tensor, "#R D"], memories: Sequence[Memory]
    ) -> Float[Tensor, "R D"]:
        """Update each summary by its memory, see ClassAttention."""
        seen = self.attn(self.norm1(summaries), memories)
        return self.digest(self.norm2, summaries.expand_as(seen)[None], seen[None])[0]


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
        self, tokens: Sequence[Float[Tensor, "_ _ D"]], neighbours: Sequence[Neighbours] = ()
    ) -> tuple[Float[Tensor, "R D"], list[Float[Tensor, "_ _ D"]]]:
        """Return a summary of all tokens of each image and, given neighbours, one of each patch's.

        Neither has been through a final LayerNorm.

        Args:
            tokens: of images of each size.
            neighbours: of the patches of each size.
        """
        row, runs = pack(tokens)
        images = sum(len(part) for part in tokens)
        summaries = self.cls_token[0]  # [1, D]
        for block in self.blocks:
            offers = unpack(block.offer(row), runs)  # [B, N, 2*D] each
            memories = [Memory(offer[:, None]) for offer in offers]
            memories += [_look_around(*both) for both in zip(offers, neighbours)]
            summaries = block(summaries, memories)  # of images, then of patches
        patches = unpack(summaries[None, images:], runs) if neighbours else []
        return summaries[:images], patches


def _look_around(offers: Tensor, neighbours: Neighbours) -> Memory:
    around = gather_tokens(offers, neighbours.index.flatten(1))
    return Memory(around.unflatten(1, neighbours.index.shape[1:]), neighbours.valid)
