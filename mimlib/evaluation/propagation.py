"""Labels propagated through a video by the cosine similarity of features: nothing is trained.

The protocol of DINO (arXiv 2104.14294, section 4.2.2) that SelfPatch uses: a token of the next
frame takes the labels of those tokens nearby, in the first and in the last frames, that are most
like it. Labels stay soft until they are read out.

Letters: T frames, K frames looked back at, h and w the grid of tokens, D width, M labels (the
background is the first one), n tokens of a block, s tokens that it looks at.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from mimlib.checks import check_positive, check_range
from mimlib.layers.patches import normalize as normalize_pixels
from mimlib.layers.patches import patchify
from mimlib.protocol import Encoder

PIXELS_AT_ONCE = 2**18  # encoded together: one frame of 480 x 832, or 64 of 64 x 64
LEAST_SPAN = 1e-4  # of the largest value: a label that differs less is the same everywhere

FeatureMaps = Callable[[Tensor], Tensor]  # normalised images [B, 3, H, W] -> maps [B, D, h, w]


@dataclass(frozen=True, kw_only=True)
class PropagationConfig:
    """How labels travel. Defaults: DAVIS, as official.

    A block of `tile` x `tile` tokens is compared with the tokens around it in all frames looked
    back at: (1 + context) (tile + 2 radius)^2 of them, however large a frame is. A table of
    affinities takes 2 MiB with the defaults, the features beside it 12 MiB for a ViT-S.
    """

    short_side: int = 480  # pixels that frames are resized to; a multiple of the encoder's stride
    multiple: int = 64  # pixels; the long side is rounded down to one; of the stride, too
    context: int = 7  # frames looked back at, beside the first one
    radius: int = 12  # tokens, up, down, left and right, that a label may come from
    neighbors: int = 5  # most similar tokens that count, k
    temperature: float = 0.1  # of the affinity exp(cosine / temperature)
    tile: int = 8  # tokens, side of a block

    def __post_init__(self) -> None:
        check_positive(self, "short_side", "multiple", "neighbors", "temperature", "tile")
        check_range(self, "context", "radius", least=0)


def encoder_maps(encoder: Encoder) -> FeatureMaps:
    """Take the output of an encoder's last block, before its norm, as features."""
    return lambda images: encoder(images, levels=(-1,)).levels[-1]


def pixel_maps(stride: int) -> FeatureMaps:
    """Take nothing but pixels, in patches, as features: the baseline."""
    return lambda images: rearrange(
        patchify(images, stride), "b (h w) d -> b d h w", w=images.shape[-1] // stride
    )


