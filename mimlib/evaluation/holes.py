"""What a masked autoencoder paints into the holes, beside a filling that knows nothing of pictures.

Letters: B images, N patches, P patch side.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from mimlib.checks import check_positive
from mimlib.data.pairs.world import WorldPairsConfig
from mimlib.evaluation.measurement import Measurement, evaluating, split
from mimlib.evaluation.validation import SourceConfig
from mimlib.layers.masking import as_bool
from mimlib.layers.patches import grid_of
from mimlib.protocol import Trainable

ROUNDS = 400  # within about 1 % of settled in images of 64 pixels with patches of 8


def smooth(
    images: Float[Tensor, "B 3 H W"], holes: Bool[Tensor, "B 1 H W"], rounds: int = ROUNDS
) -> Float[Tensor, "B 3 H W"]:
    """Fill holes with the mean color of what is visible, then relax: Laplace's equation.

    In every round each hidden pixel becomes the mean of its four neighbors.
    """
    known = (~holes).sum((2, 3), keepdim=True).clamp(min=1)  # nothing visible: black
    mean = (images * ~holes).sum((2, 3), keepdim=True) / known
    images = torch.where(holes, mean, images)
    for _ in range(rounds):
        wide = F.pad(images, (1, 1, 1, 1), mode="replicate")
        vertical, horizontal = wide[..., :-2, 1:-1] + wide[..., 2:, 1:-1], wide[..., 1:-1, :-2]
        images = torch.where(holes, (vertical + horizontal + wide[..., 1:-1, 2:]) / 4, images)
    return images


def hole_pixels(
    hidden: Bool[Tensor, "B N"], grid: tuple[int, int], patch_size: int
) -> Bool[Tensor, "B 1 H W"]:
    """Return which pixels lie in hidden patches."""
    pixels = hidden.unflatten(1, grid).repeat_interleave(patch_size, 1)
    return pixels.repeat_interleave(patch_size, 2)[:, None]


@dataclass(frozen=True, kw_only=True)
class HolesConfig:
    """Squared error in the holes of held-out images, the network's and that of smoothing."""

    source: SourceConfig | WorldPairsConfig  # of pairs the first view has the holes
    num_images: int = 256
    batch_size: int = 64  # images measured at once
    seed: int = 0  # of the masks; the same draws every time
    name: str = "holes"

    def __post_init__(self) -> None:
        check_positive(self, "num_images", "batch_size")

    def build(self) -> "Holes":
        """Make the measurement with its images."""
        return Holes(self.source.build(), self)


class Holes(Measurement):
    """Measure what is painted without a look at the truth, colors in [0, 1]."""

    def run(self, model: Trainable, device: torch.device) -> Mapping[str, float]:
        """Return the mean squared errors `painted` and `smoothed`, and their `ratio`.

        Of pairs also `painted_wrong`, with the second view of another pair, and `ratio_wrong`.
        Raises ValueError if the method paints no holes.
        """
        if not hasattr(model, "reconstruct"):
            raise ValueError(
                f"{type(model).__name__} paints no holes; measure a masked autoencoder"
            )
        generator = torch.Generator(device).manual_seed(self.config.seed)
        squares, count = defaultdict(float), 0
        with evaluating(model):
            for batch in split(self.images, self.config.batch_size, device):
                views = model.sample_views(batch, generator)
                times = len(views.mask.masked) // len(batch[0])  # complementary masks: several
                truth = (batch[0] / 255).repeat(times, 1, 1, 1)
                grid = grid_of(truth, model.patch_size)
                holes = hole_pixels(as_bool(views.mask), grid, model.patch_size)
                filled = _painted(model, views) | {"smoothed": smooth(truth, holes)}
                for name, images in filled.items():
                    squares[name] += float(((images - truth).square() * holes).sum())
                count += 3 * int(holes.sum())
        found = {name: square / count for name, square in squares.items()}
        ratios = {n.replace("painted", "ratio"): e / found["smoothed"] for n, e in found.items()}
        return found | {n: ratio for n, ratio in ratios.items() if n != "smoothed"}


def _painted(model: Trainable, views: NamedTuple) -> dict[str, Tensor]:
    """Paint without a look at the truth; with a wrong second view, too, where there is one."""
    seen = {"painted": views}
    if "image_2" in views._fields:
        seen["painted_wrong"] = views._replace(image_2=views.image_2.roll(1, dims=0))
    return {name: model.reconstruct(each, borrow_statistics=False) for name, each in seen.items()}
