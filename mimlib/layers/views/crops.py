"""Random crops of whole batches on their device: one axis is one matrix.

To cut a stretch out of an axis, to resize it, to mirror it and to blur along it are linear maps.
Each image has matrices of its own, and a batch of them is one product per axis: no image is
handled alone, and the result is that of Pillow's and torch's resizing with antialiasing.

Letters: B images, V crops of each, C channels, H and W pixels, S side of a crop. A box is (top,
left, height, width) in pixels.

Images that were stretched to one shape are cut so that their crops are not: a box is drawn in the
image as it was and stretched with it, and to resize the crop undoes that.
"""

import math

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

ASPECT_RATIO = (3 / 4, 4 / 3)  # width over height of a box, as torchvision has it
TRIES = 10  # as torchvision: draws before a box that does not fit is given up
FILTER_RADIUS = 2.0  # of the bicubic filter, in pixels of the coarser side


def random_boxes(
    num_crops: int,
    images: Shaped[Tensor, "B C H W"],
    scale: tuple[float, float],
    generator: torch.Generator,
    stretched_from: Int[Tensor, "_ _"] | None = None,
) -> Float[Tensor, "V B 4"]:
    """Draw the boxes of random resized crops (Szegedy et al. 2015; the crop of DINO).

    The area is uniform in `scale` times the image's, the aspect ratio log-uniform in 3/4 ... 4/3,
    sides are whole pixels. A box that does not fit is drawn again, ten times at most; then the
    largest centered box of an allowed ratio is taken. Of images that were stretched, height and
    width before are `stretched_from` [B, 2], else a ValueError; boxes are then of the stretched
    ones, in parts of pixels.
    """
    height, width = _sides_before(images, stretched_from)  # [B, 1] or [1]
    shape = (num_crops, len(images), TRIES)
    area, turn, row, column = torch.rand(4, *shape, generator=generator, device=generator.device)
    area = (scale[0] + (scale[1] - scale[0]) * area) * (height * width)  # [V, B, tries]
    low, high = map(math.log, ASPECT_RATIO)
    ratio = (low + (high - low) * turn).exp()
    heights = (area / ratio).sqrt().round().clamp(min=1)
    widths = (area * ratio).sqrt().round().clamp(min=1)
    fits = (heights <= height) & (widths <= width)
    first = fits.to(torch.uint8).argmax(dim=-1, keepdim=True)  # [V, B, 1]
    ours = (heights, widths, row, column)
    largest = (_longest(height, width), _longest(width, height), 0.5, 0.5)
    fits = fits.any(dim=-1, keepdim=True)
    heights, widths, row, column = (
        torch.where(fits, each.gather(-1, first), other) for each, other in zip(ours, largest)
    )
    top = (row * (height - heights + 1)).floor()
    left = (column * (width - widths + 1)).floor()
    boxes = torch.cat([top, left, heights, widths], dim=-1)  # [V, B, 4]
    return boxes if stretched_from is None else _stretch(boxes, stretched_from, images.shape[-2:])


def _sides_before(images: Tensor, stretched_from: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return height and width before any stretching, each [B, 1], or [1] if it is that of all."""
    if stretched_from is None:
        sides = (float(side) for side in images.shape[-2:])
        return tuple(torch.full((1,), side, device=images.device) for side in sides)
    if stretched_from.shape != (len(images), 2):
        raise ValueError(
            f"stretched_from has shape {tuple(stretched_from.shape)}; expected height and width of "
            f"each of {len(images)} images, ({len(images)}, 2)"
        )
    return tuple(stretched_from.float()[:, :, None].unbind(dim=1))


def _longest(side: Tensor, other: Tensor) -> Tensor:
    """Return `side`, cut so that it is at most 4/3 of the other one."""
    return side.minimum((other * ASPECT_RATIO[1]).round().clamp(min=1))


def _stretch(boxes: Tensor, stretched_from: Tensor, shape: tuple[int, int]) -> Tensor:
    """Stretch boxes [V, B, 4] as their images were; narrower than two pixels they may hold none."""
    places = []
    for axis, side in enumerate(shape):
        factor = side / stretched_from[:, axis]  # [B]
        length = (boxes[..., axis + 2] * factor).clamp(min=min(2, side))
        places.append(((boxes[..., axis] * factor).clamp(max=side - length), length))
    (top, height), (left, width) = places
    return torch.stack([top, left, height, width], dim=-1)


def crop_batch(
    images: Float[Tensor, "B C H W"],
    boxes: Float[Tensor, "V B 4"],
    mirrored: Bool[Tensor, "V B"],
    size: int,
) -> Float[Tensor, "V B C S S"]:
    """Cut boxes out of images in [0, 1] and resize them bicubically, with antialiasing.

    Those that are `mirrored` change left and right.
    """
    top, left, height, width = boxes.unbind(dim=-1)  # [V, B]
    rows = crop_matrix(top, height, images.shape[-2], size)  # [V, B, S, H]
    columns = crop_matrix(left, width, images.shape[-1], size)  # [V, B, S, W]
    columns = torch.where(mirrored[..., None, None], columns.flip(-2), columns)
    strips = torch.einsum("vbsh,bchw->vbcsw", rows, images)
    return torch.einsum("vbcsw,vbtw->vbcst", strips, columns).clamp(0, 1)


def crop_matrix(
    first: Float[Tensor, "*B"], length: Float[Tensor, "*B"], num_pixels: int, size: int
) -> Float[Tensor, "*B S H"]:
    """Write "cut out a stretch of an axis and resize it" as a matrix.

    Bicubic with a = -1/2, widened where pixels are merged; weights beyond the stretch (its first
    pixel and length) are left out and the rest sums to 1, as in Pillow.
    """
    pixels = torch.arange(num_pixels, device=first.device) + 0.5  # [H] centers
    first, length = first[..., None], length[..., None]
    step = length / size  # [*B, 1] pixels of the image per pixel of the result
    centers = first + (torch.arange(size, device=first.device) + 0.5) * step  # [*B, S]
    distance = (pixels - centers[..., None]).abs() / step.clamp(min=1)[..., None]  # [*B, S, H]
    near = 1 + distance.square() * (1.5 * distance - 2.5)
    far = 2 - distance * (4 - distance * (2.5 - 0.5 * distance))
    weights = torch.where(distance < 1, near, torch.where(distance < FILTER_RADIUS, far, 0.0))
    inside = (pixels > first) & (pixels < first + length)  # [*B, H]
    weights = weights * inside[..., None, :]
    return weights / weights.sum(dim=-1, keepdim=True)


def blur(
    images: Float[Tensor, "*B C S S"], radius: Float[Tensor, "*B"]
) -> Float[Tensor, "*B C S S"]:
    """Blur square images with a Gaussian each; pixels beyond the border do not count.

    The radius is the standard deviation in pixels, above 0.
    """
    pixels = torch.arange(images.shape[-1], device=images.device)
    distance = (pixels[:, None] - pixels) / radius[..., None, None]  # [*B, S, S]
    weights = (-0.5 * distance.square()).softmax(dim=-1)[..., None, :, :]
    return weights @ images @ weights.mT
