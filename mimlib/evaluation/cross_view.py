"""What a method makes of its second view: where its cross-attention looks, and what it copies.

A loss far below that of a blank second view shows that the view is used, not that anything is
matched: colours from roughly the same place help, too. So the views are cut out of larger ones at
different places, known to nobody but the measurement, and two questions are asked. Where does each
patch look, and is what it shows there (PCK, the share of correct key points)? And what is the loss
if the second view is the very same image, or the same image cut elsewhere: is it copied from?

Letters: B pairs, S side of the crops in pixels, P patch side, N patches, A heads.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from mimlib.checks import check_positive, check_range
from mimlib.data.batches import DensePairBatch
from mimlib.data.matching.source import MatchingFilesConfig
from mimlib.data.pairs.world import WorldPairsConfig
from mimlib.data.transforms.crops import take_window
from mimlib.evaluation.measurement import Measurement, evaluating, split
from mimlib.layers.masking import as_bool, mask_from_bool
from mimlib.layers.patches import grid_of, normalize
from mimlib.protocol import Trainable


@dataclass(frozen=True, kw_only=True)
class CrossViewConfig:
    """Loss under five second views, and where the patches of the first one look."""

    source: WorldPairsConfig | MatchingFilesConfig  # un-cropped pairs with flow, larger than `size`
    size: int  # pixels, side S of the crops: what the method sees
    largest_shift: int  # pixels; view 2 is cut up to so far from where view 1 is cut, each way
    radius: float  # pixels; what a patch looks at is right if the true place is within
    num_images: int = 256  # pairs, as `source.first` chooses them
    batch_size: int = 64  # pairs measured at once
    seed: int = 0  # of crops and masks; the same draws every time
    name: str = "cross_view"

    def __post_init__(self) -> None:
        check_positive(self, "size", "radius", "batch_size")
        check_range(self, "largest_shift", least=0)
        hint = "a wrong second view is that of another pair"
        check_range(self, "num_images", least=2, hint=hint)

    def build(self) -> "CrossView":
        """Make the measurement with its source."""
        return CrossView(self.source.build(), self)


class ShiftedPairs(NamedTuple):
    """Views cut out of larger ones at two places."""

    image_1: Tensor  # [B, 3, S, S] uint8
    image_2: Tensor  # [B, 3, S, S] uint8, cut `shift` away from image 1
    shifted: Tensor  # [B, 3, S, S] uint8, view 1 cut where image 2 is cut
    wrong: Tensor  # [B, 3, S, S] uint8, image 2 of another pair
    flow: Tensor  # [B, S, S, 2] pixels (dx, dy), from image 1 to image 2
    valid: Tensor  # [B, S, S] bool, False where there is no ground truth


class CrossView(Measurement):
    """Measure a method whose decoder looks from one image into another."""

    @cached_property
    def pairs(self) -> ShiftedPairs:
        """The held-out pairs, on the CPU."""
        config = self.config
        generator = torch.Generator().manual_seed(config.seed)
        return shifted_pairs(self.images, config.size, config.largest_shift, generator)

    def run(self, model: Trainable, device: torch.device) -> Mapping[str, float]:
        """Return losses by second view, `reliance`, and the shares of patches that look right.

        `loss_true`, `loss_same` (the very image), `loss_shifted` (the same, cut elsewhere),
        `loss_blank`, `loss_wrong` (of another pair); `reliance` is blank minus true.
        `pck_hidden...` counts the masked patches of image 1, `pck_complete...` all patches with
        nothing masked; `..._block<i>_best` is the best head, `..._mean` the mean of the heads.
        Without a block: the best head of all. `..._same_place` is what looking straight ahead is
        worth; the best of several heads lies a little above chance by itself.
        Raises ValueError if the method has no cross-attention.
        """
        if not callable(getattr(model, "cross_attention_maps", None)):
            raise ValueError(
                f"{type(model).__name__} has no cross_attention_maps; measure a method that "
                "completes one view by another, such as CroCo"
            )
        generator = torch.Generator(device).manual_seed(self.config.seed)
        sums: dict[str, Tensor | int] = defaultdict(int)
        with evaluating(model):
            for part in split(self.pairs, self.config.batch_size, device):
                views = model.sample_views(part, generator)
                for name, loss in losses_by_view(model, views, part).items():
                    sums[name] += loss * len(part.image_1)
                for name, hits in self._hits(model, views, part).items():
                    sums[name] += hits
        return self._shares(sums, len(model.decoder.blocks))

    def _hits(self, model: Trainable, views: NamedTuple, part: ShiftedPairs) -> dict[str, Tensor]:
        """Count what looks right, per kind of patch: [A + 2] heads, their mean, same place."""
        stride = model.encoder.stride
        grid = grid_of(views.image_1, stride)
        places, seen = true_places(part.flow, part.valid, stride)
        ahead = centers(grid, stride, places.device).expand(len(places), 1, -1, -1)
        complete = views._replace(mask=mask_from_bool(torch.zeros_like(seen)))
        kinds = {"hidden": (views, seen & as_bool(views.mask)), "complete": (complete, seen)}
        hits = {}
        for kind, (shown, counted) in kinds.items():
            hits[f"{kind}_count"] = counted.sum()
            for block in range(len(model.decoder.blocks)):
                maps = model.cross_attention_maps(shown, block).float()  # [B, A, N, N]
                maps = torch.cat([maps, maps.mean(dim=1, keepdim=True)], dim=1)
                looked_at = torch.cat([attended(maps, grid, stride), ahead], dim=1)
                right = count_right(looked_at, places, counted, self.config.radius)
                hits[f"{kind}_block{block}"] = right
        return hits

    def _shares(self, sums: Mapping[str, Tensor], num_blocks: int) -> dict[str, float]:
        """Turn sums into means and shares."""
        count = len(self.pairs.image_1)
        found = {n: float(s) / count for n, s in sums.items() if n.startswith("loss")}
        found["reliance"] = found["loss_blank"] - found["loss_true"]
        for kind in ("hidden", "complete"):
            best = []
            for block in range(num_blocks):
                hits = sums[f"{kind}_block{block}"]
                *heads, mean, ahead = (hits / sums[f"{kind}_count"].clamp(min=1)).tolist()
                best.append(max(heads))
                found[f"pck_{kind}_block{block}_best"] = best[-1]
                found[f"pck_{kind}_block{block}_mean"] = mean
            found |= {f"pck_{kind}": max(best), f"pck_{kind}_same_place": ahead}
        return found


def shifted_pairs(
    batch: DensePairBatch, size: int, largest_shift: int, generator: torch.Generator
) -> ShiftedPairs:
    """Cut the two views of each pair at places of their own; the flow is that of the crops.

    The shift from crop 1 to crop 2 is uniform over -largest ... largest on each axis.
    Raises ValueError if the views are too small for that, or the target is not flow.
    """
    count, room = len(batch.image_1), [side - size for side in batch.image_1.shape[-2:]]
    if min(room) < largest_shift or batch.target.shape[-1] != 2:
        raise ValueError(
            f"views of {tuple(batch.image_1.shape[-2:])} pixels and a target with "
            f"{batch.target.shape[-1]} channels: expected flow, and {size + largest_shift} pixels "
            f"or more for crops of {size} up to {largest_shift} apart"
        )
    shifts = torch.randint(-largest_shift, largest_shift + 1, (count, 2), generator=generator)
    low = (-shifts).clamp(min=0)
    span = torch.tensor(room) - shifts.abs() + 1
    first = low + (torch.rand(count, 2, generator=generator) * span).long()  # [B, 2] top, left

    def cut_all(fields: Tensor, corners: Tensor) -> Tensor:
        chosen = zip(fields, corners.numpy())
        return torch.stack([take_window(field, corner, (size, size)) for field, corner in chosen])

    image_2 = cut_all(batch.image_2, first + shifts)
    flow = cut_all(batch.target.movedim(-1, 1), first) - shifts.flip(1)[:, :, None, None]
    return ShiftedPairs(
        image_1=cut_all(batch.image_1, first),
        image_2=image_2,
        shifted=cut_all(batch.image_1, first + shifts),
        wrong=image_2.roll(1, dims=0),
        flow=flow.movedim(1, -1),
        valid=cut_all(batch.valid[:, None], first)[:, 0],
    )


def losses_by_view(model: Trainable, views: NamedTuple, pairs: ShiftedPairs) -> dict[str, Tensor]:
    """Return the loss with each second view in turn, the masks being the same."""
    second = {
        "true": views.image_2,
        "same": views.image_1,
        "shifted": normalize(pairs.shifted),
        "blank": torch.zeros_like(views.image_2),  # the mean colour of ImageNet
        "wrong": normalize(pairs.wrong),
    }
    return {f"loss_{n}": model(views._replace(image_2=s)).loss for n, s in second.items()}


def centers(grid: tuple[int, int], patch_size: int, device: torch.device) -> Tensor:
    """Return the middle of each patch, [N, 2] pixels (x, y), row by row."""
    rows, columns = (patch_size * (torch.arange(n, device=device) + 0.5) for n in grid)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


def true_places(flow: Tensor, valid: Tensor, patch_size: int) -> tuple[Tensor, Tensor]:
    """Find where the middle of each patch of image 1 is in image 2.

    By the flow [B, H, W, 2] in pixels (dx, dy), where it is valid [B, H, W]. Returns the places
    [B, N, 2] in pixels (x, y), and whether they are known and within image 2, [B, N].
    """
    middle = patch_size // 2  # of an even patch the pixel below and right of its middle
    height, width = flow.shape[1:3]
    grid = (height // patch_size, width // patch_size)
    start = centers(grid, patch_size, flow.device) + (middle + 0.5 - patch_size / 2)
    moved = flow[:, middle::patch_size, middle::patch_size]  # [B, h, w, 2]
    places = start + rearrange(moved, "b h w xy -> b (h w) xy")
    known = rearrange(valid[:, middle::patch_size, middle::patch_size], "b h w -> b (h w)")
    inside = (places >= 0) & (places < places.new_tensor([width, height]))
    return places, known & inside.all(dim=-1)


def attended(maps: Tensor, grid: tuple[int, int], patch_size: int) -> Tensor:
    """Return the middle of the patch that each patch attends to most, [B, A, N, 2] pixels.

    The maps [B, A, N, N] lead from patches of image 1 (rows) to those of image 2, of this grid.
    """
    return centers(grid, patch_size, maps.device)[maps.argmax(dim=-1)]


def count_right(looked_at: Tensor, places: Tensor, counted: Tensor, radius: float) -> Tensor:
    """Count the patches whose place [B, A, N, 2] is within the radius of the true one, [A]."""
    distance = torch.linalg.vector_norm(looked_at - places[:, None], dim=-1)  # [B, A, N]
    return ((distance <= radius) & counted[:, None]).sum(dim=(0, 2))
