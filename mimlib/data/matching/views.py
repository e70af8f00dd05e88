"""What is done to a pair with ground truth displacements: scale, mirror, crop, colors.

Whatever moves pixels moves the displacements with them. The recipes of CroCo-Flow and CroCo-Stereo
are two sets of numbers for this, see presets/tasks/matching.py.

Letters: C channels of a displacement, U random numbers per pair (order.py).
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as v2

from mimlib.checks import check_positive, check_range
from mimlib.data.batches import DensePairBatch
from mimlib.data.order import registers
from mimlib.data.transforms.colors import jitter_colors, shift_hues
from mimlib.data.transforms.crops import crop_corners, nearest_pixels, take_window

MARGIN = 8  # pixels; as official: an image is not shrunk below the crop and this
TURN, SHIFT = 0.1, 2.0  # degrees, pixels; as official: how far cameras may be out of line
PAIR = registers(  # the corner and the colors where PairAugmentation has them
    corner=2, alike=1, hue_1=1, color_1=4, color_2=4, hue_2=1, scale=2, stretch=3, mirror=1,
    upside_down=1, misalign=1, misalignment=2,
)  # fmt: skip
COLORS, HUES = (PAIR.color_1, PAIR.color_2), (PAIR.hue_1, PAIR.hue_2)


@dataclass(frozen=True, kw_only=True)
class MatchingAugmentation:
    """Changes of a pair with displacements; by default a crop, and colors of each image."""

    size: tuple[int, int]  # (H, W) of the crop, pixels
    jitter: float = 0.4  # brightness, contrast and saturation are multiplied by 1 - this ... 1 + it
    hue: float = 0.0  # largest turn of the hues, to either side, as a share of the circle
    alike: float = 0.0  # share of pairs whose two images change their colors in the same way
    scale: tuple[float, float] = (0.0, 0.0)  # log2 of the enlargement, lowest and highest
    scaled: float = 0.0  # share of pairs that are scaled
    stretch: float = 0.0  # log2, largest, of a further enlargement of each side by itself
    stretched: float = 0.0  # share of the scaled pairs that are stretched
    widths_only: bool = False  # scale widths and leave heights: stereo
    mirrored: float = 0.0  # share of pairs mirrored left and right; not for disparities
    upside_down: float = 0.0  # share of pairs turned upside down by mirroring
    misaligned: float = 0.0  # share of pairs whose image 2 is turned and lifted a little: stereo

    def __post_init__(self):
        check_positive(self, "size")
        if len(self.size) != 2:
            raise ValueError(f"size {self.size} is no crop; expected (height, width) in pixels")
        shares = ("jitter", "hue", "alike", "scaled", "stretched", "mirrored", "upside_down",
                  "misaligned")  # fmt: skip
        check_range(self, *shares, least=0, most=1)
        check_range(self, "scale", ordered=True, hint="both are logarithms")
        check_range(self, "stretch", least=0)


def change_shape(
    item: DensePairBatch, draws: np.ndarray, config: MatchingAugmentation
) -> DensePairBatch:
    """Scale, crop and mirror a pair without the axis of the batch.

    ValueError if the image is smaller than the crop, or a disparity is to be mirrored.
    """
    size = config.size
    item = resize_pair(item, draw_sides(item.valid.shape, draws, config))
    corner = crop_corners(draws[PAIR.corner], item.valid.shape, size)
    target = item.target.movedim(-1, 0)  # [C, H, W]
    *views, target, valid = (
        take_window(field, corner, size) for field in (*item[:2], target, item.valid)
    )
    if draws[PAIR.mirror] < config.mirrored:
        if len(target) == 1:
            raise ValueError("a mirrored stereo pair has its images swapped; set mirrored to 0")
        views, valid = [view.flip(-1) for view in views], valid.flip(-1)
        target = target.flip(-1) * torch.tensor([-1.0, 1.0])[:, None, None]
    if draws[PAIR.upside_down] < config.upside_down:
        views, valid, target = [view.flip(-2) for view in views], valid.flip(-2), target.flip(-2)
        target = target * torch.tensor([1.0, -1.0])[: len(target), None, None]
    if draws[PAIR.misalign] < config.misaligned:
        views[1] = misalign(views[1], *(2 * draws[PAIR.misalignment] - 1))
    return DensePairBatch(*views, target.movedim(0, -1), valid)


def draw_sides(
    shape: tuple[int, int], draws: np.ndarray, config: MatchingAugmentation
) -> tuple[int, int]:
    """Return the height and width to resize an image to: drawn, but never below the crop.

    # differs from official: for flow, too, images too small for the crop are always enlarged.
    """
    fits = (np.array(shape) >= config.size).all()
    chosen = draws[PAIR.scale][0] < config.scaled
    if not config.scaled or (fits and not chosen):
        return tuple(shape)
    factors, least = np.ones(2), (np.array(config.size) + MARGIN) / shape
    if chosen:
        low, high = config.scale
        factors *= 2 ** (low + (high - low) * draws[PAIR.scale][1])
        if draws[PAIR.stretch][0] < config.stretched:
            factors *= 2 ** (config.stretch * (2 * draws[PAIR.stretch][1:] - 1))
    if config.widths_only:
        factors[0] = least[0] = 1.0
    else:
        least[:] = least.max()  # as official: both sides by the more demanding of the two
    height, width = np.rint(np.maximum(factors, least) * shape).astype(int).tolist()
    return height, width


def resize_pair(item: DensePairBatch, sides: tuple[int, int]) -> DensePairBatch:
    """Resize images bilinearly, displacements to the nearest one, times what their axis grew.

    # differs from official: flow that is known everywhere is not interpolated either, as that
    # makes vectors between two surfaces which are those of none.
    """
    height, width = item.valid.shape
    if (height, width) == tuple(sides):
        return item
    views = [v2.resize(view, list(sides), InterpolationMode.BILINEAR) for view in item[:2]]
    rows, columns = map(nearest_pixels, (height, width), sides)
    growth = torch.tensor([sides[1] / width, sides[0] / height])  # of x, y
    target = item.target[rows][:, columns] * growth[: item.target.shape[-1]]
    return DensePairBatch(*views, target, item.valid[rows][:, columns])


def misalign(image: Tensor, turn: float, shift: float) -> Tensor:
    """Turn the right image [3, H, W] about its middle and lift it, by -1 to 1 of TURN and SHIFT.

    What comes in from outside is black.

    # differs from official: there the middle is a random point, with its coordinates exchanged.
    """
    return v2.affine(
        image,
        angle=turn * TURN,
        translate=[0.0, shift * SHIFT],
        scale=1.0,
        shear=[0.0, 0.0],
        interpolation=InterpolationMode.BILINEAR,
    )


def change_colors(
    batch: DensePairBatch, draws: np.ndarray, config: MatchingAugmentation
) -> DensePairBatch:
    """Change the colors of both images of each pair, alike or each by itself."""
    alike = draws[:, PAIR.alike, None] < config.alike
    views = []
    for images, color, hue in zip(batch[:2], COLORS, HUES):
        colors = np.where(alike, draws[:, COLORS[0]], draws[:, color])
        hues = np.where(alike[:, 0], draws[:, HUES[0]], draws[:, hue])
        images = jitter_colors(images, colors, config.jitter)
        views.append(shift_hues(images, config.hue * (2 * hues - 1)))
    return batch._replace(image_1=views[0], image_2=views[1])