def propagate(
    frames: Iterable[Tensor],
    first_mask: Tensor,
    features: FeatureMaps,
    stride: int,
    config: PropagationConfig,
) -> Iterator[Tensor]:
    """Propagate the objects of the first mask through the frames of a video.

    # differs from official: frames are normalised with ImageNet's deviation of 0.229 for red, where
    the official script has 0.228, and not rounded to 8 bits when they are resized.

    Args:
        frames: [3, H, W] uint8 each, the first one included; on any device.
        first_mask: object ids [H, W] uint8 of the first frame, 0 for none; any numbers.
        features: of frames, on the device of the mask.
        stride: pixels per token of these.
        config: how.

    Yields:
        Object ids [H, W] uint8 of the second frame, the third, ...

    Raises:
        ValueError: if sizes differ, do not fit the stride, or there is no object in the mask.
    """
    numbers = torch.unique(first_mask)
    numbers = torch.cat([numbers.new_zeros(1), numbers[numbers > 0]])  # [M]
    if len(numbers) == 1:
        raise ValueError("the first mask shows no object; start at a frame that does")
    size = (first_mask.shape[0], first_mask.shape[1])
    sides = resized_sides(*size, stride, config)
    grid = (sides[0] // stride, sides[1] // stride)
    labels = (resize_ids(first_mask, grid)[..., None] == numbers).float()  # [h, w, M]
    maps = frame_features(frames, size, sides, features, first_mask.device)
    for soft in propagate_soft(maps, labels, config):
        yield numbers[read_out(soft, stride, size)]


def resized_sides(
    height: int, width: int, stride: int, config: PropagationConfig
) -> tuple[int, int]:
    """Return the size that frames are resized to: rows, columns in pixels.

    Raises ValueError if the stride does not divide what is asked for, or nothing is left.
    """
    short, multiple = config.short_side, config.multiple
    if short % stride or multiple % stride:
        fit = [max(1, round(side / stride)) * stride for side in (short, multiple)]
        raise ValueError(
            f"short_side {short} and multiple {multiple} must be multiples of the encoder's stride "
            f"of {stride} pixels; set short_side={fit[0]} and multiple={fit[1]}, for instance"
        )
    long = short * max(height, width) // min(height, width) // multiple * multiple
    if not long:
        raise ValueError(
            f"the long side of {height} x {width} pixels, scaled to {short} for the short one, is "
            f"less than the multiple of {multiple} that it is rounded to; set multiple={stride}"
        )
    return (long, short) if height > width else (short, long)


@torch.no_grad()
def frame_features(
    frames: Iterable[Tensor],
    size: tuple[int, int],
    sides: tuple[int, int],
    features: FeatureMaps,
    device: torch.device,
) -> Iterator[Tensor]:
    """Yield the map [h, w, D] of each frame, of unit length per token; some frames at once.

    Raises ValueError if a frame is not of the given size.
    """
    at_once, numbered = max(1, PIXELS_AT_ONCE // (sides[0] * sides[1])), enumerate(frames)
    while part := list(islice(numbered, at_once)):
        for index, frame in part:
            if frame.shape[-2:] != size:
                raise ValueError(
                    f"frame {index} (from 0) has {tuple(frame.shape[-2:])} pixels, the first mask "
                    f"{size}; the frames and masks of a video have one size: resize or crop them"
                )
        pixels = torch.stack([frame.to(device) for _, frame in part]) / 255
        pixels = interpolate(pixels, size=sides, mode="bilinear", align_corners=False)
        maps = features(normalize_pixels(pixels)).float()
        yield from normalize(rearrange(maps, "b d h w -> b h w d"), dim=-1)


def propagate_soft(
    maps: Iterable[Tensor], labels: Tensor, config: PropagationConfig
) -> Iterator[Tensor]:
    """Propagate soft labels from frame to frame.

    Of the maps [h, w, D] of the frames, of unit length per token, the first one has the labels
    [h, w, M], one of them 1. Yields those of the second frame, the third, ...
    """
    maps = iter(maps)
    first = [(target, labels) for target in islice(maps, 1)]
    recent: deque[tuple[Tensor, Tensor]] = deque(maxlen=config.context)
    for target in maps:
        labels = propagate_step(target, *zip(*first, *recent), config)
        recent.append((target, labels))
        yield labels


def propagate_step(
    target: Tensor, sources: Sequence[Tensor], labels: Sequence[Tensor], config: PropagationConfig
) -> Tensor:
    """Give each token of a frame the labels of the tokens that it is most like.

    Token i gets sum_j a_ij label_j / sum_j a_ij over the tokens j within the radius in every frame
    looked back at, a_ij = exp(cosine_ij / temperature), 0 below the k-th largest of them.

    Args:
        target: [h, w, D], of unit length per token.
        sources: K times [h, w, D], likewise.
        labels: of the sources, K times [h, w, M]; those of a token sum to 1, also of the result.
        config: how.
    """
    moved = torch.empty_like(labels[0])
    rows, columns = (blocks(side, config, target.device) for side in target.shape[:2])
    for row, around_row, far_row in rows:
        for column, around_column, far_column in columns:
            near, given = (
                torch.stack([each[around_row, around_column] for each in maps])
                for maps in (sources, labels)
            )  # [K, y, x, D], [K, y, x, M]
            asking = rearrange(target[row, column], "r c d -> (r c) d")
            cosine = asking @ rearrange(near, "k y x d -> d (k y x)")  # [n, s]
            far = far_row[:, None, None, :, None] | far_column[None, :, None, None, :]
            cosine.view(*far.shape[:2], *near.shape[:3]).masked_fill_(far, -torch.inf)
            taken = affinity(cosine, config) @ rearrange(given, "k y x m -> (k y x) m")
            moved[row, column] = taken.view_as(moved[row, column])
    return moved


def blocks(
    side: int, config: PropagationConfig, device: torch.device
) -> list[tuple[slice, slice, Tensor]]:
    """Cut a side of a grid: places of a block, places around it, and which are too far apart."""
    parts = []
    for start in range(0, side, config.tile):
        end = min(start + config.tile, side)
        near = slice(max(0, start - config.radius), min(side, end + config.radius))
        here = torch.arange(start, end, device=device)
        there = torch.arange(near.start, near.stop, device=device)
        parts.append((slice(start, end), near, (here[:, None] - there).abs() > config.radius))
    return parts


def affinity(cosine: Tensor, config: PropagationConfig) -> Tensor:
    """Return how much each of the sources counts: [n, s], rows sum to 1.

    `cosine` [n, s] is minus infinity for sources that are too far away.
    """
    count = min(config.neighbors, cosine.shape[1])
    least = cosine.topk(count, dim=1).values[:, -1:]
    # as official: all that are as similar as the k-th count, so that the order does not matter
    return (cosine / config.temperature).masked_fill_(cosine < least, -torch.inf).softmax(dim=1)


def read_out(labels: Tensor, stride: int, size: tuple[int, int]) -> Tensor:
    """Decide for one label at every pixel.

    # as official: enlarged, every label is stretched to the range of 0 to 1 by itself, so that a
    thing whose labels have become faint still counts.

    Args:
        labels: [h, w, M].
        stride: pixels per token of the resized frames.
        size: rows and columns of the answer, the index of the label [H, W] int64.
    """
    soft = rearrange(labels, "h w m -> 1 m h w")
    large = interpolate(soft, scale_factor=stride, mode="bilinear", align_corners=False)
    low, high = large.amin((2, 3), keepdim=True), large.amax((2, 3), keepdim=True)
    varies = high - low > LEAST_SPAN * high  # else rounding would be stretched
    stretched = torch.where(varies, (large - low) / (high - low), large)
    return resize_ids(stretched.argmax(dim=1)[0].to(torch.uint8), size).long()


def resize_ids(ids: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize ids [H, W] uint8 to the nearest ones; as official, by Pillow, which rounds its way."""
    picture = Image.fromarray(ids.cpu().numpy()).resize(size[::-1], Image.Resampling.NEAREST)
    return torch.from_numpy(np.array(picture)).to(ids.device)
