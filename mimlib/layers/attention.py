"""Multi-head attention: of tokens to each other, and of the tokens of one image to another's.

Letters: B images, K tokens, M the tokens that ask, R those of the other image, D token width,
A heads, d = D / A; "factors" is the 2 d of layers/rope.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.layers.packing import Shapes, pack, unpack
from mimlib.layers.recompute import recompute
from mimlib.layers.rope import rotate
from mimlib.layers.windows import STRIP_TOKENS, Window

# Measured on CPUs with AVX2 and AVX-512 (torch 2.15): in bfloat16 the fused kernel loses at every
# length (up to 7 times slower). In plain float32 it is as fast at 17 tokens and half again as fast
# at 257; with fast float32 products it loses up to here (785 tokens 1.4 times as long, 1024 0.6).
FUSED_FROM_TOKENS_WITH_FAST_PRODUCTS = 1000


class Sight(NamedTuple):
    """Where tokens are, and whom each of them sees; by default everyone, wherever they are."""

    rope: Tensor | None = None  # [_, K, factors] rotary positions (layers/rope.py)
    memory_rope: Tensor | None = None  # [_, R, factors] of the other image; None: as `rope`
    packed: Shapes | None = None  # tokens are a row of images (layers/packing.py), each alone
    window: Window | None = None  # whom each token of an image sees (layers/windows.py)


EVERYONE = Sight()


class _MultiHead(nn.Module):
    """Transformer, section 3.2: softmax(Q K^T / sqrt(d)) V per head, then one linear map."""

    heads: int
    proj: nn.Linear

    def attend(
        self, projected: Sequence[Float[Tensor, "B _ _ D"]], sight: Sight = EVERYONE
    ) -> Float[Tensor, "B M D"]:
        """Let each query gather the values of the keys it is like, and join the heads."""
        heads = self._split(projected, sight)
        if (window := sight.window) is not None:
            heads = [window.partition(part) for part in heads]
            whole = isinstance(window.bias, Tensor)
            gathered = _gather(*heads, window.bias) if whole else _gather_in_strips(*heads, window)
            return self.proj(window.merge(gathered))
        if sight.packed is None:
            return self.proj(_gather(*heads))  # [B, M, D]
        rows = (unpack(part.transpose(1, 2), sight.packed) for part in heads)  # [B, K, A, d] each
        apart = [_gather(*(part.transpose(1, 2) for part in parts)) for parts in zip(*rows)]
        # Joined after the map: joined before it, the gathered values would be kept twice.
        return pack([self.proj(gathered) for gathered in apart])[0]  # [1, K, D]

    def weigh(
        self, projected: Sequence[Float[Tensor, "B _ _ D"]], sight: Sight = EVERYONE
    ) -> Float[Tensor, "B A M R"]:
        """Return how much each query (row) takes from each key (column); rows sum to 1."""
        return _weights(*self._split(projected, sight)[:2])

    def _split(self, projected: Sequence[Tensor], sight: Sight) -> list[Tensor]:
        """Return queries, keys and values, [B, A, K, d] each, with rotary positions if any.

        Split where they lie, so that their gradients are put together where they belong, and
        queries and keys of the same tokens are rotated in one go. The last of `rope` belong to the
        queries.
        """
        rope, heads = sight.rope, self.heads
        parts = [
            each.unflatten(-1, (heads, -1)).flatten(2, 3).transpose(1, 2) for each in projected
        ]  # [B, n*A, K, d]
        if rope is not None:
            *queries, others = parts
            rotated, values = others.split((others.shape[1] - heads, heads), dim=1)
            queries = [rotate(each, rope[:, -each.shape[2] :]) for each in queries]
            rotated = rotate(rotated, rope if sight.memory_rope is None else sight.memory_rope)
            # A copy: values share a tensor with the keys, which a view would keep for the backward.
            parts = [*queries, rotated, values.clone()]
        return [part for each in parts for part in each.split(heads, dim=1)]


class Attention(_MultiHead):
    """Every token gathers from every token."""

    def __init__(self, width: int, heads: int, bias: bool = True):
        super().__init__()
        self.heads = heads
        # Rows: queries, keys, values; each head by head.
        self.qkv = nn.Linear(width, 3 * width, bias)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        tokens: Float[Tensor, "B K D"],
        num_outputs: int | None = None,
        sight: Sight = EVERYONE,
    ) -> Float[Tensor, "B M D"]:
        """Attend from the last `num_outputs` tokens (None: from all) to all tokens."""
        return self.attend(self.project(tokens, num_outputs), sight)

    def project(
        self, tokens: Float[Tensor, "B K D"], num_outputs: int | None = None
    ) -> tuple[Float[Tensor, "B _ _ D"], ...]:
        """Map tokens to queries, keys and values, side by side: [B, K, 3, D].

        Or to queries of the last `num_outputs` [B, M, 1, D], and the others of all [B, K, 2, D].
        """
        width = tokens.shape[-1]
        if num_outputs is None:
            return (self.qkv(tokens).unflatten(-1, (3, width)),)
        parts = (width, 2 * width)
        weights, bias = self.qkv.weight.split(parts), self.qkv.bias
        biases = (None, None) if bias is None else bias.split(parts)
        queries = F.linear(tokens[:, -num_outputs:], weights[0], biases[0])  # [B, M, D]
        both = F.linear(tokens, weights[1], biases[1])  # [B, K, 2*D]
        return queries[:, :, None], both.unflatten(-1, (2, width))


class CrossAttention(_MultiHead):
    """Every token of one image gathers from every token of another, its memory.

    Transformer, section 3.2.3, "encoder-decoder attention". As official (CroCo), the four maps are
    apart.
    """

    def __init__(self, width: int, heads: int, bias: bool = True):
        super().__init__()
        self.heads = heads
        self.projq, self.projk, self.projv, self.proj = (
            nn.Linear(width, width, each) for each in (bias, bias, bias, True)
        )

    def forward(
        self,
        tokens: Float[Tensor, "B M D"],
        memory: Float[Tensor, "B R D"],
        sight: Sight = EVERYONE,
    ) -> Float[Tensor, "B M D"]:
        """Attend from all tokens to all of the memory."""
        return self.attend((self.project_queries(tokens), self.project_memory(memory)), sight)

    def project_queries(self, tokens: Float[Tensor, "B M D"]) -> Float[Tensor, "B M 1 D"]:
        """Map tokens to queries."""
        return self.projq(tokens)[:, :, None]

    def project_memory(self, memory: Float[Tensor, "B R D"]) -> Float[Tensor, "B R 2 D"]:
        """Map the memory to keys and values, in one product."""
        weight = torch.cat([self.projk.weight, self.projv.weight])  # [2*D, D]
        biases = self.projk.bias, self.projv.bias
        both = F.linear(memory, weight, None if biases[0] is None else torch.cat(biases))
        return both.unflatten(-1, (2, -1))


def _gather(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    if _prefer_eager(queries, keys, bias):
        gathered = _weights(queries, keys, bias) @ values  # [B, A, M, d]
    else:
        mask = None if bias is None else bias.to(queries.dtype)
        gathered = F.scaled_dot_product_attention(queries, keys, values, mask)  # [B, A, M, d]
    return rearrange(gathered, "b a m d -> b m (a d)")


def _gather_in_strips(queries: Tensor, keys: Tensor, values: Tensor, window: Window) -> Tensor:
    """Gather for some rows of the grid after others, and again in the backward pass.

    The biases of all pairs, which learn and so keep attention from its leanest kernel, are never
    there at once, and nothing of them is kept.
    """
    h, w = window.grid
    rows = max(1, STRIP_TOKENS // w)

    def run(strip: Tensor, first: int) -> Tensor:
        return _gather(strip, keys, values, window.bias(window.grid, (first, min(first + rows, h))))

    strips = queries.split(rows * w, dim=2)
    return torch.cat([recompute(run, strip, i * rows) for i, strip in enumerate(strips)], dim=1)


def _weights(queries: Tensor, keys: Tensor, bias: Tensor | None = None) -> Tensor:
    scaled = queries * queries.shape[-1] ** -0.5  # on the queries: K x d products, not K x K
    logits = scaled @ keys.transpose(-2, -1)  # [B, A, M, K]
    return (logits if bias is None else logits + bias).softmax(dim=-1)


def _prefer_eager(queries: Tensor, keys: Tensor, bias: Tensor | None = None) -> bool:
    if not queries.is_cpu:
        return False
    if queries.dtype != torch.float32 or bias is not None:  # a bias that learns has no kernel
        return True
    if keys.shape[-2] >= FUSED_FROM_TOKENS_WITH_FAST_PRODUCTS:
        return False
    # Asking breaks a graph.
    return not torch.compiler.is_compiling() and torch.get_float32_matmul_precision() != "highest"
