"""The context decoder of ConST-CL: regions of one view, told what the other view looks like.

Yuan et al., CVPR 2022, arXiv 2112.05181: z = g(h, F'_c), where g is a transformer whose queries are
the region features h of one view, and whose memory is the context F'_c: some frames of the other
view's map.

What the official code calls a head is a unit of full width. In each layer, one after the other,

    q = W_q x,  a = q + softmax(q (W_k m)^T / sqrt(E)) W_v m,  unit(x) = FFN(LN(a))
    x <- [unit_1(x) ; ... ; unit_A(x)]

with nothing around the FFN, no projection behind the attention, and no attention among queries: a
region does not know of the others.

Letters: B clips, R regions, D width of the encoder, T frames of a map, h and w its grid, L frames
of the context, K = L h w its tokens, E width of a unit, A units of a layer.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from mimlib.checks import check_positive, check_range
from mimlib.layers.blocks import initialize

CODE = 16  # channels of a position: 8 for its frame, then 8 for its row and column
UNIT_NORM_EPS = 1e-12  # as official


@dataclass(frozen=True, kw_only=True)
class ContextDecoderConfig:
    """Shape of the decoder. Defaults: the published settings."""

    frames: int = 5  # of the context, L; odd. 0: none, each region is mapped by itself
    width: int = 128  # E, channels of a unit
    depth: int = 3  # layers
    units: int = 3  # A, units of each layer

    def __post_init__(self):
        check_range(self, "frames", least=0)
        check_positive(self, "width", "depth", "units")
        if self.frames and self.frames % 2 == 0:
            raise ValueError(
                f"frames is {self.frames}, which has no middle; choose an odd number, or 0"
            )

    def build(self, width: int) -> "ContextDecoder":
        """Make the decoder for an encoder of this width, freshly initialised."""
        return ContextDecoder(self, width)


def context_frames(num_frames: int, length: int) -> list[int]:
    """Choose `length` (odd) of the frames of a map, evenly around its middle.

    As official: with more of them than the map has, they are all the middle one.
    """
    step, reach = num_frames // length, length // 2
    return [num_frames // 2 + i * step for i in range(-reach, reach + 1)]


class Unit(nn.Module):
    """Attention of one head, and an MLP; the residual goes around the attention alone."""

    def __init__(self, queries: int, memory: int, width: int, eps: float = UNIT_NORM_EPS):
        super().__init__()
        self.q = nn.Linear(queries, width)
        self.k, self.v = (nn.Linear(memory, width) if memory else None for _ in range(2))
        self.norm = nn.LayerNorm(width, eps=eps)
        self.fc1, self.fc2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(
        self, queries: Float[Tensor, "B R D"], memory: Float[Tensor, "B K D2"] | None
    ) -> Float[Tensor, "B R E"]:
        """Let every query look at the memory; None: there is nothing to look at."""
        hidden = projected = self.q(queries)  # [B, R, E]
        if memory is not None:
            seen = F.scaled_dot_product_attention(projected, self.k(memory), self.v(memory))
            hidden = projected + seen
        return self.fc2(F.gelu(self.fc1(self.norm(hidden))))

    def weigh(
        self, queries: Float[Tensor, "B R D"], memory: Float[Tensor, "B K D2"]
    ) -> Float[Tensor, "B R K"]:
        """Return how much each query takes from each token of the memory; rows sum to 1."""
        projected = self.q(queries) * self.q.out_features**-0.5
        return (projected @ self.k(memory).mT).softmax(dim=-1)


class ContextDecoder(nn.Module):
    """Tells regions of one view from what they look like to what they look like in the other."""

    def __init__(self, config: ContextDecoderConfig, width: int):
        super().__init__()
        self.config = config
        memory = width + CODE if config.frames else 0
        inputs = [width] + [config.units * config.width] * config.depth
        self.layers = nn.ModuleList(
            Layer(queries, memory, config.width, config.units) for queries in inputs[:-1]
        )
        self.projection = nn.Linear(inputs[-1], width)
        if config.frames:
            self.temporal_code, self.spatial_code = map(_position_mlp, (1, 2))
        self.apply(initialize)

    def forward(
        self, regions: Float[Tensor, "B R D"], memory: Float[Tensor, "B K D2"] | None
    ) -> Float[Tensor, "B R D"]:
        """Return each region of one view as it should look in the view that the memory is of."""
        return self.projection(self.decode(regions, memory))

    def decode(
        self, regions: Float[Tensor, "B R D"], memory: Float[Tensor, "B K D2"] | None
    ) -> Float[Tensor, "B R AE"]:
        """Return what the last layer says of each region."""
        for layer in self.layers:
            regions = layer(regions, memory)
        return regions

    def remember(self, maps: Float[Tensor, "B D T h w"]) -> Float[Tensor, "B K D2"] | None:
        """Return the context of maps, frame by frame and row by row, with their positions."""
        if not self.config.frames:
            return None
        context = maps[:, :, context_frames(maps.shape[2], self.config.frames)]
        context = rearrange(context, "b d l h w -> b l h w d")
        code = self.encode_positions(context[0, ..., 0]).expand(len(maps), -1, -1, -1, -1)
        return torch.cat([context, code], dim=-1).flatten(1, 3)  # [B, K, D + CODE]

    def encode_positions(self, context: Float[Tensor, "L h w"]) -> Float[Tensor, "L h w code"]:
        """Return a code for every position of a context: small MLPs of the steps from its middle.

        As official, a frame counts by its place in the context, and queries have no such code.
        """
        steps = [torch.arange(side).to(context) - (side - 1) / 2 for side in context.shape]
        frame, row, column = torch.meshgrid(*steps, indexing="ij")  # [L, h, w]
        codes = []
        for mlp, places in ((self.temporal_code, [frame]), (self.spatial_code, [row, column])):
            inside, outside = mlp
            codes.append(outside(inside(torch.stack(places, dim=-1)).relu()))
        return torch.cat(codes, dim=-1)

    def attention_maps(
        self, regions: Float[Tensor, "B R D"], memory: Float[Tensor, "B K D2"], layer: int = -1
    ) -> Float[Tensor, "B A R K"]:
        """Return where each region looks in the memory, in the units of one layer."""
        *earlier, asked = self.layers[: layer % self.config.depth + 1]
        for each in earlier:
            regions = each(regions, memory)
        return torch.stack([unit.weigh(regions, memory) for unit in asked.units], dim=1)


class Layer(nn.Module):
    """Units side by side, which look at the same memory."""

    def __init__(self, queries: int, memory: int, width: int, units: int):
        super().__init__()
        self.units = nn.ModuleList(Unit(queries, memory, width) for _ in range(units))

    def forward(
        self, queries: Float[Tensor, "B R D"], memory: Float[Tensor, "B K D2"] | None
    ) -> Float[Tensor, "B R AE"]:
        """Return what the units say of each query, side by side."""
        return torch.cat([unit(queries, memory) for unit in self.units], dim=-1)


def _position_mlp(coordinates: int) -> nn.ModuleList:
    """Make the two linear maps (ReLU between them) that turn coordinates into half a code."""
    return nn.ModuleList([nn.Linear(coordinates, CODE // 4), nn.Linear(CODE // 4, CODE // 2)])
