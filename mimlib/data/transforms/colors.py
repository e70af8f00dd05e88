"""Changes of color: jitter as torchvision's, distortion as SSD's."""

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torchvision.transforms.v2 import functional as v2

from mimlib.data.order import registers

GRAY = (0.2989, 0.587, 0.114)  # ITU-R 601, as torchvision's rgb_to_grayscale
BRIGHTNESS, CONTRAST, SATURATION = range(3)  # kinds of change, and their orders
ORDERS = ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
# As official, SSD (arXiv 1512.02325).
LARGEST_BRIGHTNESS = 32  # largest change, of 255
FACTOR = 0.5  # contrast and saturation are multiplied by 1 - this ... 1 + it
HUE = 0.1  # 18 of 180: largest turn to either side, as a share of the circle
DISTORT = registers(changed=4, amounts=4, contrast_last=1)


def jitter_colors(
    images: Tensor, draws: np.ndarray, strength: float | tuple[float, float, float]
) -> Tensor:
    """Change brightness, contrast and saturation of each image, in an order of its own.

    Every change is a blend f x + (1 - f) reference, with the reference black (brightness), the
    mean gray of the image (contrast) or the gray of the pixel (saturation), clipped to the range
    of pixels; f is uniform in 1 - strength ... 1 + strength. As torchvision's ColorJitter. Images
    are [B, 3, H, W] uint8; draws [B, 4] in [0, 1) are three factors and the order; the strength, of
    all three or of each, is 0 (nothing happens) to 1.

    # differs from official: rounded to 8 bits once, at the end, and not after each change.
    """
    if not np.any(strength):
        return images
    factors = 1 + np.array(strength) * (2 * draws[:, :3] - 1)
    order = np.array(ORDERS)[(draws[:, 3] * len(ORDERS)).astype(np.int64)]  # [B, 3]
    values = images.float()
    for step in range(3):
        kind = torch.from_numpy(order[:, step])
        factor = torch.from_numpy(np.take_along_axis(factors, order[:, step : step + 1], 1))
        factor, kind = (rearrange(part, "b ... -> b (...) 1 1") for part in (factor, kind))
        red, green, blue = values.unbind(1)
        gray = (GRAY[0] * red + GRAY[1] * green + GRAY[2] * blue)[:, None]  # [B, 1, H, W]
        reference = torch.where(kind == CONTRAST, gray.mean((2, 3), keepdim=True), gray)
        reference = reference.masked_fill(kind == BRIGHTNESS, 0.0)
        values = torch.lerp(reference, values, factor.float()).clamp(0, 255)
    return values.round().to(torch.uint8)


def shift_hues(images: Tensor, turns: np.ndarray) -> Tensor:
    """Turn hues of [B, 3, H, W] uint8 by shares [B] of the circle, -1/2 to 1/2, as torchvision."""
    if not turns.any():
        return images
    return torch.stack([v2.adjust_hue(i, turn) for i, turn in zip(images, turns.tolist())])


def distort_colors(image: Tensor, draws: np.ndarray) -> Tensor:
    """Change brightness, contrast, saturation and hue of [3, H, W] uint8, each in half the cases.

    SSD (arXiv 1512.02325, section 2.2, after Howard, arXiv 1312.5402): brightness is added to,
    contrast multiplied, saturation and hue changed in HSV; contrast comes second or last.

    # differs from official: rounded to 8 bits once, at the end, and not after each change.
    """
    brightness, contrast, saturation, hue = draws[DISTORT.changed] < 0.5
    amounts = (2 * draws[DISTORT.amounts] - 1).tolist()
    is_last = draws[DISTORT.contrast_last] < 0.5
    factor = 1 + FACTOR * amounts[1]
    values = image.float()
    if brightness:
        values = (values + LARGEST_BRIGHTNESS * amounts[0]).clamp(0, 255)
    if contrast and not is_last:
        values = (values * factor).clamp(0, 255)
    if saturation:
        largest = values.amax(dim=0)
        spread = largest - values.amin(dim=0)  # saturation is spread / largest, at most 1
        growth = (largest / spread.clamp(min=1e-3)).clamp(max=1 + FACTOR * amounts[2])
        values = largest - (largest - values) * growth
    if hue:
        values = 255 * v2.adjust_hue(values / 255, HUE * amounts[3])
    if contrast and is_last:
        values = (values * factor).clamp(0, 255)
    return values.round().to(torch.uint8)
