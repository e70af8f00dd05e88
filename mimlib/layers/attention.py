"""Multi-head self-attention.

Letters: B images, K tokens, M the tokens that ask, D token width, A heads, d = D / A.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

# Measured on an AVX-512 CPU (torch 2.15): the fused kernel loses at every length in bfloat16 (up
# to 7 times slower) and with fast float32 products; in plain float32 it wins from here on.
FUSED_FROM_TOKENS_ON_CPU = 150


class Attention(nn.Module):
    """Every token gathers from every token.

    Transformer, section 3.2: softmax(Q K^T / sqrt(d)) V per head, then one linear map.
    """

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)  # rows: queries, keys, values; each head by head
        self.proj = nn.Linear(width, width)

    def forward(
        self, tokens: Float[Tensor, "B K D"], num_outputs: int | None = None
    ) -> Float[Tensor, "B M D"]:
        """Attend from the last `num_outputs` tokens (None: from all) to all tokens."""
        return self.mix(*self.project(tokens, num_outputs))

    def mix(
        self,
        queries: Float[Tensor, "B A M d"],
        keys: Float[Tensor, "B A K d"],
        values: Float[Tensor, "B A K d"],
    ) -> Float[Tensor, "B M D"]:
        """Let each query gather values by its likeness to the keys, and join the heads."""
        if _prefer_eager(queries, keys):
            gathered = _weights(queries, keys) @ values  # [B, A, M, d]
        else:
            gathered = F.scaled_dot_product_attention(queries, keys, values)  # [B, A, M, d]
        return self.proj(rearrange(gathered, "b a m d -> b m (a d)"))  # [B, M, D]

    def weights(self, tokens: Float[Tensor, "B K D"]) -> Float[Tensor, "B A K K"]:
        """Return how much each token (row) takes from each token (column); rows sum to 1."""
        queries, keys, _ = self.project(tokens)
        return _weights(queries, keys)

    def project(
        self, tokens: Float[Tensor, "B K D"], num_outputs: int | None = None
    ) -> tuple[Float[Tensor, "B A M d"], Float[Tensor, "B A K d"], Float[Tensor, "B A K d"]]:
        """Map tokens to the queries of the last `num_outputs`, and all keys and values."""
        if num_outputs is None:
            q, k, v = rearrange(
                self.qkv(tokens), "b k (three a d) -> three b a k d", three=3, a=self.heads
            )
            return q, k, v  # [B, A, K, d] each
        width = tokens.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        q = F.linear(tokens[:, -num_outputs:], weight[:width], bias[:width])  # [B, M, D]
        kv = F.linear(tokens, weight[width:], bias[width:])  # [B, K, 2*D]
        k, v = rearrange(kv, "b k (two a d) -> two b a k d", two=2, a=self.heads)
        return rearrange(q, "b m (a d) -> b a m d", a=self.heads), k, v


def _weights(queries: Tensor, keys: Tensor) -> Tensor:
    scaled = queries * queries.shape[-1] ** -0.5  # on the queries: K x d products, not K x K
    return (scaled @ keys.transpose(-2, -1)).softmax(dim=-1)  # [B, A, M, K]


def _prefer_eager(queries: Tensor, keys: Tensor) -> bool:
    fused_wins = (
        queries.dtype == torch.float32
        and keys.shape[-2] >= FUSED_FROM_TOKENS_ON_CPU
        and torch.get_float32_matmul_precision() == "highest"
    )
    return queries.is_cpu and not fused_wins
