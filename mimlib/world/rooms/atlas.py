"""All textures of the world in one table of texels with mip levels.

Letters: G textures, S side of the finest level, B scenes, K rays.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from mimlib.world.rooms import textures
from mimlib.world.sets.cache import load, store

FAMILIES: dict[str, Callable[[textures.Brush], Tensor]] = {  # all that textures.py draws, in order
    name.removeprefix("draw_"): draw
    for name, draw in vars(textures).items()
    if name.startswith("draw_")
}
SIDE = 128  # texels
PER_FAMILY = 48  # textures


@contextmanager
def one_thread() -> Iterator[None]:
    """Run on one thread and without gradients.

    A second thread does not pay for tensors that fit the cache, and it changes the order of sums.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_num_threads(before)


class Atlas(NamedTuple):
    """The texels of every level of every texture, texture by texture, finest level first.

    Within a family textures are sorted from calm to loud.
    """

    texels: Tensor  # [G * stride, 3] uint8
    offsets: Tensor  # [levels] int64, where each level begins inside a texture
    stride: int  # texels of one texture over all levels
    side: int  # S
    per_family: int

    def pick(
        self, families: tuple[str, ...], count: int, generator: torch.Generator, calm: bool = False
    ) -> Tensor:
        """Draw `count` textures [B] from a list of families; a repeated name is likelier.

        `calm` keeps to the quieter half of each family.
        """
        first = torch.tensor([list(FAMILIES).index(name) * self.per_family for name in families])
        family = torch.randint(0, len(families), (count,), generator=generator)
        usable = self.per_family // 2 if calm else self.per_family
        return first[family] + torch.randint(0, usable, (count,), generator=generator)

    def sample(self, texture: Tensor, u: Tensor, v: Tensor, texels_per_pixel: Tensor) -> Tensor:
        """Look up colors in [0, 1], [B, K, 3]: bilinear in the nearest mip level.

        Places u and v along and down a texture [B, K] are in textures and wrap around; texels per
        pixel [B, K] are those of the finest level.
        """
        finest = len(self.offsets) - 1
        level = torch.log2(texels_per_pixel.clamp(min=1)).round().clamp(max=finest).long()
        side = self.side >> level
        x, y = u * side - 0.5, v * side - 0.5
        left, top = x.floor(), y.floor()
        across, down = (x - left).unsqueeze(-1), (y - top).unsqueeze(-1)
        wrap = side - 1  # sides are powers of two
        left, top = left.long() & wrap, top.long() & wrap
        start = texture * self.stride + self.offsets[level]
        upper, lower = start + top * side, start + ((top + 1) & wrap) * side
        right = (left + 1) & wrap
        above = torch.lerp(self.read(upper + left), self.read(upper + right), across)
        below = torch.lerp(self.read(lower + left), self.read(lower + right), across)
        return torch.lerp(above, below, down) / 255

    def read(self, index: Tensor) -> Tensor:
        """Return the texels at index [B, K] as floats [B, K, 3] in [0, 255]."""
        rows = self.texels.index_select(0, index.flatten())
        return rows.float().unflatten(0, index.shape)


def loudness(textures_: Tensor) -> Tensor:
    """Rate textures [G, S, S, 3]: saturated, contrasty and dark ones are loud, [G]."""
    saturation = textures_.amax(3) - textures_.amin(3)
    contrast = textures_.mean(3).std((1, 2))
    return saturation.mean((1, 2)) + 2 * contrast - 0.6 * textures_.mean((1, 2, 3))


@one_thread()
def draw_atlas(side: int = SIDE, per_family: int = PER_FAMILY, seed: int = 0) -> Atlas:
    """Draw every texture and its mip levels on the CPU; about two seconds for the full atlas."""
    brush = textures.Brush(per_family, side, torch.Generator().manual_seed(seed))
    finest = []
    for draw in FAMILIES.values():
        family = draw(brush).clamp(0, 1)
        finest.append(family[loudness(family).argsort()])
    levels = [rearrange(torch.cat(finest), "g h w c -> g c h w")]
    while levels[-1].shape[-1] > 1:
        levels.append(F.avg_pool2d(levels[-1], 2))
    sizes = [level.shape[-1] ** 2 for level in levels]
    texels = torch.cat([rearrange(level, "g c h w -> g (h w) c") for level in levels], 1)
    texels = rearrange((texels * 255).round().to(torch.uint8), "g t c -> (g t) c")
    offsets = torch.tensor([0, *sizes[:-1]]).cumsum(0)
    return Atlas(texels, offsets, sum(sizes), side, per_family)


@lru_cache(maxsize=1)
def default_atlas() -> Atlas:
    """Return the atlas every set is rendered with, from disk or drawn once per process."""
    key = {"recipe": "atlas", "size": SIDE, "per_family": PER_FAMILY}
    fields = load(key, 1)
    if fields is None:
        drawn = draw_atlas()
        fields = {"texels": drawn.texels[None], "offsets": drawn.offsets[None]}
        store(key, 1, fields)
    texels, offsets = fields["texels"][0], fields["offsets"][0]
    return Atlas(texels, offsets, int(offsets[-1]) + 1, SIDE, PER_FAMILY)
