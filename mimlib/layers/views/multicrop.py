"""Many crops of one image: what methods that compare views of an image are fed with.

Caron et al., SwAV (arXiv 2006.09882), section 3.2, with the colors of BYOL (arXiv 2006.07733,
appendix B) as in DINO: two large "global" crops and some small "local" ones. All crops of a batch
are made at once, on its device.

Letters: B images, V crops, S side of a crop in pixels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mimlib.checks import check_range
from mimlib.layers.patches import normalize
from mimlib.layers.views import colors
from mimlib.layers.views.crops import blur, crop_batch, random_boxes

NUM_GLOBAL = 2
MIRROR, JITTER, GRAY = 0.5, 0.8, 0.2  # chances that a crop is mirrored, jittered, made gray
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1  # largest change by the jitter


@dataclass(frozen=True, kw_only=True)
class MultiCropConfig:
    """How many crops, how large, of how much of the image. Defaults: SelfPatch."""

    global_size: int = 224  # pixels, side of the two global crops
    local_size: int = 96  # pixels, side of the local crops
    num_local: int = 8  # local crops
    global_scale: tuple[float, float] = (0.25, 1.0)  # share of the image's area
    local_scale: tuple[float, float] = (0.05, 0.25)  # share of the image's area
    blur: tuple[float, float] = (0.1, 2.0)  # pixels, standard deviation of the blur
    color: float = 1.0  # factor on the jitter and on the chance of gray; 0: neither (SimCLR's s)

    def __post_init__(self):
        check_range(self, "num_local", least=0)
        check_range(self, "global_scale", "local_scale", above=0, most=1, ordered=True)
        check_range(self, "blur", above=0, ordered=True)
        check_range(self, "color", least=0, most=1)

    @property
    def num_crops(self) -> int:
        """Crops of an image in all."""
        return NUM_GLOBAL + self.num_local

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides of the crops that there are, global ones first."""
        return (self.global_size, self.local_size)[: 1 + bool(self.num_local)]


class MultiCropViews(NamedTuple):
    """Crops of each image, ImageNet-normalised; crop v of all images is one batch."""

    global_crops: Tensor  # [2, B, 3, S, S] float32
    local_crops: Tensor  # [V - 2, B, 3, s, s] float32

    def by_size(self) -> tuple[Tensor, ...]:
        """Return the crops of each size that there are."""
        return (self.global_crops, self.local_crops) if len(self.local_crops) else self[:1]


def multi_crop(
    images: UInt8[Tensor, "B 3 H W"],
    config: MultiCropConfig,
    generator: torch.Generator,
    stretched_from: Int[Tensor, "_ _"] | None = None,
) -> MultiCropViews:
    """Cut all crops of all images and change their colors.

    The first global crop is always blurred, the second seldom but sometimes solarized, half of the
    local ones are blurred (as official). `stretched_from`: see `random_boxes`.
    """
    pixels = images.float() / 255

    def cut(count: int, size: int, scale: tuple[float, float]) -> Tensor:
        boxes = random_boxes(count, pixels, scale, generator, stretched_from)
        mirrored = torch.rand(boxes.shape[:-1], generator=generator, device=pixels.device) < MIRROR
        return crop_batch(pixels, boxes, mirrored, size)  # [V, B, 3, S, S]

    large = cut(NUM_GLOBAL, config.global_size, config.global_scale)
    first, second = (
        distort(crop, config, generator, blurred, solarized)
        for crop, blurred, solarized in zip(large, (1.0, 0.1), (0.0, 0.2))
    )
    small = cut(config.num_local, config.local_size, config.local_scale)
    small = distort(small, config, generator, blurred=0.5)
    return MultiCropViews(normalize(torch.stack([first, second])), normalize(small))


def distort(
    crops: Float[Tensor, "*B 3 S S"],
    config: MultiCropConfig,
    generator: torch.Generator,
    blurred: float = 0.0,
    solarized: float = 0.0,
) -> Float[Tensor, "*B 3 S S"]:
    """Jitter, make gray, blur and solarize some of the crops in [0, 1], by these chances.

    # differs from official: the four parts of the jitter come in one order, not in a random one.
    """

    def draw() -> Tensor:
        return torch.rand(crops.shape[:-3], generator=generator, device=crops.device)

    def around(middle: float, reach: float) -> Tensor:
        return middle + config.color * reach * (2 * draw() - 1)

    def sometimes(chance: float, changed: Tensor) -> Tensor:
        return torch.where((draw() < chance)[..., None, None, None], changed, crops)

    jittered = colors.change_brightness(crops, around(1.0, BRIGHTNESS))
    jittered = colors.change_contrast(jittered, around(1.0, CONTRAST))
    jittered = colors.change_saturation(jittered, around(1.0, SATURATION))
    crops = sometimes(JITTER, colors.shift_hue(jittered, around(0.0, HUE)))
    crops = sometimes(config.color * GRAY, colors.grayscale(crops).expand_as(crops))
    if blurred:
        low, high = config.blur
        radius = low + (high - low) * draw()
        crops = sometimes(blurred, blur(crops, radius))
    if solarized:
        crops = sometimes(solarized, colors.solarize(crops))
    return crops
