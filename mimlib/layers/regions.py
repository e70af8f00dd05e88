"""Regions of a map: boxes that are drawn at random, and one vector for what lies in a box.

Yuan et al. (ConST-CL), CVPR 2022, arXiv 2112.05181: h = RoIAlign(F, r), with a region r = {t, xmin,
ymin, xmax, ymax} in one frame of the map F. Boxes at random serve as well as detected ones, they
report, and are what the published settings use.

Boxes are xyxy in shares of the frame, from 0 to 1, right and bottom exclusive.

Letters: B clips, D channels, T frames, H and W height and width of a map, R boxes of a clip.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import roi_align

from mimlib.checks import check_range

LARGEST = 0.999  # as official: of right and bottom, so a box that begins behind it is reversed
LENGTH_EPS = 1e-6  # as official: 1e-12 for the square; torch's own default is smaller


@dataclass(frozen=True, kw_only=True)
class RandomBoxConfig:
    """How boxes are drawn. Defaults: the released generator, as it was meant."""

    num_boxes: int = 8  # R
    width: tuple[float, float] = (0.1, 0.5)  # shares of the frame's width, from and to
    aspect: tuple[float, float] = (0.5, 2.0)  # height over width, in shares; from and to
    # As official, where four draws share a seed: a box's left share of the frame is its top, and
    # determines its width and aspect. False: four independent draws.
    locked: bool = False

    def __post_init__(self):
        check_range(self, "num_boxes", least=1)
        check_range(self, "width", above=0, most=1, ordered=True)
        check_range(self, "aspect", above=0, ordered=True)

    def draw(self, batch: int, generator: torch.Generator) -> Float[Tensor, "B R 4"]:
        """Draw boxes for a batch of clips, on the generator's device."""
        device = generator.device
        shares = torch.rand(batch, self.num_boxes, 4, generator=generator, device=device)
        return make_boxes(shares[..., :1].expand_as(shares) if self.locked else shares, self)


def make_boxes(shares: Float[Tensor, "B R 4"], config: RandomBoxConfig) -> Float[Tensor, "B R 4"]:
    """Turn numbers from 0 to 1 (for left, top, width and aspect) into boxes, cut at the frame."""
    left, top, width, aspect = shares.unbind(dim=-1)  # [B, R]
    width = config.width[0] + (config.width[1] - config.width[0]) * width
    aspect = config.aspect[0] + (config.aspect[1] - config.aspect[0]) * aspect
    right, bottom = left + width, top + width * aspect
    return torch.stack([left, top, right.clamp(max=LARGEST), bottom.clamp(max=LARGEST)], dim=-1)


def normalize_length(vectors: Float[Tensor, "..."], dim: int = -1) -> Float[Tensor, "..."]:
    """Scale vectors to length 1; those shorter than 1e-6 a million times."""
    return F.normalize(vectors, dim=dim, eps=LENGTH_EPS)


def key_frame(maps: Float[Tensor, "B D T H W"]) -> Float[Tensor, "B D H W"]:
    """Return the frame in the middle, the later one of two: regions lie there."""
    return maps[:, :, maps.shape[2] // 2]


def align_regions(
    maps: Float[Tensor, "B D H W"], boxes: Float[Tensor, "B R 4"], bins: int = 4
) -> Float[Tensor, "B R D bins bins"]:
    """Look up a map in the middle of bins x bins parts of each box, bilinearly (RoIAlign).

    As official, a cell's value is that of its top left corner, not of its center: half a cell is
    added here which torchvision takes away.

    # differs from official: boxes outside the frame see 0 beyond it; official ones are continued.
    """
    height, width = maps.shape[-2:]
    cells = boxes.to(maps.dtype) * maps.new_tensor([width, height, width, height]) + 0.5
    clip = torch.arange(len(boxes), device=maps.device, dtype=maps.dtype)
    rows = torch.cat([repeat(clip, "b -> b r 1", r=boxes.shape[1]), cells], dim=-1).flatten(0, 1)
    found = roi_align(maps, rows, bins, sampling_ratio=1, aligned=True)
    return rearrange(found, "(b r) d y x -> b r d y x", r=boxes.shape[1])


def pool_regions(
    maps: Float[Tensor, "B D H W"], boxes: Float[Tensor, "B R 4"], bins: int = 4
) -> Float[Tensor, "B R D"]:
    """Return the mean over the parts of each box, see `align_regions`."""
    return align_regions(maps, boxes, bins).mean(dim=(-2, -1))
