"""Class attention: one vector that looks at tokens and gathers what it needs from them.

Touvron et al., CaiT (arXiv 2103.17239), section 3. SelfPatch (arXiv 2206.07990, section 3.2) sums
up an image with it, and the neighbors of a patch.

As official (SelfPatch), without CaiT's layer scale.

Letters: B images, N tokens, Q summaries of an image, K tokens that a summary looks at, R summaries
in all, D width, A heads, d width of a head; "k" neighbors, "kv" keys and values.
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
from mimlib.layers.neighbors import Neighbors
from mimlib.layers.packing import pack, unpack


class Memory(NamedTuple):
    """What Q summaries of each image look at, beside themselves."""

    keys_values: Tensor  # [B, Q, K, 2 * D], side by side
    valid: Tensor | None = None  # [B, Q, K] bool, which of them count; None: all


class ClassAttention(nn.Module):
    """Each summary gathers from its tokens and from itself; the tokens do not change."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))

    def keys_values(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B kv"]:
        """Map tokens to keys and values, side by side, in one product."""
        weight = torch.cat([self.k.weight, self.v.weight])  # [2*D, D]
        return F.linear(tokens, weight, torch.cat([self.k.bias, self.v.bias]))  # [..., 2*D]

    def forward(
        self, summaries: Float[Tensor, "#R D"], memories: Sequence[Memory]
    ) -> Float[Tensor, "R D"]:
        """Let the summaries of all memories, one after the other, look; one may stand for all."""
        counts = [memory.keys_values.shape[:2] for memory in memories]  # (B, Q) each
        numbers = [count.numel() for count in counts]
        query = rearrange(self.q(summaries), "r (a d) -> r 1 a d", a=self.heads)
        query = query * query.shape[-1] ** -0.5
        own = torch.stack([query, *self._split(self.keys_values(summaries)[:, None])])
        parts = own.expand(-1, sum(numbers), -1, -1, -1).split(numbers, dim=1)
        gathered = [
            self._gather(part.unflatten(1, count), memory).flatten(0, 1)
            for part, count, memory in zip(parts, counts, memories)
        ]
        return self.proj(torch.cat(gathered))

    def _gather(self, own: Tensor, memory: Memory) -> Tensor:
        """Let summaries gather: `own` [3, B, Q, 1, A, d] is their queries, keys and values."""
        query, own_key, own_value = own
        keys, values = self._split(memory.keys_values)  # [B, Q, K, A, d] each
        logits = (query * keys).sum(dim=-1)  # [B, Q, K, A]
        if memory.valid is not None:
            logits = logits.masked_fill(~memory.valid[..., None], -torch.inf)
        logits = torch.cat([(query * own_key).sum(dim=-1), logits], dim=2)
        weights = logits.softmax(dim=2).to(values.dtype)[..., None]
        gathered = weights[:, :, 0] * own_value[:, :, 0] + (weights[:, :, 1:] * values).sum(dim=2)
        return gathered.flatten(-2)  # [B, Q, D]

    def _split(self, keys_values: Tensor) -> tuple[Tensor, Tensor]:
        keys, values = rearrange(keys_values, "... (two a d) -> two ... a d", two=2, a=self.heads)
        return keys, values  # [..., A, d] each


class ClassBlock(ResidualBlock):
    """c <- c + ClassAttn(LN([c ; tokens])); c <- c + MLP(LN(c))."""

    def __init__(self, width: int, heads: int):
        super().__init__(width, ClassAttention(width, heads))

    def keys_values(self, tokens: Float[Tensor, "*B D"]) -> Float[Tensor, "*B kv"]:
        """Map tokens to keys and values, once for all who look at them."""
        return self.attn.keys_values(self.norm1(tokens))

    def forward(
        self, summaries: Float[Tensor, "#R D"], memories: Sequence[Memory]
    ) -> Float[Tensor, "R D"]:
        """Update each summary by its memory, see ClassAttention."""
        gathered = self.attn(self.norm1(summaries), memories)
        return self.add_mlp(self.norm2, summaries.expand_as(gathered)[None], gathered[None])[0]


class Aggregator(nn.Module):
    """Sums up an image, and around every patch its neighbors, with the same weights.

    SelfPatch, section 3.2: both begin with the same class token. Keys and values of a token are
    computed once, not for everyone who looks at it: a patch's 5-token sequence of class token and
    k neighbors is never built.
    """

    def __init__(self, width: int, heads: int, depth: int = 2):
        super().__init__()
        self.cls_token = nn.Parameter(torch.empty(1, 1, width))
        self.blocks = nn.ModuleList(ClassBlock(width, heads) for _ in range(depth))
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(
        self, tokens: Sequence[Float[Tensor, "_ _ D"]], neighbors: Sequence[Neighbors] = ()
    ) -> tuple[Float[Tensor, "R D"], list[Float[Tensor, "_ _ D"]]]:
        """Return a summary of all tokens of each image and, given neighbors, one of each patch's.

        Neither has been through a final LayerNorm. Tokens and neighbors are lists, by image size.
        """
        row, shapes = pack(tokens)
        images = sum(len(part) for part in tokens)
        summaries = self.cls_token[0]  # [1, D]
        for block in self.blocks:
            projected = unpack(block.keys_values(row), shapes)  # [B, N, 2*D] each
            memories = [Memory(each[:, None]) for each in projected]
            memories += [_memory_around(*both) for both in zip(projected, neighbors)]
            summaries = block(summaries, memories)  # of images, then of patches
        patches = unpack(summaries[None, images:], shapes) if neighbors else []
        return summaries[:images], patches


def _memory_around(keys_values: Tensor, neighbors: Neighbors) -> Memory:
    around = gather_tokens(keys_values, neighbors.index.flatten(1))
    return Memory(around.unflatten(1, neighbors.index.shape[1:]), neighbors.valid)
