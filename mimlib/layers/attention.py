"""Multi-head attention: of tokens to each other, and of the tokens of one image to another's.

Letters: B images, K tokens, M the tokens that ask, R those of the other image, D token width,
A heads, d = D / A; "factors" is the 2 d of layers/rope.py.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.layers.packing import Runs, pack, unpack
from mimlib.layers.rope import rotate
from mimlib.layers.windows import Window

# Measured on an AVX-512 CPU (torch 2.15): in bfloat16 the fused kernel loses at every length (up to
# 7 times slower); in plain float32 it wins from the first number on, with fast float32 products
# from the second (at 785 tokens it takes 1.4 times as long with the backward pass, at 1024 0.6).
FUSED_FROM_TOKENS_ON_CPU = 150
FUSED_FROM_TOKENS_WITH_FAST_PRODUCTS = 1000


class Attention(nn.Module):
    """Every token gathers from every token.

    Transformer, section 3.2: softmax(Q K^T / sqrt(d)) V per head, then one linear map. `turns` are
    rotary positions (layers/rope.py): the rows of a table, one for each token.
    """

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
        turns: Float[Tensor, "_ K factors"] | None = None,
    ) -> Float[Tensor, "B M D"]:
        """Attend from the last `num_outputs` tokens (None: from all) to all tokens."""
        return self.mix(*self.project(tokens, num_outputs), turns)

    def mix(
        self,
        queries: Float[Tensor, "B A M d"],
        keys: Float[Tensor, "B A K d"],
        values: Float[Tensor, "B A K d"],
        turns: Float[Tensor, "_ K factors"] | None = None,
        runs: Runs | None = None,
        window: Window | None = None,
    ) -> Float[Tensor, "B M D"]:
        """Let each query gather values by its likeness to the keys, and join the heads.

        Args:
            queries: of the last M tokens.
            keys: of all tokens.
            values: of all tokens.
            turns: rotary positions of all tokens.
            runs: the tokens are a row of images (layers/packing.py), and none sees another's;
                None: each row is one image.
            window: whom each token sees, of all tokens of one image; None: everyone.
        """
        heads = _turn(queries, keys, values, turns, turns)
        if window is not None:
            heads = (window.cut(part) for part in heads)
            return self.proj(window.join(_gather(*heads, window.bias)))
        if runs is None:
            return self.proj(_gather(*heads))  # [B, M, D]
        rows = (unpack(part.transpose(1, 2), runs) for part in heads)  # [B, K, A, d] of each run
        apart = [_gather(*(part.transpose(1, 2) for part in parts)) for parts in zip(*rows)]
        # Joined after the map: joined before it, the gathered values would be kept twice.
        return pack([self.proj(gathered) for gathered in apart])[0]  # [1, K, D]

    def weights(
        self, tokens: Float[Tensor, "B K D"], turns: Float[Tensor, "_ K factors"] | None = None
    ) -> Float[Tensor, "B A K K"]:
        """Return how much each token (row) takes from each token (column); rows sum to 1."""
        queries, keys, _ = _turn(*self.project(tokens), turns, turns)
        return _weights(queries, keys)

    def project(
        self, tokens: Float[Tensor, "B K D"], num_outputs: int | None = None
    ) -> tuple[Float[Tensor, "B A M d"], Float[Tensor, "B A K d"], Float[Tensor, "B A K d"]]:
        """Map tokens to the queries of the last `num_outputs`, and all keys and values."""
        if num_outputs is None:
            heads = rearrange(
                self.qkv(tokens), "b k (three a d) -> b k three a d", three=3, a=self.heads
            )
            # Parted where they lie, so that their gradients are put together where they belong.
            q, k, v = (part.transpose(1, 2) for part in heads.unbind(2))
            return q, k, v  # [B, A, K, d] each
        width = tokens.shape[-1]
        parts = (width, 2 * width)
        weights, bias = self.qkv.weight.split(parts), self.qkv.bias
        biases = (None, None) if bias is None else bias.split(parts)
        q = F.linear(tokens[:, -num_outputs:], weights[0], biases[0])  # [B, M, D]
        kv = F.linear(tokens, weights[1], biases[1])  # [B, K, 2*D]
        k, v = rearrange(kv, "b k (two a d) -> two b a k d", two=2, a=self.heads)
        return rearrange(q, "b m (a d) -> b a m d", a=self.heads), k, v


class CrossAttention(nn.Module):
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
        turns: Float[Tensor, "_ M factors"] | None = None,
        memory_turns: Float[Tensor, "_ R factors"] | None = None,
    ) -> Float[Tensor, "B M D"]:
        """Attend from all tokens to all of the memory."""
        queries, (keys, values) = self.ask(tokens), self.offer(memory)
        return self.mix(queries, keys, values, turns, memory_turns)

    def ask(self, tokens: Float[Tensor, "B M D"]) -> Float[Tensor, "B A M d"]:
        """Map tokens to queries."""
        return rearrange(self.projq(tokens), "b m (a d) -> b a m d", a=self.heads)

    def offer(
        self, memory: Float[Tensor, "B R D"]
    ) -> tuple[Float[Tensor, "B A R d"], Float[Tensor, "B A R d"]]:
        """Map the memory to keys and values, in one product."""
        weight = torch.cat([self.projk.weight, self.projv.weight])  # [2*D, D]
        biases = self.projk.bias, self.projv.bias
        both = F.linear(memory, weight, None if biases[0] is None else torch.cat(biases))
        k, v = rearrange(both, "b r (two a d) -> two b a r d", two=2, a=self.heads)
        return k, v

    def mix(
        self,
        queries: Float[Tensor, "B A M d"],
        keys: Float[Tensor, "B A R d"],
        values: Float[Tensor, "B A R d"],
        turns: Float[Tensor, "_ M factors"] | None = None,
        memory_turns: Float[Tensor, "_ R factors"] | None = None,
    ) -> Float[Tensor, "B M D"]:
        """Let each query gather values of the memory, and join the heads."""
        return self.proj(_gather(*_turn(queries, keys, values, turns, memory_turns)))

    def weights(
        self,
        tokens: Float[Tensor, "B M D"],
        memory: Float[Tensor, "B R D"],
        turns: Float[Tensor, "_ M factors"] | None = None,
        memory_turns: Float[Tensor, "_ R factors"] | None = None,
    ) -> Float[Tensor, "B A M R"]:
        """Return how much each token (row) takes from each of the memory (column)."""
        heads = self.ask(tokens), *self.offer(memory)
        queries, keys, _ = _turn(*heads, turns, memory_turns)
        return _weights(queries, keys)


def _turn(
    queries: Tensor, keys: Tensor, values: Tensor, turns: Tensor | None, key_turns: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Apply rotary positions, if there are any; the queries belong to the last of `turns`."""
    if turns is None or key_turns is None:
        return queries, keys, values
    queries = rotate(queries, turns[:, -queries.shape[2] :])
    # A copy: the values share a tensor with the keys, which a view would keep for the backward.
    return queries, rotate(keys, key_turns), values.clone()


def _gather(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    if _prefer_eager(queries, keys):
        gathered = _weights(queries, keys, bias) @ values  # [B, A, M, d]
    else:
        mask = None if bias is None else bias.to(queries.dtype)
        gathered = F.scaled_dot_product_attention(queries, keys, values, mask)  # [B, A, M, d]
    return rearrange(gathered, "b a m d -> b m (a d)")


def _weights(queries: Tensor, keys: Tensor, bias: Tensor | None = None) -> Tensor:
    scaled = queries * queries.shape[-1] ** -0.5  # on the queries: K x d products, not K x K
    likeness = scaled @ keys.transpose(-2, -1)  # [B, A, M, K]
    return (likeness if bias is None else likeness + bias).softmax(dim=-1)


def _prefer_eager(queries: Tensor, keys: Tensor) -> bool:
    if not queries.is_cpu:
        return False
    length = keys.shape[-2]
    if queries.dtype != torch.float32 or length < FUSED_FROM_TOKENS_ON_CPU:
        return True
    if length >= FUSED_FROM_TOKENS_WITH_FAST_PRODUCTS:
        return False
    return torch.get_float32_matmul_precision() != "highest"  # asked last: it breaks a graph
