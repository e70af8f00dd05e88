"""Changes of color of whole batches, each image by a number of its own.

The operations are Pillow's, as torchvision has them for tensors, without rounding to 8 bits in
between. Images are RGB in [0, 1] and stay there; a strength or shift belongs to one image.

Letters: H and W pixels.
"""

import torch
from jaxtyping import Float
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in the brightness of a pixel
SOLARIZE_FROM = 128 / 255  # brighter values are inverted


def grayscale(images: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 1 H W"]:
    """Return how bright each pixel is."""
    red, green, blue = images.split(1, dim=-3)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue


def change_brightness(
    images: Float[Tensor, "*B 3 H W"], strength: Float[Tensor, "*B"]
) -> Float[Tensor, "*B 3 H W"]:
    """Multiply all values; strength 1 changes nothing."""
    return (images * _of_image(strength)).clamp(0, 1)


def change_contrast(
    images: Float[Tensor, "*B 3 H W"], strength: Float[Tensor, "*B"]
) -> Float[Tensor, "*B 3 H W"]:
    """Move all values away from the mean brightness of the image, or towards it."""
    mean = grayscale(images).mean(dim=(-3, -2, -1), keepdim=True)
    return mean.lerp(images, _of_image(strength)).clamp(0, 1)


def change_saturation(
    images: Float[Tensor, "*B 3 H W"], strength: Float[Tensor, "*B"]
) -> Float[Tensor, "*B 3 H W"]:
    """Move each pixel away from its own gray, or towards it."""
    return grayscale(images).lerp(images, _of_image(strength)).clamp(0, 1)


def shift_hue(
    images: Float[Tensor, "*B 3 H W"], shift: Float[Tensor, "*B"]
) -> Float[Tensor, "*B 3 H W"]:
    """Turn the hue of all pixels (HSV), keeping value and saturation; 1 is a whole turn."""
    red, green, blue = images.unbind(dim=-3)
    value, least = images.amax(dim=-3), images.amin(dim=-3)
    chroma = value - least
    safe = torch.where(chroma > 0, chroma, 1.0)
    from_green, from_blue = 2 + (blue - red) / safe, 4 + (red - green) / safe
    hue = torch.where(value == green, from_green, from_blue)
    hue = torch.where(value == red, (green - blue) / safe, hue)  # sixths of a turn
    hue = hue + 6 * shift[..., None, None]
    corners = ((corner + hue) % 6 for corner in (5, 3, 1))
    return torch.stack(
        [value - chroma * torch.minimum(k, 4 - k).clamp(0, 1) for k in corners], dim=-3
    )


def solarize(images: Float[Tensor, "*B 3 H W"]) -> Float[Tensor, "*B 3 H W"]:
    """Invert what is bright."""
    return torch.where(images >= SOLARIZE_FROM, 1 - images, images)


def _of_image(number: Tensor) -> Tensor:
    return number[..., None, None, None]
